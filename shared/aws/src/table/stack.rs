//! The stack's own facts: the table's id, and how the `due` index is sharded.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, ReturnValue};
use backups_core::operation::CallError;

use super::reconciliation::STACK;
use super::{Item, Table, TableError, call, n, s};

/// The sort key of the releases.
const RELEASES: &str = "RELEASES";

/// How often a place in the row of releases is asked for.
const RESERVE_TRIES: u32 = 4;

impl Table {
    /// The table's id, made at the first call ever: tagged on every snapshot, so
    /// that those of a lost table are told from those of its successor.
    ///
    /// # Errors
    /// Also when `DUE_SHARDS` is smaller than it ever was: rows in the shards
    /// left out would never be due again.
    pub async fn table_id(&self) -> Result<String, TableError> {
        let fresh = crate::random::nonce();
        let reply = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", s(STACK))
            .key("sk", s("TABLE"))
            .update_expression(
                "SET table_id = if_not_exists(table_id, :fresh), due_shards = :shards",
            )
            .condition_expression("attribute_not_exists(due_shards) OR due_shards <= :shards")
            .expression_attribute_values(":fresh", s(fresh.as_str()))
            .expression_attribute_values(":shards", n(self.due_shards))
            .return_values(ReturnValue::AllNew)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        match reply {
            Ok(reply) => id_of(reply.attributes),
            Err(SdkError::ServiceError(failed)) => match failed.err() {
                UpdateItemError::ConditionalCheckFailedException(_) => Err(TableError::Row {
                    row: "STACK".to_owned(),
                    problem: format!(
                        "DUE_SHARDS is {}, and was larger before: it may only grow",
                        self.due_shards
                    ),
                }),
                _ => Err(call("UpdateItem", &SdkError::ServiceError(failed))),
            },
            Err(error) => Err(call("UpdateItem", &error)),
        }
    }
}

/// The releases of scheduled backups: how fast, for how long ahead.
///
/// The account's bucket of `CreateSnapshots` refills at 5 a second (EC2 API reference,
/// "Request throttling"). Nineteen twentieths of that are released; the rest, and the
/// bucket's 100 tokens, are for users' creates, which go past it.
const PER_MINUTE: i64 = 285;

/// How much of what was not used is made up for: between two ticks, or by a late one.
/// Some 70 calls, out of the 100 that the bucket stores.
const CATCH_UP_MILLIS: i64 = 15_000;

/// No place is given away further ahead than this: one that is was given by a clock that
/// was wrong, and would hold up all schedules until then.
const AHEAD_MILLIS: i64 = 10 * 60_000;

impl Table {
    /// Takes the next place in the row of releases for so many calls of
    /// `CreateSnapshots`, and gives the time at which they may begin, in milliseconds of
    /// the epoch. Of two ticks that overlap each gets places of its own. None: it would
    /// begin only after `until`, and no place was taken.
    ///
    /// # Errors
    /// The table did not answer.
    pub async fn reserve(
        &self,
        calls: u64,
        now_millis: i64,
        until_millis: i64,
    ) -> Result<Option<i64>, TableError> {
        let calls = i64::try_from(calls).unwrap_or(i64::MAX / 60_000);
        let takes = calls.saturating_mul(60_000) / PER_MINUTE;
        for _ in 0..RESERVE_TRIES {
            let row = self.get(STACK.to_owned(), RELEASES.to_owned()).await?;
            let before = row.and_then(|row| match row.get("until_millis") {
                Some(AttributeValue::N(number)) => number.parse::<i64>().ok(),
                _ => None,
            });
            let sound = before.filter(|before| *before <= now_millis + AHEAD_MILLIS);
            let begin = sound.unwrap_or(0).max(now_millis - CATCH_UP_MILLIS);
            if begin >= until_millis {
                return Ok(None);
            }
            let update = self
                .client
                .update_item()
                .table_name(&self.name)
                .key("pk", s(STACK))
                .key("sk", s(RELEASES))
                .update_expression("SET until_millis = :after")
                .expression_attribute_values(":after", n(begin.saturating_add(takes)))
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            let update = match before {
                None => update.condition_expression("attribute_not_exists(until_millis)"),
                Some(before) => update
                    .condition_expression("until_millis = :before")
                    .expression_attribute_values(":before", n(before)),
            };
            match update.send().await {
                Ok(_) => return Ok(Some(begin)),
                Err(error) => match error.as_service_error() {
                    Some(UpdateItemError::ConditionalCheckFailedException(_)) => {}
                    _ => return Err(call("UpdateItem", &error)),
                },
            }
        }
        Ok(None)
    }
}

/// The id out of the row.
fn id_of(row: Option<Item>) -> Result<String, TableError> {
    match row.and_then(|mut row| row.remove("table_id")) {
        Some(AttributeValue::S(id)) => Ok(id),
        _ => Err(TableError::Call {
            operation: "UpdateItem",
            error: CallError::Unknown("the reply has no table_id".to_owned()),
        }),
    }
}
