//! `EventBridge` event patterns [EB, "Comparison operators"]. An operator that
//! is not simulated is refused when the rule is read, never ignored.

use serde_json::{Map, Value};

/// A compiled pattern: every field must match.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    fields: Vec<(String, Node)>,
}

#[derive(Debug, Clone)]
enum Node {
    Object(Pattern),
    /// One of the tests must hold.
    Leaf(Vec<Test>),
}

#[derive(Debug, Clone)]
enum Test {
    Is(Value),
    Prefix(String),
    Suffix(String),
    IgnoreCase(String),
    Wildcard(String),
    Numeric(Vec<(Comparison, f64)>),
    Exists(bool),
    AnythingBut(Vec<Test>),
}

#[derive(Debug, Clone, Copy)]
enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Pattern {
    pub(crate) fn compile(pattern: &Value) -> Result<Pattern, String> {
        let Value::Object(fields) = pattern else {
            return Err("it is not an object".to_owned());
        };
        if fields.is_empty() {
            return Err("it is empty".to_owned());
        }
        let fields = fields
            .iter()
            .map(|(name, value)| {
                let node = match value {
                    _ if name.starts_with('$') => Err("it is not simulated".to_owned()),
                    Value::Object(_) => Pattern::compile(value).map(Node::Object),
                    Value::Array(tests) if tests.is_empty() => Err("an empty list".to_owned()),
                    Value::Array(tests) => {
                        tests.iter().map(Test::compile).collect::<Result<_, _>>().map(Node::Leaf)
                    }
                    _ => Err("neither an object nor a list".to_owned()),
                };
                node.map(|node| (name.clone(), node)).map_err(|why| format!("{name}: {why}"))
            })
            .collect::<Result<_, _>>()?;
        Ok(Pattern { fields })
    }

    pub(crate) fn matches(&self, event: &Value) -> bool {
        match event {
            Value::Object(event) => self.matches_object(event),
            // Of a list of objects one must match as a whole.
            Value::Array(items) => items.iter().any(|item| self.matches(item)),
            // What is not there can still be asked not to exist.
            _ => self.matches_object(&Map::new()),
        }
    }

    fn matches_object(&self, event: &Map<String, Value>) -> bool {
        self.fields.iter().all(|(name, node)| match (node, event.get(name)) {
            (Node::Object(pattern), value) => pattern.matches(value.unwrap_or(&Value::Null)),
            (Node::Leaf(tests), value) => tests.iter().any(|test| test.holds(value)),
        })
    }
}

impl Test {
    fn compile(test: &Value) -> Result<Test, String> {
        let Value::Object(operator) = test else {
            return match test {
                Value::Array(_) => Err("a list in a list".to_owned()),
                _ => Ok(Test::Is(test.clone())),
            };
        };
        let mut entries = operator.iter();
        let (Some((name, value)), None) = (entries.next(), entries.next()) else {
            return Err("a test is one operator".to_owned());
        };
        let string = || {
            let given = value.as_str().filter(|given| !given.is_empty());
            given.map(str::to_owned).ok_or_else(|| format!("{name} wants a text"))
        };
        match name.as_str() {
            "prefix" => string().map(Test::Prefix),
            "suffix" => string().map(Test::Suffix),
            "equals-ignore-case" => string().map(|text| Test::IgnoreCase(text.to_lowercase())),
            "wildcard" => string().map(Test::Wildcard),
            "numeric" => numeric(value).map(Test::Numeric),
            "exists" => {
                let wanted = value.as_bool().ok_or("exists wants true or false")?;
                Ok(Test::Exists(wanted))
            }
            "anything-but" => anything_but(value).map(Test::AnythingBut),
            _ => Err(format!("the operator {name} is not simulated")),
        }
    }

