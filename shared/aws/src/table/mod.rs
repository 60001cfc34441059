//! The table: one DynamoDB table, keys `pk`/`sk`, one sparse index `due`.
//!
//! | Item | `pk` | `sk` |
//! |---|---|---|
//! | deployment: the registry's part, our counters and the slot | `DEPLOYMENT#<id>` | `META` |
//! | backup | `DEPLOYMENT#<id>` | `BACKUP#<20 digits>` |
//! | the volumes of one node's set, as they were, ten to a row | `DEPLOYMENT#<id>` | `VOLUMES#BACKUP#<20 digits>#<20 digits>#<3 digits>` |
//! | restore | `DEPLOYMENT#<id>` | `RESTORE#<20 digits>` |
//! | what a restore's new volumes are to be like, ten to a row | `DEPLOYMENT#<id>` | `VOLUMES#RESTORE#<20 digits>#<3 digits>` |
//! | schedule: its setting, the slot that waits, and what was decided last | `DEPLOYMENT#<id>` | `SCHEDULE` |
//! | the request of a backup before an upgrade, and its answer | `DEPLOYMENT#<id>` | `UPGRADE#<upgrade id>` |
//! | a deleted backup's tombstone (TTL) | `DEPLOYMENT#<id>` | `TOMBSTONE#BACKUP#<20 digits>` |
//! | which backup a set of snapshots belongs to | `SNAPSHOTS#<smallest id>` | `OWNER` |
//! | API key (TTL) | `KEY#<sha256>` | `KEY` |
//! | the same in the list of all keys (TTL) | `KEYS` | `<key id>` |
//! | a key's request that may come again, and its answer (TTL) | `REQUESTS#<sha256>` | `IDEMPOTENCY#<sha256>` |
//! | how many requests a key has made in a minute (TTL) | `REQUESTS#<sha256>` | `MINUTE#<time>` |
//! | the stack's own facts | `STACK` | `TABLE` |
//! | until when the releases of scheduled backups are given away | `STACK` | `RELEASES` |
//! | the stack's reconciliation: its run, its place, its last report | `STACK` | `RECONCILIATION` |
//! | the operator's brake: what is paused, and since when | `STACK` | `BRAKE` |
//! | the answer to an operator's order about orphans (TTL) | `STACK` | `ANSWER#<order>` |
//!
//! Every invariant is a condition of a write; none is a read followed by a write.

mod backups;
mod brake;
mod causes;
mod deployments;
mod due;
pub mod keys;
mod lists;
mod operation;
mod owners;
mod reconciliation;
pub mod requests;
mod restores;
mod stack;

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use backups_core::id::{BackupId, DeploymentId, NodeId, RestoreId, SnapshotId};
use backups_core::operation::CallError;

use crate::sdk::SdkConfig;
use crate::settings::Settings;
use crate::telemetry::{self, Metric};

pub use backups::{Beside, Rotation};
pub use deployments::Registered;
pub use due::{DueRow, Shard};
pub use lists::{LIST, Listing};
pub use operation::{Stored, Written};
pub use reconciliation::{OrphanAnswer, Removal};
pub use restores::Begun;

/// A row as DynamoDB has it.
#[expect(clippy::disallowed_types, reason = "the SDK's own type of an item")]
type Item = std::collections::HashMap<String, AttributeValue>;

/// Placeholders of an expression.
#[expect(clippy::disallowed_types, reason = "the SDK's own type of the names")]
type Names = std::collections::HashMap<String, String>;

/// Why the table did not answer.
#[derive(Debug)]
pub enum TableError {
    /// The call failed.
    Call {
        /// Which operation.
        operation: &'static str,
        /// How.
        error: CallError,
    },
    /// A row is not what this release writes.
    Row {
        /// Its sort key.
        row: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Others wrote a row between the reading and the writing of it, each time.
    Contended {
        /// Its sort key, or what it is of.
        row: String,
        /// How often it was tried.
        tries: u32,
    },
}

impl TableError {
    /// A row that this release cannot read, or that contradicts another: counted, so that an
    /// operator hears of it wherever that is; whoever reads it may go on without it.
    pub fn unreadable(row: impl Into<String>, problem: impl Into<String>) -> Self {
        telemetry::count(Metric::RowsUnreadable, 1);
        Self::Row { row: row.into(), problem: problem.into() }
    }
}

impl std::fmt::Display for TableError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Call { operation, error } => write!(f, "DynamoDB {operation}: {error}"),
            Self::Row { row, problem } => write!(f, "the row {row} cannot be read: {problem}"),
            Self::Contended { row, tries } => {
                write!(f, "others write the row {row} all the time ({tries} tries)")
            }
        }
    }
}

impl std::error::Error for TableError {}

/// The table, and how to read and write its rows.
#[derive(Debug, Clone)]
pub struct Table {
    client: aws_sdk_dynamodb::Client,
    name: String,
    due_shards: u32,
}

impl Table {
    /// The stack's table.
    pub fn new(settings: &Settings, sdk: &SdkConfig) -> Self {
        Self {
            client: sdk.dynamodb(),
            name: settings.table_name.clone(),
            due_shards: settings.due_shards,
        }
    }

    /// The table of this name, to read: a write needs the stack's settings.
    pub fn reading(name: &str, sdk: &SdkConfig) -> Self {
        Self { client: sdk.dynamodb(), name: name.to_owned(), due_shards: 1 }
    }

