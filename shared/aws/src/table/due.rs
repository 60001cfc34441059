//! The `due` index: the only thing that the clock drives.
//!
//! Its rows are hints (a global index lags, and a claim may be lost): what is
//! due is claimed by a conditional write on the row itself.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use backups_core::backup::Backup;
use backups_core::id::{BackupId, DeploymentId, RestoreId};
use backups_core::restore::Restore;
use backups_core::time::Time;

use super::causes::{SCHEDULE, SCHEDULES, upgrade_sk};
use super::reconciliation::{RECONCILIATION, STACK};
use super::{
    Item, Table, TableError, backup_sk, call, deployment_pk, met_transaction, n, restore_sk, s,
};

/// A row of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DueRow {
    /// A backup wants to be looked at.
    Backup {
        /// Whose.
        deployment_id: DeploymentId,
        /// Which.
        id: BackupId,
        /// Since when.
        due_at: Time,
    },
    /// A restore wants to be looked at.
    Restore {
        /// Whose.
        deployment_id: DeploymentId,
        /// Which.
        id: RestoreId,
        /// Since when.
        due_at: Time,
    },
    /// A schedule has a slot to decide on, or something to announce.
    Schedule {
        /// Whose.
        deployment_id: DeploymentId,
        /// Since when.
        due_at: Time,
    },
    /// A backup before an upgrade waits, or an answer to one is to be announced.
    Upgrade {
        /// Whose.
        deployment_id: DeploymentId,
        /// The upgrade's id.
        id: String,
        /// Since when.
        due_at: Time,
    },
    /// The stack's reconciliation wants to be worked.
    Reconciliation {
        /// Since when.
        due_at: Time,
    },
    /// A row that this release does not know.
    Unknown {
        /// Its partition key.
        pk: String,
        /// Its sort key.
        sk: String,
    },
}

impl DueRow {
    /// Since when it has been due; None: a row that nobody knows.
    pub fn due_at(&self) -> Option<Time> {
        match self {
            Self::Backup { due_at, .. }
            | Self::Restore { due_at, .. }
            | Self::Schedule { due_at, .. }
            | Self::Upgrade { due_at, .. }
            | Self::Reconciliation { due_at } => Some(*due_at),
            Self::Unknown { .. } => None,
        }
    }

    /// Its keys.
    fn key(&self) -> (String, String) {
        match self {
            Self::Backup { deployment_id, id, .. } => {
                (deployment_pk(*deployment_id), backup_sk(*id))
            }
            Self::Restore { deployment_id, id, .. } => {
                (deployment_pk(*deployment_id), restore_sk(*id))
            }
            Self::Schedule { deployment_id, .. } => {
                (deployment_pk(*deployment_id), SCHEDULE.to_owned())
            }
            Self::Upgrade { deployment_id, id, .. } => {
                (deployment_pk(*deployment_id), upgrade_sk(id))
            }
            Self::Reconciliation { .. } => (STACK.to_owned(), RECONCILIATION.to_owned()),
            Self::Unknown { pk, sk } => (pk.clone(), sk.clone()),
        }
    }
}

/// A part of the index that is read by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shard {
    /// One of [`Table::due_shards`].
    Of(u32),
    /// All schedules.
    Schedules,
}

impl Table {
    /// How many shards the index has.
    pub fn due_shards(&self) -> u32 {
        self.due_shards
    }

    /// One page of what is due in a shard at `now`, oldest first, and where the
    /// next page starts. Costs half a unit a page when nothing is due.
    pub async fn due(
        &self,
        shard: Shard,
        now: Time,
        start: Option<DuePage>,
    ) -> Result<(Vec<DueRow>, Option<DuePage>), TableError> {
        let shard = match shard {
            Shard::Of(shard) => i64::from(shard),
            Shard::Schedules => SCHEDULES,
        };
        let reply = self
            .client
            .query()
            .table_name(&self.name)
            .index_name("due")
            .key_condition_expression("due_shard = :shard AND due_at <= :now")
            .expression_attribute_values(":shard", n(shard))
            .expression_attribute_values(":now", s(now.to_string()))
            .limit(100)
            .set_exclusive_start_key(start.map(|page| page.0))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await
            .map_err(|error| call("Query", &error))?;
        let rows = reply.items.unwrap_or_default().iter().map(row).collect();
        Ok((rows, reply.last_evaluated_key.map(DuePage)))
    }

