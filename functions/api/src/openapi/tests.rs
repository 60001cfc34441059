use serde_json::Value;

use super::*;

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
    let whole = serde_json::to_value(document()).expect("JSON");
    look(&whole, &whole);
}
