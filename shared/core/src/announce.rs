//! Announcements: what automation listens to on the stack's bus.
//!
//! One is written into its operation's row by the very write that makes the
//! change, and taken out after the bus has accepted it: at least once, with an
//! id by which a consumer drops doubles.

use serde::{Deserialize, Serialize};

use crate::backup::{Backup, BackupType, Failure, Status};
use crate::id::{BackupId, DeploymentId, NodeId, Nonce, TenantId};
use crate::time::Time;

/// `source` of everything we put on the bus.
pub const SOURCE: &str = "supervisor.backups";

/// `detail-type` of the internal nudge: "look at this operation now".
pub const OPERATION_DUE: &str = "Operation Due";

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
    ];

    /// The `detail-type`.
    pub const fn detail_type(self) -> &'static str {
        match self {
            Self::BackupRequested => "Backup Requested",
            Self::BackupStarted => "Backup Started",
            Self::BackupCompleted => "Backup Completed",
            Self::BackupFailed => "Backup Failed",
            Self::BackupDeleted => "Backup Deleted",
            Self::BackupExpired => "Backup Expired",
        }
    }
}

/// An announcement that the bus has not surely taken yet, as the row keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Lets a consumer drop doubles.
    pub announcement_id: Nonce,
    /// What happened.
    pub kind: Kind,
    /// When.
    pub at: Time,
    /// The status that the change led to.
    pub status: Status,
    /// Why, for a failure.
    pub failure: Option<Failure>,
}

/// The `detail` of an announcement. Null where a field does not apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// The shape's version: 1.
    pub version: u32,
    /// Lets a consumer drop doubles.
    pub announcement_id: Nonce,
    /// Who owns the deployment.
    pub tenant_id: TenantId,
    /// Which deployment.
    pub deployment_id: DeploymentId,
    /// Which backup.
    pub backup_id: Option<BackupId>,
    /// Which restore.
    pub restore_id: Option<u64>,
    /// The backup's type.
    pub backup_type: Option<BackupType>,
    /// The one node asked for.
    pub node_id: Option<NodeId>,
    /// The upgrade that asked for the backup.
    pub upgrade_id: Option<String>,
    /// The schedule's slot that made the backup.
    pub schedule_slot: Option<Time>,
    /// The status after the change.
    pub status: Option<Status>,
    /// When the change was made.
    pub at: Time,
    /// Why it failed.
    pub failure: Option<Failure>,
}

impl Detail {
    /// The detail of a backup's announcement.
    pub fn of(backup: &Backup, pending: &Pending) -> Self {
        Self {
            version: 1,
            announcement_id: pending.announcement_id.clone(),
            tenant_id: backup.tenant_id.clone(),
            deployment_id: backup.deployment_id,
            backup_id: Some(backup.id),
            restore_id: None,
            backup_type: Some(backup.backup_type),
            node_id: backup.node_id,
            upgrade_id: None,
            schedule_slot: None,
            status: Some(pending.status),
            at: pending.at,
            failure: pending.failure.clone(),
        }
    }
}

/// The `detail` of [`OPERATION_DUE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationDue {
    /// The shape's version: 1.
    pub version: u32,
    /// Whose operation.
    pub deployment_id: DeploymentId,
    /// `backup`.
    pub operation: String,
    /// The backup's id.
    pub id: u64,
}

impl OperationDue {
    /// A nudge for a backup.
    pub fn backup(deployment_id: DeploymentId, id: BackupId) -> Self {
        Self { version: 1, deployment_id, operation: "backup".to_owned(), id: id.0 }
    }
}
