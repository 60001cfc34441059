//! `DynamoDB`: dynoxide in this process, one file under the data folder.
//!
//! dynoxide's own server cannot be put behind a port that has other services on
//! it too, so its operations are called here by name. Its TTL runs on the system's
//! clock and is swept at a start; rows that expire are checked on read by whoever
//! reads them, so all that this means is that an expired row goes later than it
//! might, as on AWS.

use std::path::Path;

use dynoxide::{Database, DynoxideError, ImportOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::stack::{ACCOUNT, REGION};

/// How dynoxide's ARNs begin: it has no account and no Region.
const ITS_ARNS: &str = "arn:aws:dynamodb:dynoxide:000000000000:";

/// The embedded database.
#[derive(Clone)]
pub struct Dynamo(Database);

impl std::fmt::Debug for Dynamo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dynamo")
    }
}

/// An answer of `DynamoDB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, JSON.
    pub body: String,
    /// The error's code, if it is one.
    pub code: Option<String>,
}

/// What a call used, by what it said itself.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Capacity {
    pub(crate) read: f64,
    pub(crate) write: f64,
}

impl Dynamo {
    /// Opens or makes the database, and removes what expired since it was open.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let path = path.to_str().ok_or("the data folder's path is not UTF-8")?;
        let fail = |error| format!("{path}: {error}");
        let database = Database::new(path).map_err(fail)?;
        database.sweep_ttl().map_err(fail)?;
        Ok(Self(database))
    }

    /// A database in memory, for a simulation.
    ///
    /// # Errors
    /// SQLite has no memory to give.
    pub fn memory() -> Result<Self, String> {
        Database::memory().map(Self).map_err(|error| error.to_string())
    }

    /// Makes the stack's table unless it is there.
    ///
    /// # Errors
    /// The database refuses it.
    pub fn create_table(&self, create: &Value, time_to_live: Option<&Value>) -> Result<(), String> {
        let answer = self.call("CreateTable", create.to_string().as_bytes());
        match answer.code.as_deref() {
            // There from an earlier run.
            Some("ResourceInUseException") => return Ok(()),
            Some(_) => return Err(format!("the table: {}", answer.body)),
            None => {}
        }
        let Some(time_to_live) = time_to_live else { return Ok(()) };
        let answer = self.call("UpdateTimeToLive", time_to_live.to_string().as_bytes());
        match answer.code {
            None => Ok(()),
            Some(_) => Err(format!("the table's TTL: {}", answer.body)),
        }
    }

    /// Puts rows, each as JSON on the wire, in one transaction: for a measure that needs a
    /// full table.
    ///
    /// # Errors
    /// One of them is not a row of this table; then none is put.
    pub fn import(&self, table: &str, rows: &[String]) -> Result<(), String> {
        let rows: Result<Vec<_>, _> = rows.iter().map(|row| serde_json::from_str(row)).collect();
        let rows = rows.map_err(|error| error.to_string())?;
        let done = self.0.import_items(table, rows, ImportOptions::default());
        done.map(drop).map_err(|error| error.to_string())
    }

    /// Carries out one operation. Blocks on the file.
    pub fn call(&self, operation: &str, body: &[u8]) -> Answer {
        if !(operation.contains("Table")
            || operation.contains("Tag")
            || operation.contains("TimeToLive"))
        {
            return self.plain_call(operation, body);
        }
        let here = format!("arn:aws:dynamodb:{REGION}:{ACCOUNT}:");
        let body = String::from_utf8_lossy(body).replace(&here, ITS_ARNS);
        let mut answer = self.plain_call(operation, body.as_bytes());
        answer.body = answer.body.replace(ITS_ARNS, &here);
        answer
    }

    fn plain_call(&self, operation: &str, body: &[u8]) -> Answer {
        match self.dispatch(operation, body) {
            None => {
                let error = json!({"__type": "InvalidAction", "message": format!("{operation} is not simulated.")});
                Answer {
                    status: 400,
                    body: error.to_string(),
                    code: Some("InvalidAction".to_owned()),
                }
            }
            Some(Ok(body)) => Answer { status: 200, body, code: None },
            Some(Err(error)) => {
                let code = error.error_type().rsplit('#').next().unwrap_or_default().to_owned();
                Answer { status: error.status_code(), body: error.to_json(), code: Some(code) }
            }
        }
    }

    /// The rows that stand in the `due` index until `until`, oldest first.
    pub(crate) fn due(&self, table: &str, index: &str, until: &str) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        let mut start = Value::Null;
        loop {
            let mut request = json!({"TableName": table, "IndexName": index});
            if !start.is_null() {
                request["ExclusiveStartKey"] = start;
            }
            let answer = self.call("Scan", request.to_string().as_bytes());
            let page: Value = match answer.code {
                None => serde_json::from_str(&answer.body).map_err(|error| error.to_string())?,
                Some(_) => return Err(answer.body),
            };
            for row in page["Items"].as_array().into_iter().flatten() {
                let text = |name: &str| row[name]["S"].as_str().unwrap_or_default();
                if text("due_at") <= until {
                    found.push(format!(
                        "{} {} is due at {}",
                        text("pk"),
                        text("sk"),
                        text("due_at")
                    ));
                }
            }
            start = page["LastEvaluatedKey"].clone();
            if start.is_null() {
                return Ok(found);
            }
        }
    }

    /// None: no operation of that name.
    fn dispatch(&self, operation: &str, body: &[u8]) -> Option<Result<String, DynoxideError>> {
        let db = &self.0;
        Some(match operation {
            "CreateTable" => run(body, |request| db.create_table(request)),
            "DeleteTable" => run(body, |request| db.delete_table(request)),
            "DescribeTable" => run(body, |request| db.describe_table(request)),
            "ListTables" => run(body, |request| db.list_tables(request)),
            "UpdateTable" => run(body, |request| db.update_table(request)),
            "PutItem" => run(body, |request| db.put_item(request)),
            "GetItem" => run(body, |request| db.get_item(request)),
            "DeleteItem" => run(body, |request| db.delete_item(request)),
            "UpdateItem" => run(body, |request| db.update_item(request)),
            "Query" => run(body, |request| db.query(request)),
            "Scan" => run(body, |request| db.scan(request)),
            "BatchGetItem" => run(body, |request| db.batch_get_item(request)),
            "BatchWriteItem" => run(body, |request| db.batch_write_item(request)),
            "TransactWriteItems" => run(body, |request| db.transact_write_items(request)),
            "TransactGetItems" => run(body, |request| db.transact_get_items(request)),
            "UpdateTimeToLive" => run(body, |request| db.update_time_to_live(request)),
            "DescribeTimeToLive" => run(body, |request| db.describe_time_to_live(request)),
            "ExecuteStatement" => run(body, |request| db.execute_statement(request)),
            "TagResource" => run(body, |request| db.tag_resource(request)),
            "UntagResource" => run(body, |request| db.untag_resource(request)),
            "ListTagsOfResource" => run(body, |request| db.list_tags_of_resource(request)),
            _ => return None,
        })
    }
}

