//! The stack's own facts: the table's id, and how the `due` index is sharded.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, ReturnValue};
use backups_core::operation::CallError;

use super::{Item, Table, TableError, call, n, s};

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
            .key("pk", s("STACK"))
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