    fn holds(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            // "exists" works on leaves only [EB].
            (Test::Exists(wanted), value) => {
                value.is_some_and(|value| !value.is_object()) == *wanted
            }
            (_, None | Some(Value::Object(_))) => false,
            // A list in an event matches by one of its items, and is
            // anything but something by all of them.
            (Test::AnythingBut(tests), Some(Value::Array(items))) => {
                items.iter().all(|item| !tests.iter().any(|test| test.holds(Some(item))))
            }
            (_, Some(Value::Array(items))) => items.iter().any(|item| self.holds(Some(item))),
            (Test::AnythingBut(tests), value) => !tests.iter().any(|test| test.holds(value)),
            (Test::Is(wanted), Some(value)) => same(wanted, value),
            (Test::Numeric(bounds), Some(value)) => value
                .as_f64()
                .is_some_and(|value| bounds.iter().all(|(how, bound)| how.holds(value, *bound))),
            (Test::Prefix(text), Some(Value::String(value))) => value.starts_with(text),
            (Test::Suffix(text), Some(Value::String(value))) => value.ends_with(text),
            (Test::IgnoreCase(text), Some(Value::String(value))) => value.to_lowercase() == *text,
            (Test::Wildcard(text), Some(Value::String(value))) => {
                crate::wire::wildcard_matches(text, value, false)
            }
            (
                Test::Prefix(_) | Test::Suffix(_) | Test::IgnoreCase(_) | Test::Wildcard(_),
                Some(_),
            ) => false,
        }
    }
}

/// Numbers are compared as numbers: 300, 300.0 and 3.0e2 are the same (EB).
fn same(wanted: &Value, value: &Value) -> bool {
    match (wanted.as_i64(), value.as_i64(), wanted.as_f64(), value.as_f64()) {
        (Some(wanted), Some(value), ..) => wanted == value,
        #[expect(clippy::float_cmp, reason = "equality is what the pattern asks for")]
        (.., Some(wanted), Some(value)) => wanted == value,
        _ => wanted == value,
    }
}

fn numeric(value: &Value) -> Result<Vec<(Comparison, f64)>, String> {
    let wrong = || format!("numeric wants pairs of a comparison and a number, not {value}");
    let parts = value.as_array().filter(|parts| matches!(parts.len(), 2 | 4)).ok_or_else(wrong)?;
    parts
        .chunks(2)
        .map(|pair| {
            let how = match pair[0].as_str() {
                Some("=") => Comparison::Equal,
                Some("<") => Comparison::Less,
                Some("<=") => Comparison::LessOrEqual,
                Some(">") => Comparison::Greater,
                Some(">=") => Comparison::GreaterOrEqual,
                _ => return Err(wrong()),
            };
            Ok((how, pair[1].as_f64().ok_or_else(wrong)?))
        })
        .collect()
}

fn anything_but(value: &Value) -> Result<Vec<Test>, String> {
    let simple = |value: &Value| match value {
        Value::String(_) | Value::Number(_) => Ok(Test::Is(value.clone())),
        _ => Err(format!("anything-but does not take {value}")),
    };
    match value {
        Value::Array(values) if !values.is_empty() => values.iter().map(simple).collect(),
        Value::Object(operator) => {
            let (Some((name, texts)), 1) = (operator.iter().next(), operator.len()) else {
                return Err("anything-but takes one operator".to_owned());
            };
            if !matches!(name.as_str(), "prefix" | "suffix" | "equals-ignore-case" | "wildcard") {
                return Err(format!("anything-but with {name} is not simulated"));
            }
            let compile = |text: &Value| Test::compile(&serde_json::json!({ name: text }));
            match texts {
                Value::Array(texts) if !texts.is_empty() => texts.iter().map(compile).collect(),
                text => compile(text).map(|test| vec![test]),
            }
        }
        value => simple(value).map(|test| vec![test]),
    }
}

