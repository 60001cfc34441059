//! docs/openapi.json, and whether a reply is as it says.
//!
//! Every reply that a test gets by [`crate::Cloud::send`] is held to it: status, code, body,
//! and headers. What no test has met, nothing here has checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use jsonschema::{Registry, Validator};
use serde_json::{Value, json};

use crate::http::Reply;
use crate::{Failed, Result, fail, root};

/// What the document is called among schemas. No address.
const BASE: &str = "https://supervisor.invalid/openapi.json";

/// Headers that are the API's own: a reply has them only where the document says so.
const HEADERS: [&str; 8] = [
    "allow",
    "idempotent-replayed",
    "ld-backup",
    "ld-request",
    "ld-restore",
    "link",
    "retry-after",
    "www-authenticate",
];

/// Those of them that a reply may do without.
const OPTIONAL: [&str; 2] = ["idempotent-replayed", "link"];

/// The document as the code would write it.
///
/// # Errors
/// It cannot be written.
pub fn rendered() -> Result<String> {
    Ok(api::openapi::document().to_pretty_json()? + "\n")
}

/// The document, ready to check with.
#[derive(Debug)]
pub struct Document {
    /// All of it.
    pub whole: Value,
    /// By the pointer to the schema.
    schemas: BTreeMap<String, Validator>,
}

impl Document {
    /// Reads docs/openapi.json.
    ///
    /// # Errors
    /// It is not there, or a schema in it is none.
    pub fn load() -> Result<Self> {
        let text = std::fs::read_to_string(root().join("docs/openapi.json"))?;
        let whole: Value = serde_json::from_str(&text)?;
        let registry = Registry::new().extend([(BASE.to_owned(), strict(&whole))])?.prepare()?;
        let mut schemas = BTreeMap::new();
        for pointer in pointers(&whole) {
            // No URI has braces.
            let fragment = pointer.replace('{', "%7B").replace('}', "%7D");
            let schema = json!({ "$ref": format!("{BASE}#{fragment}") });
            let options = jsonschema::options().with_registry(&registry);
            let validator = options.should_validate_formats(true).build(&schema);
            let validator = validator.map_err(|error| Failed(format!("{pointer}: {error}")))?;
            schemas.insert(pointer, validator);
        }
        Ok(Self { whole, schemas })
    }

    /// The document, read once in a process.
    ///
    /// # Errors
    /// As [`Document::load`].
    pub fn shared() -> Result<&'static Self> {
        static SHARED: LazyLock<Result<Document>> = LazyLock::new(Document::load);
        SHARED.as_ref().map_err(|Failed(why)| Failed(why.clone()))
    }

    /// Each operation, as (method in capitals, path).
    pub fn operations(&self) -> impl Iterator<Item = (String, &str)> {
        let paths = self.whole["paths"].as_object().into_iter().flatten();
        paths.flat_map(|(path, item)| {
            let methods = item.as_object().into_iter().flatten();
            methods.map(|(method, _)| (method.to_uppercase(), path.as_str()))
        })
    }

    /// Its links, as `POST /path -> [204] Name`.
    pub fn links(&self) -> impl Iterator<Item = String> {
        self.operations().flat_map(|(method, path)| {
            let operation = &self.whole["paths"][path][method.to_lowercase()];
            let replies = operation["responses"].as_object().into_iter().flatten();
            replies.flat_map(move |(status, reply)| {
                let from = format!("{method} {path} -> [{status}]");
                let names = reply["links"].as_object().into_iter().flatten();
                names.map(move |(name, _)| format!("{from} {name}"))
            })
        })
    }

    /// Checks a value against the schema that the pointer leads to.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn valid(&self, pointer: &str, value: &Value) -> Result<()> {
        let Some(validator) = self.schemas.get(pointer) else {
            return fail(format!("{pointer} is no schema"));
        };
        validator.validate(value).map_err(|error| {
            Failed(format!("{pointer}: {} at {:?}", error, error.instance_path().to_string()))
        })
    }

    /// Checks a reply.
    ///
    /// # Errors
    /// What the document does not say of it.
    pub fn check(&self, reply: &Reply) -> Result<()> {
        self.told(reply).map_err(|Failed(why)| {
            Failed(format!("docs/openapi.json and {} {}: {why}", reply.asked, reply.status))
        })
    }

    fn told(&self, reply: &Reply) -> Result<()> {
        if reply.header("ld-request").is_empty() {
            return by_the_gateway(reply);
        }
        let Some((pointer, response)) = self.response(reply)? else {
            return self.elsewhere(reply);
        };
        let declared = response["headers"].as_object();
        let declared = |name: &str| declared.is_some_and(|all| all.contains_key(name));
        for name in HEADERS {
            let (there, said) = (reply.headers.contains_key(name), declared(name));
            if there && !said {
                return fail(format!("the header {name} is not said"));
            }
            // The safety backup's, beside the restore's: only if one was asked for.
            let optional =
                OPTIONAL.contains(&name) || name == "ld-backup" && declared("ld-restore");
            if said && !there && !optional {
                return fail(format!("the header {name} is not there"));
            }
        }
        let Some(content) = response["content"].as_object() else {
            return if reply.text.is_empty() { Ok(()) } else { fail("a body") };
        };
        let kind = reply.header("content-type");
        let Some(content) = content.get(kind) else {
            return fail(format!("the content type {kind:?}"));
        };
        let code = reply.code();
        if kind == "application/problem+json" && content["examples"].get(&code).is_none() {
            return fail(format!("the code {code}"));
        }
        let kind = kind.replace('/', "~1");
        self.valid(&format!("{pointer}/content/{kind}/schema"), &reply.json())
    }

    /// Checks a reply to what is no operation: it has the shape of all the others, and a 405
    /// says what there is. What is answered to a HEAD has no body (RFC 9110, 9.3.2).
    fn elsewhere(&self, reply: &Reply) -> Result<()> {
        if (reply.status == 405) != reply.headers.contains_key("allow") {
            return fail("the header allow");
        }
        if reply.asked.starts_with("HEAD ") || reply.status == 200 {
            return if reply.text.is_empty() { Ok(()) } else { fail("a body") };
        }
        if reply.header("content-type") != "application/problem+json" {
            return fail("the content type");
        }
        self.valid("/components/schemas/Problem", &reply.json())
    }

    /// The response that the document has for a reply, and where. None: it has no such
    /// operation, as it should be.
    fn response(&self, reply: &Reply) -> Result<Option<(String, &Value)>> {
        let (method, path) = reply.asked.split_once(' ').unwrap_or_default();
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        // Which route it is depends on who decodes and tidies it: nobody who goes by the
        // document sends it.
        if reply.status >= 400 && (path.contains('%') || path.contains("//")) {
            return Ok(None);
        }
        let paths = self.whole["paths"].as_object().into_iter().flatten();
        // As the router does: what stands there as it is before what may be anything.
        let found = paths
            .filter(|(pattern, _)| matches(pattern, path))
            .min_by_key(|(pattern, _)| pattern.matches('{').count());
        let operation =
            found.and_then(|(pattern, item)| Some((pattern, item.get(method.to_lowercase())?)));
        let Some((pattern, operation)) = operation else {
            let code = reply.code();
            return match (reply.status, code.as_str(), method) {
                (405, "method_not_allowed", _)
                | (404, "route_not_found", _)
                | (404 | 405, "", "HEAD")
                // What a browser asks before it asks.
                | (200, "", "OPTIONS") => Ok(None),
                _ => fail("no such operation"),
            };
        };
        let Some(response) = operation["responses"].get(reply.status.to_string()) else {
            return fail("no such status");
        };
        let pointer = match response["$ref"].as_str() {
            Some(reference) => reference.trim_start_matches('#').to_owned(),
            None => format!(
                "/paths/{}/{}/responses/{}",
                pattern.replace('/', "~1"),
                method.to_lowercase(),
                reply.status
            ),
        };
        let Some(response) = self.whole.pointer(&pointer) else {
            return fail(format!("nothing at {pointer}"));
        };
        Ok(Some((pointer, response)))
    }
}

