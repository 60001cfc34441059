//! Announcements: what automation listens to on the stack's bus.
//!
//! One is written into its operation's row by the very write that makes the
//! change, and taken out after the bus has accepted it: at least once, with an
//! id by which a consumer drops doubles.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::backup::{self, Backup, BackupType};
use crate::control_plane::{KEY_CHANGED, is_key_id};
use crate::id::{BackupId, DeploymentId, NodeId, Nonce, RestoreId, TenantId};
use crate::operation::Why;
use crate::reconcile::Reconciliation;
use crate::restore::{Order, Restore};
use crate::schedule::{Schedule, Skipped};
use crate::time::Time;
use crate::upgrade::{Answer, Upgrade};

/// `source` of everything we put on the bus.
pub const SOURCE: &str = "supervisor.backups";

/// `detail-type` of the internal nudge: "look at this operation now".
pub const OPERATION_DUE: &str = "Operation Due";

/// `detail-type` of an operator's order.
pub const RESTORE_ORDERED: &str = "Restore Ordered";

/// `detail-type` of an operator's order about what no row vouches for.
pub const ORPHAN_REMOVAL_ORDERED: &str = "Orphan Removal Ordered";

/// `detail-type` of an event of the control plane that was refused.
pub const EVENT_REJECTED: &str = "Event Rejected";

/// `source` of [`EVENT_REJECTED`]: not that of announcements, because whoever keeps all of
/// those is to get no event of the control plane with them, which may be about keys.
pub const REJECTED_SOURCE: &str = "supervisor.rejected";

/// What happened, as `detail-type` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A backup was asked for.
    #[serde(rename = "Backup Requested")]
    BackupRequested,
    /// Its snapshots were started.
    #[serde(rename = "Backup Started")]
    BackupStarted,
    /// Every snapshot is complete.
    #[serde(rename = "Backup Completed")]
    BackupCompleted,
    /// It failed; `failure` says why.
    #[serde(rename = "Backup Failed")]
    BackupFailed,
    /// Its snapshots are gone.
    #[serde(rename = "Backup Deleted")]
    BackupDeleted,
    /// Its expiry came; it is being deleted.
    #[serde(rename = "Backup Expired")]
    BackupExpired,
    /// A restore was asked for.
    #[serde(rename = "Restore Requested")]
    RestoreRequested,
    /// It is being prepared.
    #[serde(rename = "Restore Started")]
    RestoreStarted,
    /// Every node that ran runs on the backup's data.
    #[serde(rename = "Restore Completed")]
    RestoreCompleted,
    /// It failed, and nothing of the deployment was changed.
    #[serde(rename = "Restore Failed")]
    RestoreFailed,
    /// The old volumes are on again, and the nodes run.
    #[serde(rename = "Restore Rolled Back")]
    RestoreRolledBack,
    /// A person has to look.
    #[serde(rename = "Restore Stuck")]
    RestoreStuck,
    /// A slot of a schedule made no backup; `failure` says why.
    #[serde(rename = "Scheduled Backup Skipped")]
    ScheduledBackupSkipped,
    /// Reconciliation found what no row vouches for, or more to delete than it may.
    #[serde(rename = "Orphans Found")]
    OrphansFound,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::BackupRequested,
        Self::BackupStarted,
        Self::BackupCompleted,
        Self::BackupFailed,
        Self::BackupDeleted,
        Self::BackupExpired,
        Self::RestoreRequested,
        Self::RestoreStarted,
        Self::RestoreCompleted,
        Self::RestoreFailed,
        Self::RestoreRolledBack,
        Self::RestoreStuck,
        Self::ScheduledBackupSkipped,
        Self::OrphansFound,
    ];

    /// What the id of its announcement ends with.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::BackupRequested | Self::RestoreRequested => "requested",
            Self::BackupStarted | Self::RestoreStarted => "started",
            Self::BackupCompleted | Self::RestoreCompleted => "completed",
            Self::BackupFailed | Self::RestoreFailed => "failed",
            Self::BackupDeleted => "deleted",
            Self::BackupExpired => "expired",
            Self::RestoreRolledBack => "rolled-back",
            Self::RestoreStuck => "stuck",
            Self::ScheduledBackupSkipped => "skipped",
            Self::OrphansFound => "orphans-found",
        }
    }

    /// The `detail-type`.
    pub const fn detail_type(self) -> &'static str {
        match self {
            Self::BackupRequested => "Backup Requested",
            Self::BackupStarted => "Backup Started",
            Self::BackupCompleted => "Backup Completed",
            Self::BackupFailed => "Backup Failed",
            Self::BackupDeleted => "Backup Deleted",
            Self::BackupExpired => "Backup Expired",
            Self::RestoreRequested => "Restore Requested",
            Self::RestoreStarted => "Restore Started",
            Self::RestoreCompleted => "Restore Completed",
            Self::RestoreFailed => "Restore Failed",
            Self::RestoreRolledBack => "Restore Rolled Back",
            Self::RestoreStuck => "Restore Stuck",
            Self::ScheduledBackupSkipped => "Scheduled Backup Skipped",
            Self::OrphansFound => "Orphans Found",
        }
    }
}