impl Comparison {
    #[expect(clippy::float_cmp, reason = "equality is what the pattern asks for")]
    fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Comparison::Equal => value == bound,
            Comparison::Less => value < bound,
            Comparison::LessOrEqual => value <= bound,
            Comparison::Greater => value > bound,
            Comparison::GreaterOrEqual => value >= bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operators() {
        let event = json!({
            "source": "aws.ec2",
            "resources": ["arn:a", "arn:b"],
            "none": null,
            "detail": {"n": 300, "state": "Running", "deep": {"x": true}, "list": [{"k": 1}, {"k": 2}]},
        });
        for (pattern, matches) in [
            (json!({"source": ["aws.ec2", "x"]}), true),
            (json!({"source": ["aws.EC2"]}), false),
            (json!({"source": [{"prefix": "aws."}], "detail": {"n": [300.0]}}), true),
            (json!({"source": [{"prefix": "aws."}], "detail": {"n": ["300"]}}), false),
            (json!({"source": [{"suffix": ".ec2"}]}), true),
            (json!({"source": [{"suffix": ".ec"}]}), false),
            (json!({"source": [{"wildcard": "a*.e*2"}]}), true),
            (json!({"source": [{"wildcard": "aws?ec2"}]}), false),
            (json!({"detail": {"state": [{"equals-ignore-case": "running"}]}}), true),
            (json!({"detail": {"state": [{"equals-ignore-case": "run"}]}}), false),
            (json!({"detail": {"n": [{"numeric": [">", 299, "<=", 300]}]}}), true),
            (json!({"detail": {"n": [{"numeric": ["<", 300]}]}}), false),
            (json!({"detail": {"state": [{"numeric": ["<", 300]}]}}), false),
            (json!({"detail": {"deep": {"x": [true]}}}), true),
            (json!({"detail": {"deep": {"x": [false, "true"]}}}), false),
            (json!({"detail": {"deep": {"y": [{"exists": false}]}}}), true),
            (json!({"detail": {"no": {"y": [{"exists": false}]}}}), true),
            (json!({"detail": {"deep": {"x": [{"exists": false}]}}}), false),
            (json!({"detail": {"deep": [{"exists": true}]}}), false),
            (json!({"detail": {"state": [{"exists": true}]}}), true),
            (json!({"detail": {"list": {"k": [2]}}}), true),
            (json!({"detail": {"list": {"k": [3]}}}), false),
            (json!({"resources": ["arn:b"]}), true),
            (json!({"resources": [{"anything-but": "arn:b"}]}), false),
            (json!({"source": [{"anything-but": ["a", "b"]}]}), true),
            (json!({"source": [{"anything-but": ["a", "aws.ec2"]}]}), false),
            (json!({"source": [{"anything-but": {"prefix": "aws"}}]}), false),
            (json!({"missing": [{"anything-but": "a"}]}), false),
            (json!({"none": [null]}), true),
            (json!({"missing": [null]}), false),
        ] {
            assert_eq!(Pattern::compile(&pattern).unwrap().matches(&event), matches, "{pattern}");
        }
    }

    #[test]
    fn what_is_not_simulated_is_refused() {
        for (pattern, why) in [
            (json!({"a": [{"cidr": "10.0.0.0/8"}]}), "cidr"),
            (json!({"$or": [{"a": [1]}]}), "$or"),
            (json!({"a": "x"}), "a:"),
            (json!({"a": []}), "empty"),
            (json!({}), "empty"),
            (json!([1]), "object"),
            (json!({"a": [[1]]}), "list"),
            (json!({"a": [{"numeric": ["~", 1]}]}), "numeric"),
            (json!({"a": [{"exists": "yes"}]}), "exists"),
            (json!({"a": {"b": [{"prefix": {"equals-ignore-case": "x"}}]}}), "a: b: prefix"),
            (json!({"a": [{"anything-but": {"numeric": [1]}}]}), "numeric"),
        ] {
            let error = Pattern::compile(&pattern).unwrap_err();
            assert!(error.contains(why), "{pattern}: {error}");
        }
    }
}