/// Reads a request, carries it out, writes the answer.
fn run<Q: DeserializeOwned, A: Serialize>(
    body: &[u8],
    act: impl FnOnce(Q) -> dynoxide::Result<A>,
) -> Result<String, DynoxideError> {
    let request = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    serde_json::to_string(&act(request)?)
        .map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}

/// dynoxide's types mark an error of validation in its text.
fn unreadable(error: &serde_json::Error) -> DynoxideError {
    let message = error.to_string();
    match message.split_once("VALIDATION:").or_else(|| message.split_once("VALIDATION_REQUEST:")) {
        Some((_, message)) => {
            let message = message.split(" at line ").next().unwrap_or_default();
            DynoxideError::ValidationException(message.trim().to_owned())
        }
        None if error.is_data() => DynoxideError::ValidationException(message),
        None => DynoxideError::SerializationException(message),
    }
}

/// What a call is about: its tables.
pub(crate) fn resources(body: &[u8]) -> Vec<String> {
    let Ok(request) = serde_json::from_slice::<Value>(body) else { return Vec::new() };
    let mut tables: Vec<String> =
        request["TableName"].as_str().map(str::to_owned).into_iter().collect();
    tables.extend(
        request["RequestItems"].as_object().into_iter().flatten().map(|(table, _)| table.clone()),
    );
    for item in request["TransactItems"].as_array().into_iter().flatten() {
        let parts = item.as_object().into_iter().flatten();
        tables.extend(parts.filter_map(|(_, part)| part["TableName"].as_str().map(str::to_owned)));
    }
    tables.sort();
    tables.dedup();
    tables
}

