//! The embedded `DynamoDB` as the simulation has it: with a mirror of every row
//! for the oracle, and with what it never shows by itself, a replica that lags.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use local::{Answer, Dynamo, Template};
use serde_json::{Value, json};

use super::call::Call;
use crate::rows;
use crate::{Result, fail};

/// One in so many reads by key is compared with what the database answers.
const COMPARED: u64 = 32;

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
    /// The same as items on the wire.
    items: BTreeMap<Key, Arc<Value>>,
    /// The rows that are due at a time, by it.
    due: BTreeSet<(String, Key)>,
    /// Reads by key so far.
    reads: u64,
    replica: Option<Replica>,
}

/// A copy that writes reach later. It answers what asks for no more: queries of
/// an index, and reads that are not consistent.
#[derive(Debug)]
struct Replica {
    dynamo: Dynamo,
    /// On their way, oldest first: the item as on the wire, or that it is gone.
    coming: VecDeque<(Timestamp, Key, Option<Arc<Value>>)>,
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
        Ok(Self {
            dynamo: open()?,
            name: template.table.clone(),
            rows: BTreeMap::new(),
            items: BTreeMap::new(),
            due: BTreeSet::new(),
            reads: 0,
            replica,
        })
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
    pub(crate) fn stale(&mut self, call: &Call, until: Timestamp) -> Answer {
        let Some(replica) = &mut self.replica else {
            return self.dynamo.call(&call.operation, &call.body);
        };
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
                Some(item) => ("PutItem", json!({"Item": *item})),
                None => ("DeleteItem", json!({"Key": {"pk": {"S": pk}, "sk": {"S": sk}}})),
            };
            body["TableName"] = json!(self.name);
            replica.dynamo.call(operation, body.to_string().as_bytes());
        }
        replica.dynamo.call(&call.operation, &call.body)
    }

    /// Carries out a call, and tells what it did to which rows.
    pub(crate) fn call(&mut self, call: &Call, now: Timestamp) -> Result<(Answer, Vec<Change>)> {
        match call.operation.as_str() {
            "GetItem" => Ok((self.get(call)?, Vec::new())),
            operation if writes(operation) => self.write(call, now),
            operation => Ok((self.dynamo.call(operation, &call.body), Vec::new())),
        }
    }

    /// A read by key: of all calls the most, and half of what a run cost when the
    /// database answered each. The copy of its items answers as it would, and one
    /// in [`COMPARED`] times it is asked.
    fn get(&mut self, call: &Call) -> Result<Answer> {
        self.reads += 1;
        let key = of(&call.json).filter(|_| call.json["ProjectionExpression"].is_null());
        let Some(key) = key else { return Ok(self.dynamo.call("GetItem", &call.body)) };
        let item = self.items.get(&key);
        if self.reads.is_multiple_of(COMPARED) {
            let answer = self.dynamo.call("GetItem", &call.body);
            let found: Value = serde_json::from_str(&answer.body)?;
            if answer.code.is_some() || found.get("Item") != item.map(Arc::as_ref) {
                return fail(format!("the copy of {key:?} is {item:?}, the item {}", answer.body));
            }
        }
        let body = item.map_or_else(|| json!({}), |item| json!({"Item": **item}));
        Ok(Answer { status: 200, body: body.to_string(), code: None })
    }

    fn write(&mut self, call: &Call, now: Timestamp) -> Result<(Answer, Vec<Change>)> {
        let operation = call.operation.as_str();
        // An update that does not ask for the item is made to: the oracle wants it.
        let quiet = operation == "UpdateItem" && call.json["ReturnValues"].is_null();
        let mut answer = if quiet {
            let mut body = call.body.clone();
            body.pop();
            body.extend_from_slice(b",\"ReturnValues\":\"ALL_NEW\"}");
            self.dynamo.call(operation, &body)
        } else {
            self.dynamo.call(operation, &call.body)
        };
        if answer.code.is_some() {
            return Ok((answer, Vec::new()));
        }
        let mut changes = Vec::new();
        if operation == "TransactWriteItems" {
            let parts = rows::items(&call.json["TransactItems"]);
            for (kind, part) in parts.flat_map(|item| item.as_object().into_iter().flatten()) {
                let Some(key) = of(part) else { continue };
                // A condition check changes nothing.
                if kind != "ConditionCheck" {
                    // Nor does a transaction whose token the table knows: of what it
                    // says the rows may have gone on since.
                    let item = self.read(&key)?;
                    changes.extend(self.note(key, item, now));
                }
            }
        } else if let Some(key) = of(&call.json) {
            let item = match operation {
                "PutItem" => Some(call.json["Item"].clone()),
                "UpdateItem" => {
                    let mut found: Value = serde_json::from_str(&answer.body)?;
                    let item = found["Attributes"].clone();
                    if quiet {
                        found.as_object_mut().map(|found| found.remove("Attributes"));
                        answer.body = found.to_string();
                    }
                    Some(item)
                }
                _ => None,
            };
            changes.extend(self.note(key, item, now));
        }
        Ok((answer, changes))
    }

    /// An item as it is on the wire.
    pub(crate) fn item(&self, key: &Key) -> Option<Arc<Value>> {
        self.items.get(key).cloned()
    }

    /// Puts an item that no function has written.
    pub(crate) fn plant(&mut self, item: Value) -> Result<()> {
        let body = json!({"TableName": self.name, "Item": item});
        let answer = self.dynamo.call("PutItem", body.to_string().as_bytes());
        if answer.code.is_some() {
            return fail(answer.body);
        }
        if let Some(key) = of(&body) {
            self.note(key, Some(item), Timestamp::MIN);
        }
        Ok(())
    }

    /// Takes away an item that no function has written.
    pub(crate) fn uproot(&mut self, item: &Value, now: Timestamp) -> Result<()> {
        let key = json!({"pk": item["pk"], "sk": item["sk"]});
        let body = json!({"TableName": self.name, "Key": key});
        let answer = self.dynamo.call("DeleteItem", body.to_string().as_bytes());
        if answer.code.is_some() {
            return fail(answer.body);
        }
        if let Some(key) = of(&body) {
            self.note(key, None, now);
        }
        Ok(())
    }

    fn read(&self, key: &Key) -> Result<Option<Value>> {
        let body = json!({
            "TableName": self.name,
            "Key": {"pk": {"S": key.0}, "sk": {"S": key.1}},
            "ConsistentRead": true,
        });
        let answer = self.dynamo.call("GetItem", body.to_string().as_bytes());
        if answer.code.is_some() {
            return fail(format!("the oracle cannot read {key:?}: {}", answer.body));
        }
        let mut found: Value = serde_json::from_str(&answer.body)?;
        Ok(found.get_mut("Item").map(Value::take))
    }

    /// The row is this now. None: it was before.
    fn note(&mut self, key: Key, item: Option<Value>, now: Timestamp) -> Option<Change> {
        let new = item.as_ref().map(|item| Arc::new(rows::plain_row(item).0));
        let old = match &new {
            Some(row) => self.rows.insert(key.clone(), Arc::clone(row)),
            None => self.rows.remove(&key),
        };
        if old == new {
            return None;
        }
        let due = |row: &RowRef| Some((row["due_at"].as_str()?.to_owned(), key.clone()));
        if let Some(before) = old.as_ref().and_then(due) {
            self.due.remove(&before);
        }
        self.due.extend(new.as_ref().and_then(due));
        let item = item.map(Arc::new);
        if let Some(replica) = &mut self.replica {
            replica.coming.push_back((now, key.clone(), item.clone()));
        }
        match item {
            Some(item) => self.items.insert(key.clone(), item),
            None => self.items.remove(&key),
        };
        Some(Change { key, old, new })
    }

    /// The earliest `due_at` of a row.
    pub(crate) fn next_due(&self) -> Option<&str> {
        self.due.first().map(|(at, _)| at.as_str())
    }
}

/// What a stale answer is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stale {
    Index,
    Read,
}

/// The key of the item that a request, or a part of one, is about.
fn of(part: &Value) -> Option<Key> {
    let key = if part["Key"].is_object() { &part["Key"] } else { &part["Item"] };
    let text = |name: &str| key[name]["S"].as_str().map(str::to_owned);
    Some((text("pk")?, text("sk")?))
}

/// Whether the operation writes.
pub(crate) fn writes(operation: &str) -> bool {
    matches!(operation, "PutItem" | "UpdateItem" | "DeleteItem" | "TransactWriteItems")
}
