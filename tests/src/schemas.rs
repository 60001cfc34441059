//! The schemas of `docs/events`, and whether an event is as its schema says.
//!
//! A folder is a source, a file in it the schema of one `detail-type`: its title, in small
//! letters and with hyphens, is the file's name. What lies beside the folders is for
//! `$ref`s alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use jsonschema::{Registry, Validator};
use serde_json::Value;

use crate::{Failed, Result, fail, root};

/// What each `$id` begins with, before the file's path in the folder. No address.
const BASE: &str = "https://supervisor.invalid/events/";

/// The end of each file's name.
const SUFFIX: &str = ".schema.json";

/// The schemas, ready to check with.
#[derive(Debug)]
pub struct Schemas {
    /// By source and `detail-type`.
    all: BTreeMap<(String, String), Validator>,
}

/// A file, as read.
struct File {
    /// The folder that it lies in; empty: beside the folders.
    source: String,
    title: String,
    id: String,
    schema: Value,
}

impl Schemas {
    /// Reads the folder.
    ///
    /// # Errors
    /// A file is no schema, or its `$id` or title does not go with its path, or a `$ref`
    /// leads nowhere.
    pub fn load() -> Result<Self> {
        let mut files = Vec::new();
        read(&root().join("docs/events"), "", &mut files)?;
        let resources: Vec<(String, Value)> =
            files.iter().map(|file| (file.id.clone(), file.schema.clone())).collect();
        let registry = Registry::new().extend(resources)?.prepare()?;
        let mut all = BTreeMap::new();
        for file in files.into_iter().filter(|file| !file.source.is_empty()) {
            let schema = serde_json::json!({ "$ref": file.id });
            let validator = jsonschema::options().with_registry(&registry).build(&schema);
            let validator = validator.map_err(|error| Failed(format!("{}: {error}", file.id)))?;
            all.insert((file.source, file.title), validator);
        }
        Ok(Self { all })
    }

    /// The schemas, read once in a process.
    ///
    /// # Errors
    /// As [`Schemas::load`].
    pub fn shared() -> Result<&'static Self> {
        static SHARED: LazyLock<Result<Schemas>> = LazyLock::new(Schemas::load);
        SHARED.as_ref().map_err(|Failed(why)| Failed(why.clone()))
    }

    /// Each source and `detail-type` that has a schema.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all.keys().map(|(source, detail_type)| (source.as_str(), detail_type.as_str()))
    }

    /// Checks the detail of an event.
    ///
    /// # Errors
    /// What is wrong with it and where, or that nothing has a schema of that name.
    pub fn check(&self, source: &str, detail_type: &str, detail: &Value) -> Result<()> {
        let Some(validator) = self.all.get(&(source.to_owned(), detail_type.to_owned())) else {
            return fail(format!("`{detail_type}` of {source} has no schema"));
        };
        validator.validate(detail).map_err(|error| {
            let path = error.instance_path().to_string();
            let place = if path.is_empty() { "the detail" } else { &path };
            Failed(format!("`{detail_type}` of {source}: {place}: {error}"))
        })
    }
}

/// Reads the schemas in a folder and in those below it.
fn read(folder: &Path, source: &str, files: &mut Vec<File>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            if !source.is_empty() {
                return fail(format!("docs/events/{source}/{name}: a source has no folders"));
            }
            read(&entry.path(), &name, files)?;
            continue;
        }
        let Some(stem) = name.strip_suffix(SUFFIX) else { continue };
        let slash = if source.is_empty() { "" } else { "/" };
        let id = format!("{BASE}{source}{slash}{name}");
        let schema: Value = serde_json::from_str(&std::fs::read_to_string(entry.path())?)?;
        let title = schema["title"].as_str().unwrap_or_default().to_owned();
        if schema["$id"] != id || title.to_lowercase().replace(' ', "-") != stem {
            return fail(format!("{id} calls itself {} and {title:?}", schema["$id"]));
        }
        if let Err(error) = jsonschema::meta::validate(&schema) {
            return fail(format!("{id}: {error}"));
        }
        files.push(File { source: source.to_owned(), title, id, schema });
    }
    Ok(())
}
