//! The embedded `DynamoDB` as the simulation has it: with a mirror of every row
//! for the oracle, and with what it never shows by itself, a replica that lags.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use local::{Answer, Dynamo, Template};
use serde_json::{Value, json};

use crate::rows;
use crate::{Result, fail};

/// `pk` and `sk`.
pub(crate) type Key = (String, String);

/// A row as plain JSON. Shared: the oracle keeps old ones.
pub(crate) type RowRef = Arc<Value>;

/// What a write did to one row.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) key: Key,
    pub(crate) old: Option<RowRef>,
    pub(crate) new: Option<RowRef>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    dynamo: Dynamo,
    name: String,
    /// Every row as it is.
    rows: BTreeMap<Key, RowRef>,
    replica: Option<Replica>,
}

/// A copy that writes reach later. It answers what asks for no more: queries of
/// an index, and reads that are not consistent.
#[derive(Debug)]
struct Replica {
    dynamo: Dynamo,
    /// On their way, oldest first: the item as on the wire, or that it is gone.
    coming: VecDeque<(Timestamp, Key, Option<Value>)>,
}

impl Table {
    /// An empty table of the template's shape.
    pub(crate) fn new(template: &Template, with_replica: bool) -> Result<Self> {
        let open = || -> Result<Dynamo> {
            let dynamo = Dynamo::memory().map_err(crate::Failed)?;
            dynamo.create_table(&template.create_table, None).map_err(crate::Failed)?;
            Ok(dynamo)
        };
        let replica = if with_replica {
            Some(Replica { dynamo: open()?, coming: VecDeque::new() })
        } else {
            None
        };
        Ok(Self { dynamo: open()?, name: template.table.clone(), rows: BTreeMap::new(), replica })
    }

    /// Every row.
    pub(crate) fn rows(&self) -> &BTreeMap<Key, RowRef> {
        &self.rows
    }

    /// Whether this call may be answered by the replica.
    pub(crate) fn may_be_stale(&self, operation: &str, request: &Value) -> Option<Stale> {
        self.replica.as_ref()?;
        match operation {
            "Query" if !request["IndexName"].is_null() => Some(Stale::Index),
            "Query" | "GetItem" | "BatchGetItem" if request["ConsistentRead"] != json!(true) => {
                Some(Stale::Read)
            }
            _ => None,
        }
    }

    /// Answers from the replica, as it is when writes after `until` have not
    /// reached it.
    pub(crate) fn stale(&mut self, operation: &str, request: &Value, until: Timestamp) -> Answer {
        let Some(replica) = &mut self.replica else { return self.call(operation, request) };
        // Only the last of many writes to a row needs to be carried out.
        let mut last = BTreeMap::new();
        while let Some((at, key, item)) = replica.coming.pop_front() {
            if at > until {
                replica.coming.push_front((at, key, item));
                break;
            }
            last.insert(key, item);
        }
        for ((pk, sk), item) in last {
            let (operation, mut body) = match item {
                Some(item) => ("PutItem", json!({"Item": item})),
                None => ("DeleteItem", json!({"Key": {"pk": {"S": pk}, "sk": {"S": sk}}})),
            };
            body["TableName"] = json!(self.name);
            replica.dynamo.call(operation, body.to_string().as_bytes());
        }
        replica.dynamo.call(operation, request.to_string().as_bytes())
    }

    /// Carries out a call.
    pub(crate) fn call(&self, operation: &str, request: &Value) -> Answer {
        self.dynamo.call(operation, request.to_string().as_bytes())
    }

    /// Reads the rows that a write has touched, and tells what it did to them.
    pub(crate) fn changes(
        &mut self,
        operation: &str,
        request: &Value,
        now: Timestamp,
    ) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for key in keys(operation, request) {
            let body = json!({
                "TableName": self.name,
                "Key": {"pk": {"S": key.0}, "sk": {"S": key.1}},
                "ConsistentRead": true,
            });
            let answer = self.call("GetItem", &body);
            if answer.code.is_some() {
                return fail(format!("the oracle cannot read {key:?}: {}", answer.body));
            }
            let mut found: Value = serde_json::from_str(&answer.body)?;
            let item = found.get_mut("Item").map(Value::take);
            let new = item.as_ref().map(|item| Arc::new(rows::plain_row(item).0));
            let old = match &new {
                Some(row) => self.rows.insert(key.clone(), Arc::clone(row)),
                None => self.rows.remove(&key),
            };
            if old == new {
                continue;
            }
            if let Some(replica) = &mut self.replica {
                replica.coming.push_back((now, key.clone(), item));
            }
            changes.push(Change { key, old, new });
        }
        Ok(changes)
    }

    /// The earliest `due_at` of a row.
    pub(crate) fn next_due(&self) -> Option<&str> {
        self.rows.values().filter_map(|row| row["due_at"].as_str()).min()
    }
}

/// What a stale answer is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stale {
    Index,
    Read,
}

/// The rows that a write is about.
fn keys(operation: &str, request: &Value) -> Vec<Key> {
    let of = |part: &Value| {
        let key = if part["Key"].is_object() { &part["Key"] } else { &part["Item"] };
        let text = |name: &str| key[name]["S"].as_str().map(str::to_owned);
        Some((text("pk")?, text("sk")?))
    };
    match operation {
        "PutItem" | "UpdateItem" | "DeleteItem" => of(request).into_iter().collect(),
        "TransactWriteItems" => {
            let items = request["TransactItems"].as_array().into_iter().flatten();
            let parts = items.flat_map(|item| item.as_object().into_iter().flatten());
            // A condition check changes nothing.
            parts
                .filter(|(kind, _)| *kind != "ConditionCheck")
                .filter_map(|(_, part)| of(part))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// Whether the operation writes.
pub(crate) fn writes(operation: &str) -> bool {
    matches!(operation, "PutItem" | "UpdateItem" | "DeleteItem" | "TransactWriteItems")
}
