//! What is kept of the requests of a key: the answers to those that may come again, and how
//! many there were in a minute.
//!
//! The record of a request is written in the transaction that does what it asks: either both
//! are there or neither. It counts for ten minutes by the clock, however late DynamoDB
//! removes it (within a few days: DynamoDB developer guide, "Using time to live (TTL)").

use aws_sdk_dynamodb::types::{Put, ReturnConsumedCapacity, ReturnValue, TransactWriteItem};
use backups_core::id::{BackupId, RestoreId};
use backups_core::key::Key;
use backups_core::time::{Seconds, Time};
use serde::{Deserialize, Serialize};

use super::operation::{Written, built};
use super::{Table, TableError, call, from_item, n, s, sha256, to_item};

/// How long the answer to a request is kept.
pub const ANSWERED: Seconds = Seconds(600);

/// A request that its client may send again, by what the client calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    pk: String,
    sk: String,
    /// SHA-256 of method, path and body: what must be the same when it comes again.
    request: String,
}

/// What a request was answered with, beside 204.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answer {
    /// The backup that it made.
    pub backup_id: Option<BackupId>,
    /// The restore that it began.
    pub restore_id: Option<RestoreId>,
}

/// What is known of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing, or not any more.
    Nothing,
    /// It was carried out, with this answer.
    Answered(Answer),
    /// Another request of the key was called so.
    Other,
}

/// The record of a request, for the transaction that carries it out.
#[derive(Debug, Clone)]
pub struct Record(pub(super) TransactWriteItem);

/// What the count of a minute came to.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Counted {
    requests: u64,
}

/// The partition of what is kept of a key's requests.
fn requests_pk(key: &Key) -> String {
    format!("REQUESTS#{}", key.hash)
}

/// The record's row.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    request: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backup_id: Option<BackupId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restore_id: Option<RestoreId>,
    until: Time,
}

impl Once {
    /// The request of the key's holder that `called` names. The name is stored as its hash:
    /// it is the client's own, and may say anything.
    pub fn new(key: &Key, called: &str, method: &str, path: &str, body: &[u8]) -> Self {
        Self {
            pk: requests_pk(key),
            sk: format!("IDEMPOTENCY#{}", sha256(&[called.as_bytes()])),
            // Neither a method nor a path has a zero byte.
            request: sha256(&[method.as_bytes(), b"\0", path.as_bytes(), b"\0", body]),
        }
    }
}

/// How long the count of a minute is of use to a clock that is slow.
const COUNTED: Seconds = Seconds::hours(1);

impl Table {
    /// Counts so many requests of a key in the minute that begins then. Gives how many there
    /// are with them. A try whose reply was lost may count twice.
    pub async fn count_requests(
        &self,
        key: &Key,
        minute: Time,
        requests: u64,
    ) -> Result<u64, TableError> {
        let reply = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", s(requests_pk(key)))
            .key("sk", s(format!("MINUTE#{minute}")))
            .update_expression("ADD requests :requests SET #ttl = :ttl")
            .expression_attribute_names("#ttl", "ttl")
            .expression_attribute_values(":requests", n(requests))
            .expression_attribute_values(":ttl", n((minute + COUNTED).unix()))
            .return_values(ReturnValue::UpdatedNew)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await
            .map_err(|error| call("UpdateItem", &error))?;
        let counted: Counted = from_item(reply.attributes.unwrap_or_default())?;
        Ok(counted.requests)
    }

    /// What is known of a request, strongly consistent.
    pub async fn known(&self, once: &Once, now: Time) -> Result<Known, TableError> {
        let row = self.get(once.pk.clone(), once.sk.clone()).await?;
        let row: Option<Row> = row.map(from_item).transpose()?;
        Ok(match row.filter(|row| now < row.until) {
            None => Known::Nothing,
            Some(row) if row.request == once.request => {
                Known::Answered(Answer { backup_id: row.backup_id, restore_id: row.restore_id })
            }
            Some(_) => Known::Other,
        })
    }

    /// What a request changes, and its record, in one transaction. An earlier try of it that
    /// was applied is known again by the SDK's token.
    pub(super) async fn carried_out(
        &self,
        change: TransactWriteItem,
        record: Record,
    ) -> Result<Written, TableError> {
        Ok(match self.transact(vec![change, record.0]).await? {
            Ok(()) => Written::Stored,
            Err(reasons) => Written::cancelled(&reasons, 2),
        })
    }

    /// The record of a request that is carried out now: it is stored only if there is none
    /// that counts.
    pub fn record(&self, once: &Once, answer: Answer, now: Time) -> Result<Record, TableError> {
        let until = now + ANSWERED;
        let Answer { backup_id, restore_id } = answer;
        let row = Row { request: once.request.clone(), backup_id, restore_id, until };
        let mut item = to_item(&once.sk, &row)?;
        item.insert("pk".into(), s(&once.pk));
        item.insert("sk".into(), s(&once.sk));
        item.insert("ttl".into(), n(until.unix()));
        let put = Put::builder()
            .table_name(&self.name)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(pk) OR #until <= :now")
            .expression_attribute_names("#until", "until")
            .expression_attribute_values(":now", s(now.to_string()))
            .build();
        Ok(Record(TransactWriteItem::builder().put(built(put)?).build()))
    }
}
