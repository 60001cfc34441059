//! template.yaml as a JSON value: `CloudFormation`'s short tags become their long
//! forms (`!Ref X` is `{"Ref": "X"}`), as `CloudFormation` itself reads them.
//!
//! serde-saphyr drops tags unless asked for each; hence the visitor.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Reads a template.
///
/// # Errors
/// The text is not YAML, or has a key that is no text.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    // `AttributeType: N` is a number to DynamoDB, not YAML 1.1's "no": CloudFormation
    // takes only the words true and false for booleans.
    let options = serde_saphyr::options! { strict_booleans: true };
    let node = serde_saphyr::from_str_with_options::<Node>(text, options);
    node.map(|Node(value)| value).map_err(|error| error.to_string())
}

/// A value whose tag was made into an intrinsic function.
struct Node(Value);

/// A value without its own tag.
struct Untagged(Value);

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let serde_saphyr::Tagged(Untagged(value), tag) = Deserialize::deserialize(deserializer)?;
        let name = match tag.as_deref().and_then(|tag| tag.strip_prefix('!')) {
            None | Some("") => return Ok(Self(value)),
            Some("Ref") => "Ref".to_owned(),
            Some("Condition") => "Condition".to_owned(),
            Some(function) => format!("Fn::{function}"),
        };
        // `!GetAtt A.B` and `Fn::GetAtt: [A, B]` are one.
        let value = match (name.as_str(), value) {
            ("Fn::GetAtt", Value::String(path)) => match path.split_once('.') {
                Some((resource, attribute)) => serde_json::json!([resource, attribute]),
                None => return Err(D::Error::custom(format!("!GetAtt {path}: no attribute"))),
            },
            (_, value) => value,
        };
        Ok(Self(Value::Object(Map::from_iter([(name, value)]))))
    }
}

impl<'de> Deserialize<'de> for Untagged {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Untagged;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Untagged, E> {
        Ok(Untagged(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Untagged, E> {
        Ok(Untagged(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Untagged, E> {
        Ok(Untagged(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Untagged, E> {
        Ok(Untagged(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Untagged, E> {
        Ok(Untagged(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Untagged, E> {
        Ok(Untagged(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Untagged, E> {
        Ok(Untagged(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Untagged, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Untagged, A::Error> {
        let mut list = Vec::new();
        while let Some(Node(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Untagged(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Untagged, A::Error> {
        let mut map = Map::new();
        while let Some((key, Node(value))) = entries.next_entry::<String, Node>()? {
            map.insert(key, value);
        }
        Ok(Untagged(map.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn short_tags_become_long_forms_at_every_depth() {
        let value = parse(
            "a: !Ref Table\n\
             b: [!GetAtt Table.Arn, {c: !Sub '${AWS::Region}-x'}]\n\
             d: !If [Some, !Ref A, !Ref 'AWS::NoValue']\n\
             e: '1'\n\
             f: 1\n\
             h: [N, yes, true]\n\
             g: {deep: !Sub ['${b}', {b: !Ref C}]}\n",
        );
        let expected = json!({
            "a": {"Ref": "Table"},
            "b": [{"Fn::GetAtt": ["Table", "Arn"]}, {"c": {"Fn::Sub": "${AWS::Region}-x"}}],
            "d": {"Fn::If": ["Some", {"Ref": "A"}, {"Ref": "AWS::NoValue"}]},
            "e": "1",
            "f": 1,
            "h": ["N", "yes", true],
            "g": {"deep": {"Fn::Sub": ["${b}", {"b": {"Ref": "C"}}]}},
        });
        assert_eq!(value, Ok(expected));
    }

    #[test]
    fn what_is_no_template_is_refused_by_its_line() {
        assert!(parse("a: [").is_err());
        assert!(parse("a: !GetAtt Table").is_err());
    }
}