/// An announcement that the bus has not surely taken yet, as the row keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending<S = backup::Status> {
    /// Lets a consumer drop doubles.
    pub announcement_id: Nonce,
    /// What happened.
    pub kind: Kind,
    /// When.
    pub at: Time,
    /// The status that the change led to.
    pub status: S,
    /// Why, for a failure.
    pub failure: Option<Why>,
}

/// The `detail` of an announcement. Null where a field does not apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// The shape's version: 1.
    pub version: u32,
    /// Lets a consumer drop doubles.
    pub announcement_id: Nonce,
    /// Who owns the deployment; None: nobody knows it.
    pub tenant_id: Option<TenantId>,
    /// Which deployment; None: it is about the stack.
    pub deployment_id: Option<DeploymentId>,
    /// Which backup.
    pub backup_id: Option<BackupId>,
    /// Which restore.
    pub restore_id: Option<RestoreId>,
    /// The backup's type.
    pub backup_type: Option<BackupType>,
    /// The one node asked for.
    pub node_id: Option<NodeId>,
    /// The upgrade that asked for the backup.
    pub upgrade_id: Option<String>,
    /// The schedule's slot that made the backup.
    pub schedule_slot: Option<Time>,
    /// The status after the change.
    pub status: Option<String>,
    /// When the change was made.
    pub at: Time,
    /// Why it failed, or was skipped.
    pub failure: Option<Why>,
    /// Of `Orphans Found` alone: how many. Absent from every other kind, whose shape it is
    /// no part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphans: Option<Orphans>,
}

/// What a run of reconciliation found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Orphans {
    /// Snapshots that no row vouches for.
    pub snapshots: u64,
    /// Volumes that no row vouches for.
    pub volumes: u64,
    /// Snapshots and volumes that went, on evidence that nobody needs them.
    pub deleted: u64,
    /// The same that stayed, since one run deletes only so many, and none while an operator
    /// has paused deletions or writes.
    pub withheld: u64,
}

impl Orphans {
    /// How many a person has to look at.
    pub const fn count(&self) -> u64 {
        self.snapshots + self.volumes + self.withheld
    }

    /// Whether anybody has to.
    pub const fn are_worth_telling(&self) -> bool {
        self.count() > 0
    }
}

impl Detail {
    /// What a backup's outbox announces.
    pub fn all_of(backup: &Backup) -> Vec<(Kind, Self)> {
        backup.outbox.iter().map(|one| (one.kind, Self::of(backup, one))).collect()
    }

    /// What a restore's outbox announces.
    pub fn all_of_restore(restore: &Restore) -> Vec<(Kind, Self)> {
        restore.outbox.iter().map(|one| (one.kind, Self::of_restore(restore, one))).collect()
    }

    /// What a schedule's outbox announces.
    pub fn all_of_schedule(schedule: &Schedule) -> Vec<(Kind, Self)> {
        let all = schedule.outbox.iter();
        all.map(|one| (Kind::ScheduledBackupSkipped, Self::of_skipped(schedule, one))).collect()
    }

