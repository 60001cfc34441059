use std::collections::BTreeSet;

use backups_core::body;
use backups_core::error::Refusal;
use backups_core::time::Seconds;
use serde_json::Value;

use super::*;

type Parser = fn(&[u8]) -> Result<(), Refusal>;

/// The parsers of the bodies, by what the document calls these.
const PARSERS: [(&str, Parser); 4] = [
    ("NewBackup", |body| body::create(body).map(drop)),
    ("BackupChange", |body| body::patch(body).map(drop)),
    ("NewRestore", |body| body::restore(body).map(drop)),
    ("NewSchedule", |body| body::schedule(body, Seconds::minutes(60)).map(drop)),
];

fn whole() -> Value {
    serde_json::to_value(document()).expect("JSON")
}

#[test]
fn every_reference_leads_somewhere() {
    fn look(at: &Value, whole: &Value) {
        match at {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    let pointer = reference.strip_prefix('#').expect("a part of this document");
                    assert!(whole.pointer(pointer).is_some(), "{reference}");
                }
                fields.values().for_each(|field| look(field, whole));
            }
            Value::Array(items) => items.iter().for_each(|item| look(item, whole)),
            _ => {}
        }
    }
    let whole = whole();
    look(&whole, &whole);
}

#[test]
fn a_body_has_the_fields_that_its_parser_knows() {
    let whole = whole();
    for (name, parse) in PARSERS {
        // The parser names what it knows to whoever sends something else.
        let refusal = parse(br#"{"?": 1}"#).expect_err("an unknown field");
        let unknown = refusal.issues.iter().find(|issue| issue.code == "unknown").expect("named");
        let known: BTreeSet<&str> = unknown.reason.split('`').skip(1).step_by(2).collect();
        let described = whole["components"]["schemas"][name]["properties"].as_object();
        let described = described.expect("properties").keys().map(String::as_str).collect();
        assert_eq!(known, described, "{name}");
    }
}

#[test]
fn every_example_of_a_body_is_taken() {
    let whole = whole();
    let operations = whole["paths"].as_object().into_iter().flatten();
    let operations = operations.flat_map(|(_, path)| path.as_object().into_iter().flatten());
    let bodies = operations.map(|(_, operation)| &operation["requestBody"]);
    let mut taken = 0;
    for body in bodies.filter(|body| !body.is_null()) {
        let content = &body["content"]["application/json"];
        let schema = content["schema"]["$ref"].as_str().expect("a name");
        let (_, parse) = PARSERS.iter().find(|(name, _)| schema.ends_with(name)).expect("a parser");
        let several = content["examples"].as_object().into_iter().flatten();
        let several = several.map(|(_, example)| &example["value"]);
        for example in several.chain(content.get("example")) {
            parse(example.to_string().as_bytes()).expect("a good body");
            taken += 1;
        }
    }
    assert_eq!(taken, 5, "each body's, and of one two");
}

#[test]
fn every_id_is_an_id() {
    fn look(at: &Value, place: &str, ids: &mut usize) {
        let Some(fields) = at.as_object() else {
            at.as_array().into_iter().flatten().for_each(|item| look(item, place, ids));
            return;
        };
        for (name, field) in fields {
            // Theirs, and the control plane's: texts.
            let text =
                matches!(name.as_str(), "tenant_id" | "upgrade_id" | "snapshot_id" | "volume_id");
            let describes = place.ends_with("/properties");
            if describes && !text && (name == "id" || name.ends_with("_id")) {
                assert!(is_id(field), "{place}/{name}: {field}");
                *ids += 1;
            }
            look(field, &format!("{place}/{name}"), ids);
        }
        let parameter = fields.get("in").and(fields.get("name")).and_then(Value::as_str);
        if parameter.is_some_and(|name| name.ends_with("_id") || name == "before") {
            assert!(is_id(&fields["schema"]), "{place}: {at}");
            *ids += 1;
        }
    }
    /// A reference to one of the ids, perhaps beside null.
    fn is_id(schema: &Value) -> bool {
        let to_id = |one: &Value| one["$ref"].as_str().is_some_and(|to| to.ends_with("Id"));
        let either = schema["oneOf"].as_array();
        to_id(schema) || either.is_some_and(|all| all.iter().any(to_id))
    }
    let mut ids = 0;
    look(&whole(), "", &mut ids);
    assert!(ids > 20, "{ids}");
}
