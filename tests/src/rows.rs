//! Rows of the table as plain JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A row: its attributes as plain JSON, numbers exact.
#[derive(Debug, Clone, PartialEq)]
pub struct Row(pub Value);

/// A backup: its deployment and its own id.
pub type BackupKey = (u64, u64);

impl Row {
    /// A text attribute; empty if there is none.
    pub fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_default()
    }

    /// Which backup the row is, if it is one.
    pub fn backup(&self) -> Option<BackupKey> {
        let id = self.text("sk").strip_prefix("BACKUP#")?.parse().ok()?;
        Some((self.deployment()?, id))
    }

    /// Which deployment the row is of.
    pub fn deployment(&self) -> Option<u64> {
        self.text("pk").strip_prefix("DEPLOYMENT#")?.parse().ok()
    }

    /// The snapshots that a backup's row names, each with its volume.
    pub fn snapshots(&self) -> Vec<(String, String)> {
        let nodes = self.0["nodes"].as_array().into_iter().flatten();
        let sets = nodes.flat_map(|node| node["set"].as_array().into_iter().flatten());
        let text = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
        sets.map(|one| (text(one, "snapshot_id"), text(one, "volume_id"))).collect()
    }

    /// Whether a backup's row has something left to be done, now or soon: all
    /// but one that waits for its expiry.
    pub fn moving(&self) -> bool {
        let at_rest = matches!(self.text("status"), "completed" | "failed");
        let due = self.text("due_at");
        !at_rest || !(due.is_empty() || due == self.text("expires_at"))
    }
}

/// The rows of backups, by key.
pub fn backups(rows: &[Row]) -> BTreeMap<BackupKey, &Row> {
    rows.iter().filter_map(|row| Some((row.backup()?, row))).collect()
}

/// An item as `DynamoDB` writes it on the wire, as plain JSON.
pub fn plain_row(item: &Value) -> Row {
    let plain_item = item.as_object().into_iter().flatten();
    Row(Value::Object(plain_item.map(|(name, value)| (name.clone(), plain(value))).collect()))
}

fn plain(attribute: &Value) -> Value {
    let Some((kind, value)) = attribute.as_object().and_then(|one| one.iter().next()) else {
        return Value::Null;
    };
    match (kind.as_str(), value) {
        ("S" | "BOOL", value) => value.clone(),
        ("N", Value::String(digits)) => serde_json::from_str(digits).unwrap_or(Value::Null),
        ("L", Value::Array(list)) => list.iter().map(plain).collect(),
        ("M", Value::Object(map)) => {
            let map: Map<String, Value> =
                map.iter().map(|(name, value)| (name.clone(), plain(value))).collect();
            Value::Object(map)
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_is_plain_and_its_numbers_exact() {
        let row = plain_row(&json!({
            "pk": {"S": "DEPLOYMENT#9007199254740993"},
            "sk": {"S": "BACKUP#00000000000000000007"},
            "id": {"N": "9007199254740993"},
            "status": {"S": "completed"},
            "due_at": {"S": "2025-01-15T10:30:00Z"},
            "nodes": {"L": [{"M": {"set": {"L": [{"M": {
                "snapshot_id": {"S": "snap-1"}, "volume_id": {"S": "vol-1"},
            }}]}}}, {"M": {"take": {"S": "open"}}}]},
        }));
        assert_eq!(row.backup(), Some((9_007_199_254_740_993, 7)));
        assert_eq!(row.0["id"], 9_007_199_254_740_993_u64);
        assert_eq!(row.snapshots(), [("snap-1".to_owned(), "vol-1".to_owned())]);
        assert!(row.moving());
        let mut expiring = row;
        expiring.0["expires_at"] = json!("2025-01-15T10:30:00Z");
        assert!(!expiring.moving());
    }
}