    /// The detail of a skipped slot's announcement.
    fn of_skipped(schedule: &Schedule, skipped: &Skipped) -> Self {
        Self {
            version: 1,
            announcement_id: skipped.announcement_id.clone(),
            tenant_id: Some(schedule.tenant_id.clone()),
            deployment_id: Some(schedule.deployment_id),
            backup_id: None,
            restore_id: None,
            backup_type: Some(BackupType::Scheduled),
            node_id: skipped.node_id,
            upgrade_id: None,
            schedule_slot: Some(skipped.slot),
            status: Some("skipped".to_owned()),
            at: skipped.at,
            failure: Some(skipped.why.clone()),
            orphans: None,
        }
    }

    /// What an upgrade's outbox announces.
    pub fn all_of_upgrade(upgrade: &Upgrade) -> Vec<(Kind, Self)> {
        upgrade.outbox.iter().map(|one| (one.kind, Self::of_answer(upgrade, one))).collect()
    }

    /// The detail of an answer to the control plane: as the backup itself announces it.
    fn of_answer(upgrade: &Upgrade, answer: &Answer) -> Self {
        let status = if answer.kind == Kind::BackupCompleted {
            backup::Status::Completed
        } else {
            backup::Status::Failed
        };
        Self {
            version: 1,
            announcement_id: answer.announcement_id.clone(),
            tenant_id: upgrade.tenant_id.clone(),
            deployment_id: Some(upgrade.deployment_id),
            backup_id: answer.backup_id,
            restore_id: None,
            backup_type: Some(BackupType::PreUpgrade),
            node_id: None,
            upgrade_id: Some(upgrade.upgrade_id.clone()),
            schedule_slot: None,
            status: Some(status.as_str().to_owned()),
            at: answer.at,
            failure: answer.failure.clone(),
            orphans: None,
        }
    }

    /// What the outbox of reconciliation announces: of no deployment.
    pub fn all_of_reconciliation(row: &Reconciliation) -> Vec<(Kind, Self)> {
        let of = |one: &crate::reconcile::Announced| Self {
            version: 1,
            announcement_id: one.announcement_id.clone(),
            tenant_id: None,
            deployment_id: None,
            backup_id: None,
            restore_id: None,
            backup_type: None,
            node_id: None,
            upgrade_id: None,
            schedule_slot: None,
            status: None,
            at: one.at,
            failure: None,
            orphans: Some(one.orphans),
        };
        row.outbox.iter().map(|one| (Kind::OrphansFound, of(one))).collect()
    }

    /// The detail of a backup's announcement.
    fn of(backup: &Backup, pending: &Pending) -> Self {
        Self {
            version: 1,
            announcement_id: pending.announcement_id.clone(),
            tenant_id: Some(backup.tenant_id.clone()),
            deployment_id: Some(backup.deployment_id),
            backup_id: Some(backup.id),
            restore_id: None,
            backup_type: Some(backup.backup_type),
            node_id: backup.node_id,
            upgrade_id: backup.upgrade_id.clone(),
            schedule_slot: backup.schedule_slot,
            status: Some(pending.status.as_str().to_owned()),
            at: pending.at,
            failure: pending.failure.clone(),
            orphans: None,
        }
    }

    /// The detail of a restore's announcement.
    fn of_restore(restore: &Restore, pending: &Pending<crate::restore::Status>) -> Self {
        Self {
            version: 1,
            announcement_id: pending.announcement_id.clone(),
            tenant_id: Some(restore.tenant_id.clone()),
            deployment_id: Some(restore.deployment_id),
            backup_id: Some(restore.backup_id),
            restore_id: Some(restore.id),
            backup_type: None,
            node_id: None,
            upgrade_id: None,
            schedule_slot: None,
            status: Some(pending.status.as_str().to_owned()),
            at: pending.at,
            failure: pending.failure.clone(),
            orphans: None,
        }
    }
}