    /// Reads one row, strongly consistent.
    async fn get(&self, pk: String, sk: String) -> Result<Option<Item>, TableError> {
        let reply = self
            .client
            .get_item()
            .table_name(&self.name)
            .key("pk", AttributeValue::S(pk))
            .key("sk", AttributeValue::S(sk))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        Ok(reply.map_err(|error| call("GetItem", &error))?.item)
    }

    /// The rows of a deployment whose sort keys begin so, the last one first, in all pages.
    async fn begin_with(
        &self,
        deployment: DeploymentId,
        prefix: &str,
    ) -> Result<Vec<Item>, TableError> {
        let mut start = None;
        let mut rows = Vec::new();
        loop {
            let reply = self
                .client
                .query()
                .table_name(&self.name)
                .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
                .expression_attribute_values(":pk", s(deployment_pk(deployment)))
                .expression_attribute_values(":prefix", s(prefix))
                .scan_index_forward(false)
                .consistent_read(true)
                .set_exclusive_start_key(start)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .send()
                .await
                .map_err(|error| call("Query", &error))?;
            rows.extend(reply.items.unwrap_or_default());
            start = reply.last_evaluated_key;
            if start.is_none() {
                return Ok(rows);
            }
        }
    }

    /// Removes one row; one that is not there is removed already.
    async fn delete(&self, pk: String, sk: String) -> Result<(), TableError> {
        let reply = self
            .client
            .delete_item()
            .table_name(&self.name)
            .key("pk", AttributeValue::S(pk))
            .key("sk", AttributeValue::S(sk))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        reply.map_err(|error| call("DeleteItem", &error))?;
        Ok(())
    }

    /// Writes one row, whatever was there.
    async fn put(&self, item: Item) -> Result<(), TableError> {
        let reply = self
            .client
            .put_item()
            .table_name(&self.name)
            .set_item(Some(item))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        reply.map_err(|error| call("PutItem", &error))?;
        Ok(())
    }
}

/// The partition of a deployment.
fn deployment_pk(id: DeploymentId) -> String {
    format!("DEPLOYMENT#{id}")
}

/// The sort key of a deployment's own row. Backups sort before it, everything
/// else after it: one query from it downwards is a list.
const META: &str = "META";

/// What the sort keys of backups begin with.
const BACKUP: &str = "BACKUP#";

/// The sort key of a backup.
fn backup_sk(id: BackupId) -> String {
    format!("{BACKUP}{:020}", id.0)
}

/// What the sort keys of a backup's volumes begin with.
fn volumes_prefix(id: BackupId) -> String {
    format!("VOLUMES#BACKUP#{:020}#", id.0)
}

/// The sort key of some volumes of one node of a backup.
fn volumes_sk(id: BackupId, node: NodeId, part: usize) -> String {
    format!("{}{:020}#{part:03}", volumes_prefix(id), node.0)
}

/// What the sort keys of restores begin with.
const RESTORE: &str = "RESTORE#";

/// The sort key of a restore.
fn restore_sk(id: RestoreId) -> String {
    format!("{RESTORE}{:020}", id.0)
}

/// What the sort keys of a restore's settings begin with.
fn settings_prefix(id: RestoreId) -> String {
    format!("VOLUMES#RESTORE#{:020}#", id.0)
}

/// The partition of a set's owner.
fn owner_pk(smallest: &SnapshotId) -> String {
    format!("SNAPSHOTS#{smallest}")
}

/// SHA-256 of the parts one behind the other, in hex.
fn sha256(parts: &[&[u8]]) -> String {
    use std::fmt::Write as _;

    use sha2::{Digest as _, Sha256};
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let mut hex = String::with_capacity(64);
    for byte in hash.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// Text as an attribute.
fn s(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

/// A number as an attribute.
fn n(number: impl std::fmt::Display) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// An error of a call of the table.
fn call<E>(operation: &'static str, error: &aws_sdk_dynamodb::error::SdkError<E>) -> TableError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    TableError::Call { operation, error: crate::error::sort(error) }
}

/// Whether a write met a transaction on the same item: nothing was done, and the
/// row is about to change. The SDK does not try it again by itself.
fn met_transaction(error: &UpdateItemError) -> bool {
    matches!(error, UpdateItemError::TransactionConflictException(_))
}

/// Writes a row's value as attributes.
fn to_item(row: &str, value: &impl serde::Serialize) -> Result<Item, TableError> {
    serde_dynamo::to_item(value)
        .map_err(|error| TableError::Row { row: row.to_owned(), problem: error.to_string() })
}

/// Reads a row's value from attributes.
fn from_item<T: serde::de::DeserializeOwned>(item: Item) -> Result<T, TableError> {
    let row = match item.get("sk") {
        Some(AttributeValue::S(sk)) => sk.clone(),
        _ => "without sk".to_owned(),
    };
    serde_dynamo::from_item(item).map_err(|error| TableError::unreadable(row, error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex, PoisonError};

    use backups_core::backup::Backup;

    use super::*;

    /// What was logged.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_row_that_cannot_be_read_is_counted_and_named() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(move || writer.clone())
            .finish();
        let item = Item::from([("sk".to_owned(), s("BACKUP#7")), ("status".to_owned(), s("new"))]);
        let read = tracing::subscriber::with_default(subscriber, || from_item::<Backup>(item));
        assert!(read.is_err_and(|error| error.to_string().contains("the row BACKUP#7 cannot")));
        let lines = lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lines = String::from_utf8(lines).expect("text");
        assert_eq!(lines.matches("RowsUnreadable").count(), 1, "{lines}");
    }
}
