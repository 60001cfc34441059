//! The table of a process that is dead, read from its file: exactly what it
//! left behind, before a new one could move anything.

use std::path::Path;

use dynoxide::Database;
use serde_json::{Value, json};

use crate::rows::{self, Row};
use crate::{Failed, Result};

/// Every row of the table in a data folder that no process holds.
///
/// # Errors
/// The file cannot be read.
pub fn rows(folder: &Path, table: &str) -> Result<Vec<Row>> {
    let file = folder.join("dynamodb.sqlite");
    let file = file.to_str().ok_or_else(|| Failed("the folder's path is not UTF-8".to_owned()))?;
    let database = Database::new(file)?;
    let mut found = Vec::new();
    let mut start = Value::Null;
    loop {
        let mut request = json!({"TableName": table});
        if !start.is_null() {
            request["ExclusiveStartKey"] = start;
        }
        let page = database.scan(serde_json::from_value(request)?)?;
        let page = serde_json::to_value(page)?;
        found.extend(page["Items"].as_array().into_iter().flatten().map(rows::plain_row));
        start = page["LastEvaluatedKey"].clone();
        if start.is_null() {
            return Ok(found);
        }
    }
}