/// The `detail` of [`OPERATION_DUE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationDue {
    /// The shape's version: 1.
    pub version: u32,
    /// Whose operation. 0, which no deployment has, for the stack's own.
    pub deployment_id: DeploymentId,
    /// `backup`, `restore`, `upgrade`, or `reconciliation`.
    pub operation: String,
    /// The backup's or the restore's id. 0 of the one that there is of its kind.
    pub id: u64,
    /// The upgrade's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_id: Option<String>,
}

/// The `detail` of [`RESTORE_ORDERED`]. A word that it does not know may be a condition
/// that the operator relies on: an order with one is not obeyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreOrdered {
    /// The shape's version: 1.
    pub version: u32,
    /// By which the answer in the restore's row is found.
    pub order_id: Nonce,
    /// Whose restore.
    pub deployment_id: DeploymentId,
    /// Which.
    pub restore_id: RestoreId,
    /// What is to be done.
    pub order: Order,
}

/// The `detail` of [`ORPHAN_REMOVAL_ORDERED`]. As strict as [`RestoreOrdered`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrphanRemovalOrdered {
    /// The shape's version: 1.
    pub version: u32,
    /// By which the answer is found.
    pub order_id: Nonce,
    /// Snapshots (`snap-…`) and volumes (`vol-…`), 1 to [`ORPHANS_AN_ORDER`].
    pub ids: Vec<String>,
}

/// The `detail` of [`EVENT_REJECTED`]: a rule hands it to the dead-letter queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventRejected {
    /// The shape's version: 1.
    pub version: u32,
    /// Why, as a sentence.
    pub reason: String,
    /// The event as it came; a text if it was no JSON. Of one about a key, or of more than
    /// [`KEPT_WHOLE`] bytes, its id, source, detail-type and time alone; about a key also the
    /// detail's `key_id` and `version`: any other field may hold a secret that somebody has put
    /// there.
    pub event: Value,
}

/// The largest event, in bytes of JSON, that is repeated whole when it is refused. `PutEvents`
/// takes less than 256 KB (EventBridge user guide, "Calculating `PutEvents` event entry size").
pub const KEPT_WHOLE: usize = 200_000;

/// The most characters of a reason: it may quote what was sent.
const REASON: usize = 1_000;

impl EventRejected {
    /// A refusal.
    pub fn new(reason: &str, mut event: Value) -> Self {
        let of_a_key = event["detail-type"] == KEY_CHANGED;
        if of_a_key || event.to_string().len() > KEPT_WHOLE {
            let names = ["id", "source", "detail-type", "time"];
            let mut kept: Value =
                names.map(|name| (name, event[name].clone())).into_iter().collect();
            if of_a_key {
                let (id, version) = (&event["detail"]["key_id"], &event["detail"]["version"]);
                kept["detail"] = json!({
                    "key_id": id.as_str().filter(|id| is_key_id(id)),
                    "version": Some(version).filter(|version| version.is_number()),
                });
            }
            event = kept;
        }
        Self { version: 1, reason: reason.chars().take(REASON).collect(), event }
    }
}

/// How many things one order is about at most: they are gone within one invocation.
pub const ORPHANS_AN_ORDER: usize = 50;

impl OperationDue {
    /// A nudge for a backup.
    pub fn backup(deployment_id: DeploymentId, id: BackupId) -> Self {
        Self {
            version: 1,
            deployment_id,
            operation: "backup".to_owned(),
            id: id.0,
            upgrade_id: None,
        }
    }

    /// A nudge for a restore.
    pub fn restore(deployment_id: DeploymentId, id: RestoreId) -> Self {
        Self {
            version: 1,
            deployment_id,
            operation: "restore".to_owned(),
            id: id.0,
            upgrade_id: None,
        }
    }

    /// A nudge for a backup before an upgrade that waits.
    pub fn upgrade(deployment_id: DeploymentId, id: &str) -> Self {
        let (operation, upgrade_id) = ("upgrade".to_owned(), Some(id.to_owned()));
        Self { version: 1, deployment_id, operation, id: 0, upgrade_id }
    }

    /// A nudge for the stack's reconciliation.
    pub fn reconciliation() -> Self {
        let operation = "reconciliation".to_owned();
        Self { version: 1, deployment_id: DeploymentId(0), operation, id: 0, upgrade_id: None }
    }
}
