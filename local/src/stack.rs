//! What `CloudFormation` would fill in: parameters, names of resources, ARNs.
//!
//! Of the intrinsic functions only `Ref`, `Fn::Sub` and `Fn::GetAtt` are
//! understood, and template.yaml keeps to them: a value that needs another one
//! is an error here, never a guess.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The account that the local stack lives in.
pub const ACCOUNT: &str = "123456789012";
/// Its Region.
pub const REGION: &str = "us-west-1";
/// The Region's zones.
pub const ZONES: [&str; 3] = ["us-west-1a", "us-west-1b", "us-west-1c"];
/// The stack's name.
pub(crate) const STACK: &str = "supervisor-backups";

/// A stack: its parameters as set, and its resources as declared.
#[derive(Debug, Clone)]
pub(crate) struct Stack {
    parameters: BTreeMap<String, String>,
    resources: Map<String, Value>,
}

impl Stack {
    /// The stack that `template` makes with these parameters, the defaults for
    /// all others.
    pub(crate) fn new(template: &Value, set: &[(String, String)]) -> Result<Self, String> {
        let declared = template["Parameters"].as_object().cloned().unwrap_or_default();
        let mut parameters = BTreeMap::new();
        for (name, parameter) in &declared {
            if let Some(default) = plain(&parameter["Default"]) {
                parameters.insert(name.clone(), default);
            }
        }
        for (name, value) in set {
            let Some(parameter) = declared.get(name) else {
                let names: Vec<_> = declared.keys().map(String::as_str).collect();
                return Err(format!(
                    "--set {name}: no such stack parameter; there are {}",
                    names.join(", ")
                ));
            };
            check(parameter, value).map_err(|why| format!("--set {name}={value}: {why}"))?;
            parameters.insert(name.clone(), value.clone());
        }
        if let Some(name) = declared.keys().find(|name| !parameters.contains_key(*name)) {
            return Err(format!("the stack parameter {name} has no default: --set {name}=VALUE"));
        }
        let resources = template["Resources"].as_object().cloned().unwrap_or_default();
        Ok(Self { parameters, resources })
    }

    pub(crate) fn parameters(&self) -> &BTreeMap<String, String> {
        &self.parameters
    }