/// Checks a reply that has nothing of ours: what the gateway says by itself.
fn by_the_gateway(reply: &Reply) -> Result<()> {
    let body = reply.json();
    let message = body.as_object().filter(|body| body.len() == 1).map(|body| &body["message"]);
    match reply.status {
        413 | 429 | 500 | 503 if message.is_some_and(Value::is_string) => Ok(()),
        _ => fail(format!("neither the API's nor the gateway's: {}", reply.text)),
    }
}

/// Whether a path is one of a pattern with `{parameters}`.
fn matches(pattern: &str, path: &str) -> bool {
    let (mut of_pattern, mut of_path) = (pattern.split('/'), path.split('/'));
    loop {
        match (of_pattern.next(), of_path.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) if one == other => {}
            (Some(one), Some(other)) if one.starts_with('{') && !other.is_empty() => {}
            _ => return false,
        }
    }
}

/// Pointers to all schemas that stand by themselves: components, and bodies.
fn pointers(whole: &Value) -> Vec<String> {
    fn look(at: &Value, pointer: &str, found: &mut Vec<String>) {
        let Some(fields) = at.as_object() else { return };
        for (name, field) in fields {
            let below = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            if name == "schema" && pointer.contains("/content/") {
                found.push(below);
            } else {
                look(field, &below, found);
            }
        }
    }
    let mut found = Vec::new();
    let components = whole["components"]["schemas"].as_object().into_iter().flatten();
    found.extend(components.map(|(name, _)| format!("/components/schemas/{name}")));
    for part in ["paths", "components"] {
        look(&whole[part], &format!("/{part}"), &mut found);
    }
    found
}

/// The document with schemas that take no field which they do not name: clients are told to
/// expect more, but nothing may be there that nobody has written down.
fn strict(whole: &Value) -> Value {
    /// `part`: it stands in an `allOf`, and is looked at as a part of that.
    fn forbid_more(at: &mut Value, objects: &BTreeSet<String>, part: bool) {
        match at {
            Value::Object(fields) => {
                let named = fields.get("$ref").and_then(Value::as_str);
                let object = named.is_some_and(|name| objects.contains(name));
                if object && !part {
                    fields.insert("unevaluatedProperties".to_owned(), false.into());
                }
                for (name, field) in fields {
                    forbid_more(field, objects, name == "allOf");
                }
            }
            Value::Array(items) => {
                for item in items {
                    forbid_more(item, objects, part);
                }
            }
            _ => {}
        }
    }
    let schemas = whole["components"]["schemas"].as_object().into_iter().flatten();
    let objects = schemas
        .filter(|(_, schema)| schema["type"] == "object" || schema.get("allOf").is_some())
        .map(|(name, _)| format!("#/components/schemas/{name}"))
        .collect();
    let mut strict = whole.clone();
    forbid_more(&mut strict, &objects, false);
    strict
}
