//! What the rows of all operations have in common: one conditional update, or one
//! transaction, each of which knows its own write again.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, ReturnConsumedCapacity,
    ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use backups_core::id::{DeploymentId, Nonce};
use backups_core::operation::CallError;

use super::{Item, Names, Table, TableError, call, met_transaction, s};

/// What a create's transaction came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is stored.
    Stored,
    /// What it was decided on is not as it was read: read again and decide anew.
    Conflict,
    /// The same; and the last row of the transaction, which is that of what asked for it if
    /// anything did, was being written by another at that moment.
    InProgress,
}

impl Written {
    /// Of a transaction that was cancelled and of which the last item is what asked for it.
    pub(super) fn cancelled(reasons: &[CancellationReason], items: usize) -> Self {
        // Without a reason for each item nobody knows which one it was.
        let last = reasons.last().filter(|_| reasons.len() == items);
        match last.and_then(|reason| reason.code.as_deref()) {
            Some("TransactionConflict") => Self::InProgress,
            _ => Self::Conflict,
        }
    }
}

impl<T> From<Stored<T>> for Written {
    fn from(stored: Stored<T>) -> Self {
        match stored {
            Stored::Yes(_) => Self::Stored,
            Stored::Conflict => Self::Conflict,
        }
    }
}

/// What an operation's write came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored<T> {
    /// The row as stored, with its new revision.
    Yes(Box<T>),
    /// Somebody else wrote the row: read again and decide anew.
    Conflict,
}

impl Table {
    /// An update without a transaction. False: somebody else wrote the row, or, of one that
    /// bears no nonce, an earlier try of it.
    pub(super) async fn update_alone(
        &self,
        parts: UpdateParts,
        nonce: Option<&Nonce>,
    ) -> Result<bool, TableError> {
        let reply = self
            .client
            .update_item()
            .table_name(&self.name)
            .set_key(Some(parts.key()))
            .update_expression(parts.expression())
            .condition_expression(parts.conditions.join(" AND "))
            .set_expression_attribute_names(Some(parts.names))
            .set_expression_attribute_values(Some(parts.values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Indexes)
            .send()
            .await;
        match reply {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(failed)) => match failed.err() {
                UpdateItemError::ConditionalCheckFailedException(check) => {
                    Ok(nonce.is_some_and(|nonce| ours(check.item.as_ref(), nonce)))
                }
                error if met_transaction(error) => Ok(false),
                _ => Err(call("UpdateItem", &SdkError::ServiceError(failed))),
            },
            Err(error) => Err(call("UpdateItem", &error)),
        }
    }

    /// One transaction. The inner error is the reasons for which it was cancelled
    /// by a condition or a conflict; anything else is an error of the call.
    pub(super) async fn transact(
        &self,
        items: Vec<TransactWriteItem>,
    ) -> Result<Result<(), Vec<CancellationReason>>, TableError> {
        // The SDK puts one idempotency token on all its tries of this call.
        let reply = self
            .client
            .transact_write_items()
            .set_transact_items(Some(items))
            .return_consumed_capacity(ReturnConsumedCapacity::Indexes)
            .send()
            .await;
        match reply {
            Ok(_) => Ok(Ok(())),
            Err(error) => match cancelled(&error) {
                Some(reasons) => Ok(Err(reasons)),
                None => Err(call("TransactWriteItems", &error)),
            },
        }
    }

    /// The shard of the `due` index that a deployment's rows stand in. Ids may
    /// end in the same bits: they are mixed first.
    pub(super) fn shard(&self, id: DeploymentId) -> u32 {
        let mixed = id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        u32::try_from(mixed % u64::from(self.due_shards)).unwrap_or(0)
    }
}

/// The reasons of a transaction that a condition or another transaction
/// cancelled. None: it failed for another cause (throttled, invalid, ...).
fn cancelled(
    error: &SdkError<TransactWriteItemsError, HttpResponse>,
) -> Option<Vec<CancellationReason>> {
    match error.as_service_error()? {
        TransactWriteItemsError::TransactionCanceledException(cancelled) => {
            let reasons = cancelled.cancellation_reasons.clone().unwrap_or_default();
            let decided = |reason: &CancellationReason| {
                matches!(
                    reason.code.as_deref(),
                    Some("ConditionalCheckFailed" | "TransactionConflict")
                )
            };
            reasons.iter().any(decided).then_some(reasons)
        }
        TransactWriteItemsError::TransactionInProgressException(_) => Some(Vec::new()),
        _ => None,
    }
}

/// Whether the row that failed a condition bears the nonce of the very write
/// that failed: then an earlier try of it was applied, and its reply was lost.
pub(super) fn ours(old: Option<&Item>, nonce: &Nonce) -> bool {
    old.and_then(|item| item.get("nonce")) == Some(&s(nonce.as_str()))
}

/// Builds a part of a request. The builders fail only on a missing field.
pub(super) fn built<T>(
    result: Result<T, aws_sdk_dynamodb::error::BuildError>,
) -> Result<T, TableError> {
    result.map_err(|error| TableError::Call {
        operation: "TransactWriteItems",
        error: CallError::NotApplied(error.to_string()),
    })
}

/// An `UpdateItem` in the making.
pub(super) struct UpdateParts {
    table: String,
    pk: String,
    sk: String,
    sets: Vec<String>,
    removes: Vec<String>,
    pub(super) conditions: Vec<String>,
    names: Names,
    values: Item,
}

impl UpdateParts {
    pub(super) fn new(table: &str, pk: String, sk: String) -> Self {
        Self {
            table: table.to_owned(),
            pk,
            sk,
            sets: Vec::new(),
            removes: Vec::new(),
            conditions: Vec::new(),
            names: Names::default(),
            values: Item::default(),
        }
    }

    /// Sets an attribute, or removes it if there is no value.
    pub(super) fn set_or_remove(&mut self, name: &str, value: Option<AttributeValue>) {
        self.names.insert(format!("#{name}"), name.to_owned());
        match value {
            Some(value) => {
                self.sets.push(format!("#{name} = :{name}_"));
                self.values.insert(format!(":{name}_"), value);
            }
            None => self.removes.push(format!("#{name}")),
        }
    }

    pub(super) fn condition(&mut self, text: &str, placeholder: &str, value: AttributeValue) {
        self.conditions.push(text.to_owned());
        self.values.insert(placeholder.to_owned(), value);
    }

    /// Demands that an attribute is as it was read.
    pub(super) fn unchanged(&mut self, name: &str, value: Option<AttributeValue>) {
        self.names.insert(format!("#{name}"), name.to_owned());
        match value {
            Some(value) => {
                self.condition(&format!("#{name} = :{name}_read"), &format!(":{name}_read"), value);
            }
            None => self.conditions.push(format!("attribute_not_exists(#{name})")),
        }
    }

    fn key(&self) -> Item {
        [("pk".to_owned(), s(&self.pk)), ("sk".to_owned(), s(&self.sk))].into()
    }

    fn expression(&self) -> String {
        let mut text = format!("SET {}", self.sets.join(", "));
        if !self.removes.is_empty() {
            text.push_str(" REMOVE ");
            text.push_str(&self.removes.join(", "));
        }
        text
    }

    pub(super) fn build(self) -> Result<Update, aws_sdk_dynamodb::error::BuildError> {
        Update::builder()
            .table_name(&self.table)
            .set_key(Some(self.key()))
            .update_expression(self.expression())
            .condition_expression(self.conditions.join(" AND "))
            .set_expression_attribute_names(Some(self.names))
            .set_expression_attribute_values(Some(self.values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
    }
}