    /// The resources of a type, by logical id.
    pub(crate) fn resources_of<'a>(
        &'a self,
        kind: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.resources
            .iter()
            .filter(move |(_, resource)| resource["Type"] == kind)
            .map(|(id, resource)| (id.as_str(), &resource["Properties"]))
    }

    /// A resource by its logical id.
    pub(crate) fn resource(&self, id: &str) -> Option<&Value> {
        self.resources.get(id)
    }

    /// `value` with every intrinsic function carried out.
    pub(crate) fn resolve(&self, value: &Value) -> Result<Value, String> {
        match value {
            Value::Array(items) => items.iter().map(|item| self.resolve(item)).collect(),
            Value::Object(map) => match intrinsic(map) {
                Some(("Ref", Value::String(name))) => self.reference(name).map(Value::String),
                Some(("Fn::GetAtt", path)) => self.attribute(path).map(Value::String),
                Some(("Fn::Sub", text)) => self.substitute(text).map(Value::String),
                Some((function, _)) => Err(format!("local does not understand {function}")),
                None => map
                    .iter()
                    .map(|(key, item)| Ok((key.clone(), self.resolve(item)?)))
                    .collect::<Result<Map<_, _>, String>>()
                    .map(Value::Object),
            },
            plain => Ok(plain.clone()),
        }
    }

    /// A resolved value as the text that `CloudFormation` would pass on.
    pub(crate) fn text(&self, value: &Value) -> Result<String, String> {
        let value = self.resolve(value)?;
        plain(&value).ok_or_else(|| format!("{value} is not a text"))
    }

    fn reference(&self, name: &str) -> Result<String, String> {
        if let Some(value) = self.parameters.get(name) {
            return Ok(value.clone());
        }
        match name {
            "AWS::Region" => Ok(REGION.to_owned()),
            "AWS::AccountId" => Ok(ACCOUNT.to_owned()),
            "AWS::StackName" => Ok(STACK.to_owned()),
            "AWS::Partition" => Ok("aws".to_owned()),
            "AWS::URLSuffix" => Ok("amazonaws.com".to_owned()),
            _ => self.name_of(name),
        }
    }

    /// A resource's physical name.
    fn name_of(&self, id: &str) -> Result<String, String> {
        let resource = self
            .resources
            .get(id)
            .ok_or_else(|| format!("!Ref {id}: no such parameter or resource"))?;
        let given = match resource["Type"].as_str() {
            Some("AWS::DynamoDB::Table") => &resource["Properties"]["TableName"],
            Some("AWS::Events::EventBus") => &resource["Properties"]["Name"],
            Some("AWS::Serverless::Function") => &resource["Properties"]["FunctionName"],
            _ => &Value::Null,
        };
        match given {
            Value::Null => Ok(format!("{STACK}-{id}")),
            given => self.text(given),
        }
    }

    fn attribute(&self, path: &Value) -> Result<String, String> {
        let (Some(id), Some(attribute)) = (path[0].as_str(), path[1].as_str()) else {
            return Err(format!("Fn::GetAtt {path}: expected a resource and an attribute"));
        };
        let name = self.name_of(id)?;
        let kind = self
            .resources
            .get(id)
            .and_then(|resource| resource["Type"].as_str())
            .unwrap_or_default();
        let place = |service: &str| format!("arn:aws:{service}:{REGION}:{ACCOUNT}");
        match (kind, attribute) {
            ("AWS::DynamoDB::Table", "Arn") => Ok(format!("{}:table/{name}", place("dynamodb"))),
            ("AWS::Events::EventBus", "Arn") => Ok(format!("{}:event-bus/{name}", place("events"))),
            ("AWS::Serverless::Function", "Arn") => {
                Ok(format!("{}:function:{name}", place("lambda")))
            }
            ("AWS::SQS::Queue", "Arn") => Ok(format!("{}:{name}", place("sqs"))),
            _ => Err(format!("local does not know {id}.{attribute}")),
        }
    }

    fn substitute(&self, argument: &Value) -> Result<String, String> {
        let (text, own) = match argument {
            Value::String(text) => (text.as_str(), None),
            Value::Array(parts) => {
                (parts.first().and_then(Value::as_str).unwrap_or_default(), parts.get(1))
            }
            other => return Err(format!("Fn::Sub {other}: expected a text")),
        };
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let (name, after) =
                after.split_once('}').ok_or_else(|| format!("Fn::Sub {text}: no closing brace"))?;
            rest = after;
            if let Some(literal) = name.strip_prefix('!') {
                out.push_str("${");
                out.push_str(literal);
                out.push('}');
            } else if let Some(value) = own.and_then(|own| own.get(name)) {
                out.push_str(&self.text(value)?);
            } else if let Some((id, attribute)) = name.split_once('.') {
                out.push_str(&self.attribute(&serde_json::json!([id, attribute]))?);
            } else {
                out.push_str(&self.reference(name)?);
            }
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// The intrinsic function that a map is, if it is one.
fn intrinsic(map: &Map<String, Value>) -> Option<(&str, &Value)> {
    let (name, argument) = map.iter().next()?;
    (map.len() == 1 && (name == "Ref" || name.starts_with("Fn::")))
        .then_some((name.as_str(), argument))
}

/// A scalar as text.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Whether a parameter's declaration allows the value.
fn check(parameter: &Value, value: &str) -> Result<(), String> {
    if parameter["Type"] == "Number" {
        let number: f64 = value.parse().map_err(|_| "expected a number".to_owned())?;
        let bound =
            |name: &str| plain(&parameter[name]).and_then(|bound| bound.parse::<f64>().ok());
        if let Some(least) = bound("MinValue").filter(|least| number < *least) {
            return Err(format!("at least {least}"));
        }
        if let Some(most) = bound("MaxValue").filter(|most| number > *most) {
            return Err(format!("at most {most}"));
        }
    }
    match parameter["AllowedValues"].as_array() {
        Some(allowed) if !allowed.iter().any(|one| plain(one).as_deref() == Some(value)) => {
            Err(format!("one of {}", Value::from(allowed.clone())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(set: &[(&str, &str)]) -> Result<Stack, String> {
        let template = crate::yaml::parse(
            "Parameters: {Limit: {Type: Number, Default: 5, MinValue: 1, MaxValue: 9}, Text: {Type: String, Default: ''}}\n\
             Resources:\n  \
               Bus: {Type: 'AWS::Events::EventBus', Properties: {Name: !Ref 'AWS::StackName'}}\n  \
               Table: {Type: 'AWS::DynamoDB::Table', Properties: {}}\n",
        )?;
        let set: Vec<_> =
            set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Stack::new(&template, &set)
    }

    fn resolved(yaml: &str) -> Result<String, String> {
        stack(&[])?.text(&crate::yaml::parse(yaml)?)
    }

    #[test]
    fn references_are_resolved_as_cloudformation_does() {
        assert_eq!(resolved("!Ref Limit").as_deref(), Ok("5"));
        assert_eq!(resolved("!Ref Bus").as_deref(), Ok(STACK));
        assert_eq!(resolved("!Ref Table").as_deref(), Ok("supervisor-backups-Table"));
        assert_eq!(
            resolved("!GetAtt Table.Arn").as_deref(),
            Ok("arn:aws:dynamodb:us-west-1:123456789012:table/supervisor-backups-Table")
        );
        assert_eq!(
            resolved("!Sub '${Table.Arn}/index/due'")
                .as_deref()
                .map(|arn| arn.ends_with("Table/index/due")),
            Ok(true)
        );
        assert_eq!(
            resolved("!Sub ['${a}-${Limit}-${!x}', {a: !Ref 'AWS::Region'}]").as_deref(),
            Ok("us-west-1-5-${x}")
        );
        for unknown in
            ["!Ref Nothing", "!GetAtt Table.StreamArn", "!Select [0, [a]]", "!Sub '${open'"]
        {
            assert!(resolved(unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn parameters_are_checked_as_they_are_declared() {
        let set =
            |name, value| stack(&[(name, value)]).map(|stack| stack.parameters()[name].clone());
        assert_eq!(set("Limit", "9").as_deref(), Ok("9"));
        assert_eq!(set("Limit", "10"), Err("--set Limit=10: at most 9".to_owned()));
        assert_eq!(set("Limit", "x"), Err("--set Limit=x: expected a number".to_owned()));
        assert_eq!(
            set("Limt", "1"),
            Err("--set Limt: no such stack parameter; there are Limit, Text".to_owned())
        );
    }
}