/// What a call used, if it asked to be told.
pub(crate) fn capacity(operation: &str, body: &str) -> Option<Capacity> {
    let answer: Value = serde_json::from_str(body).ok()?;
    let reads =
        matches!(operation, "GetItem" | "Query" | "Scan" | "BatchGetItem" | "TransactGetItems");
    let of = |one: &Value| {
        let part = |name: &str| one[name].as_f64();
        match (part("ReadCapacityUnits"), part("WriteCapacityUnits"), part("CapacityUnits")) {
            (None, None, Some(units)) if reads => Capacity { read: units, write: 0.0 },
            (None, None, Some(units)) => Capacity { read: 0.0, write: units },
            (read, write, _) => Capacity { read: read.unwrap_or(0.0), write: write.unwrap_or(0.0) },
        }
    };
    match &answer["ConsumedCapacity"] {
        Value::Null => None,
        Value::Array(tables) => {
            Some(tables.iter().map(of).fold(Capacity::default(), |sum, one| Capacity {
                read: sum.read + one.read,
                write: sum.write + one.write,
            }))
        }
        one => Some(of(one)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Dynamo {
        let dynamo = Dynamo::memory().expect("a database");
        let template = crate::template::Template::load(&[]).expect("template.yaml");
        for _ in 0..2 {
            dynamo
                .create_table(&template.create_table, template.time_to_live.as_ref())
                .expect("twice is once");
        }
        dynamo
    }

    #[test]
    fn the_templates_table_takes_rows_and_shows_what_is_due() {
        let (dynamo, table) =
            (memory(), crate::template::Template::load(&[]).expect("template.yaml").table);
        for (sk, due_at) in [("A", "2025-01-01T00:00:00Z"), ("B", "2026-01-01T00:00:00Z")] {
            let item = json!({"pk": {"S": "p"}, "sk": {"S": sk}, "due_shard": {"N": "0"}, "due_at": {"S": due_at}});
            let put = json!({"TableName": table, "Item": item, "ReturnConsumedCapacity": "TOTAL"});
            let answer = dynamo.call("PutItem", put.to_string().as_bytes());
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert!(
                capacity("PutItem", &answer.body).is_some_and(|used| used.write >= 1.0),
                "{}",
                answer.body
            );
        }
        let due = dynamo.due(&table, "due", "2025-06-01T00:00:00Z").expect("an index");
        assert_eq!(due, ["p A is due at 2025-01-01T00:00:00Z"]);
    }

    #[test]
    fn the_tables_arn_is_of_the_stacks_account_and_region() {
        let (dynamo, table) =
            (memory(), crate::template::Template::load(&[]).expect("template.yaml").table);
        let answer =
            dynamo.call("DescribeTable", json!({"TableName": table}).to_string().as_bytes());
        let described: Value = serde_json::from_str(&answer.body).expect("JSON");
        let arn = format!("arn:aws:dynamodb:us-west-1:123456789012:table/{table}");
        assert_eq!(described["Table"]["TableArn"], arn.as_str());
        let tag = json!({"ResourceArn": arn, "Tags": [{"Key": "a", "Value": "b"}]});
        let answer = dynamo.call("TagResource", tag.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    #[test]
    fn errors_have_their_code() {
        let dynamo = memory();
        let code = |operation: &str, body: &str| {
            dynamo.call(operation, body.as_bytes()).code.unwrap_or_default()
        };
        assert_eq!(
            code("GetItem", r#"{"TableName":"none","Key":{"pk":{"S":"a"}}}"#),
            "ResourceNotFoundException"
        );
        assert_eq!(code("GetItem", "{"), "SerializationException");
        assert_eq!(code("CreateBackup", "{}"), "InvalidAction");
        assert_eq!(code("PutItem", r#"{"Item":{}}"#), "ValidationException");
    }

    #[test]
    fn capacity_is_read_in_every_shape() {
        let one = |operation, body: Value| {
            capacity(operation, &body.to_string()).map(|used| (used.read, used.write))
        };
        assert_eq!(one("Query", json!({})), None);
        assert_eq!(
            one("Query", json!({"ConsumedCapacity": {"CapacityUnits": 2.5}})),
            Some((2.5, 0.0))
        );
        assert_eq!(
            one("UpdateItem", json!({"ConsumedCapacity": {"CapacityUnits": 1.0}})),
            Some((0.0, 1.0))
        );
        let both = json!({"ConsumedCapacity": [{"CapacityUnits": 4.0}, {"WriteCapacityUnits": 2.0, "CapacityUnits": 2.0}]});
        assert_eq!(one("TransactWriteItems", both), Some((0.0, 6.0)));
    }

    #[test]
    fn a_call_names_its_tables() {
        assert_eq!(resources(br#"{"TableName":"t"}"#), ["t"]);
        assert_eq!(
            resources(
                br#"{"TransactItems":[{"Put":{"TableName":"a"}},{"Update":{"TableName":"a"}}]}"#
            ),
            ["a"]
        );
        assert!(resources(b"").is_empty());
    }
}