    /// Moves a backup's `due_at` on, so that it does not starve those behind
    /// it. False: somebody wrote the row since it was read, and set its own time.
    pub async fn move_due(&self, backup: &Backup, to: Time) -> Result<bool, TableError> {
        let pk = deployment_pk(backup.deployment_id);
        self.move_under(pk, backup_sk(backup.id), backup.revision, to).await
    }

    /// The same of a restore.
    pub async fn move_restore(&self, restore: &Restore, to: Time) -> Result<bool, TableError> {
        let pk = deployment_pk(restore.deployment_id);
        self.move_under(pk, restore_sk(restore.id), restore.revision, to).await
    }

    pub(super) async fn move_under(
        &self,
        pk: String,
        sk: String,
        revision: u64,
        to: Time,
    ) -> Result<bool, TableError> {
        let reply = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", s(pk))
            .key("sk", s(sk))
            .update_expression("SET due_at = :to")
            .condition_expression("revision = :revision AND attribute_exists(due_at)")
            .expression_attribute_values(":to", s(to.to_string()))
            .expression_attribute_values(":revision", n(revision))
            .return_consumed_capacity(ReturnConsumedCapacity::Indexes)
            .send()
            .await;
        match reply {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(failed)) => match failed.err() {
                UpdateItemError::ConditionalCheckFailedException(_) => Ok(false),
                error if met_transaction(error) => Ok(false),
                _ => Err(call("UpdateItem", &SdkError::ServiceError(failed))),
            },
            Err(error) => Err(call("UpdateItem", &error)),
        }
    }
}

impl Table {
    /// Moves a row whatever it holds: one that cannot be read must not head its
    /// shard for ever, and one that was not nudged after all is due at once.
    pub async fn move_row(&self, row: &DueRow, to: Time) -> Result<(), TableError> {
        let (pk, sk) = row.key();
        let reply = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", s(pk))
            .key("sk", s(sk))
            .update_expression("SET due_at = :to")
            .condition_expression("attribute_exists(due_at)")
            .expression_attribute_values(":to", s(to.to_string()))
            .return_consumed_capacity(ReturnConsumedCapacity::Indexes)
            .send()
            .await;
        match reply {
            Ok(_) => Ok(()),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(()),
                _ => Err(call("UpdateItem", &error)),
            },
        }
    }
}

/// Where the next page of the index starts.
#[derive(Debug, Clone)]
pub struct DuePage(Item);

/// Reads a row of the index by its keys.
fn row(item: &Item) -> DueRow {
    let text = |name: &str| match item.get(name) {
        Some(AttributeValue::S(text)) => text.clone(),
        _ => String::new(),
    };
    let (pk, sk) = (text("pk"), text("sk"));
    let deployment = pk.strip_prefix("DEPLOYMENT#").and_then(|id| id.parse().ok());
    let Ok(due_at) = text("due_at").parse() else { return DueRow::Unknown { pk, sk } };
    if pk == STACK && sk == RECONCILIATION {
        return DueRow::Reconciliation { due_at };
    }
    let Some(deployment_id) = deployment else { return DueRow::Unknown { pk, sk } };
    if let Some(id) = sk.strip_prefix("BACKUP#").and_then(|id| id.parse().ok()) {
        DueRow::Backup { deployment_id, id: BackupId(id), due_at }
    } else if let Some(id) = sk.strip_prefix("RESTORE#").and_then(|id| id.parse().ok()) {
        DueRow::Restore { deployment_id, id: RestoreId(id), due_at }
    } else if sk == SCHEDULE {
        DueRow::Schedule { deployment_id, due_at }
    } else if let Some(id) = sk.strip_prefix("UPGRADE#") {
        DueRow::Upgrade { deployment_id, id: id.to_owned(), due_at }
    } else {
        DueRow::Unknown { pk, sk }
    }
}
