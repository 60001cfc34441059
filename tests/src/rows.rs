//! Rows of the table as plain JSON, and what an item of the list has.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The fields of an item of the list, in the published page's order.
pub const FIELDS: [&str; 15] = [
    "id",
    "deployment_id",
    "node_id",
    "name",
    "backup_type",
    "status",
    "snapshot_ids",
    "volume_ids",
    "size_bytes",
    "region",
    "remarks",
    "started_at",
    "completed_at",
    "expires_at",
    "created_at",
];

/// A row: its attributes as plain JSON, numbers exact.
#[derive(Debug, Clone, PartialEq)]
pub struct Row(pub Value);

/// A backup: its deployment and its own id.
pub type BackupKey = (u64, u64);

impl Row {
    /// A text attribute; empty if there is none.
    pub fn text(&self, name: &str) -> &str {
        text(&self.0, name)
    }

    /// Which backup the row is, if it is one.
    pub fn backup(&self) -> Option<BackupKey> {
        let id = self.text("sk").strip_prefix("BACKUP#")?.parse().ok()?;
        Some((self.deployment()?, id))
    }

    /// Which restore the row is, if it is one: its deployment and its own id.
    pub fn restore(&self) -> Option<(u64, u64)> {
        let id = self.text("sk").strip_prefix("RESTORE#")?.parse().ok()?;
        Some((self.deployment()?, id))
    }

    /// Which deployment the row is of.
    pub fn deployment(&self) -> Option<u64> {
        self.text("pk").strip_prefix("DEPLOYMENT#")?.parse().ok()
    }

    /// The snapshots that a backup's row names, each with its volume.
    pub fn snapshots(&self) -> Vec<(String, String)> {
        named(&self.0).map(|(id, volume)| (id.to_owned(), volume.to_owned())).collect()
    }

    /// Whether a backup's row has something left to be done, now or soon.
    pub fn moving(&self) -> bool {
        moves(&self.0)
    }
}

/// A text attribute; empty if there is none.
pub fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_default()
}

/// An array's items.
pub fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The snapshots that a backup's row names, each with its volume, ordered by node.
pub fn named(row: &Value) -> impl Iterator<Item = (&str, &str)> {
    let sets = items(&row["nodes"]).flat_map(|node| items(&node["set"]));
    sets.map(|one| (text(one, "snapshot_id"), text(one, "volume_id")))
}

/// Whether a backup's row has something left to be done, now or soon: all but one
/// that waits for its expiry.
pub fn moves(row: &Value) -> bool {
    let due = text(row, "due_at");
    !matches!(text(row, "status"), "completed" | "failed")
        || !(due.is_empty() || due == text(row, "expires_at"))
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
