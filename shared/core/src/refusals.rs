//! The sentences of refusals that more than one place says, or that the API document shows.

use crate::backup::Status;
use crate::error::{Code, Refusal};
use crate::id::{BackupId, NodeId, RestoreId};

/// `deployment_not_found`: one reply for what is not there and for what the key may not see.
pub fn no_deployment() -> Refusal {
    let reason = "There is no such deployment, or the key may not see it.";
    Refusal::new(Code::DeploymentNotFound, reason)
}

/// `backup_not_found`.
pub fn no_backup() -> Refusal {
    Refusal::new(Code::BackupNotFound, "The deployment has no such backup.")
}

/// `restore_not_found`.
pub fn no_restore() -> Refusal {
    Refusal::new(Code::RestoreNotFound, "The deployment has no such restore.")
}

/// `schedule_not_found`.
pub fn no_schedule() -> Refusal {
    Refusal::new(Code::ScheduleNotFound, "The deployment has no schedule.")
}

/// `node_not_found`.
pub fn no_node(id: NodeId) -> Refusal {
    Refusal::new(Code::NodeNotFound, format!("The deployment has no node {id}."))
}

/// `plan_not_supported`.
pub fn no_plan() -> Refusal {
    Refusal::new(Code::PlanNotSupported, "Backups need the Pro or Enterprise plan.")
}

/// `deployment_not_ready`: it has another status than `initialized`.
pub fn not_ready(status: &str) -> Refusal {
    let reason = format!("The deployment is `{status}`; wait until it is `initialized`.");
    Refusal::new(Code::DeploymentNotReady, reason)
}

/// `backup_in_progress`.
pub fn backup_runs(id: BackupId) -> Refusal {
    let reason = format!("Backup {id} is running; wait until it is completed or failed.");
    Refusal::new(Code::BackupInProgress, reason)
}

/// `restore_in_progress`.
pub fn restore_runs(id: RestoreId) -> Refusal {
    let reason = format!("Restore {id} is running; wait until it is over.");
    Refusal::new(Code::RestoreInProgress, reason)
}

/// `backup_limit_reached`.
pub fn full(count: u64, limit: u64) -> Refusal {
    let backups = if count == 1 { "backup" } else { "backups" };
    let reason =
        format!("The deployment has {count} {backups} and its limit is {limit}; delete one first.");
    Refusal::new(Code::BackupLimitReached, reason)
}

/// `backup_not_restorable`, for its status.
pub fn not_completed(id: BackupId, status: Status) -> Refusal {
    let status = status.as_str();
    let reason = format!("Backup {id} is {status}: only a completed one can be restored.");
    Refusal::new(Code::BackupNotRestorable, reason)
}

/// `backup_not_deletable`, for its status.
pub fn not_deletable(id: BackupId, status: Status) -> Refusal {
    let status = status.as_str();
    let reason =
        format!("Backup {id} is {status}: wait until it is completed or failed, then delete it.");
    Refusal::new(Code::BackupNotDeletable, reason)
}

/// `backup_deleting`.
pub fn is_deleting(id: BackupId) -> Refusal {
    let reason = format!("Backup {id} is being deleted, and cannot be changed.");
    Refusal::new(Code::BackupDeleting, reason)
}

/// `storage_not_supported`, for the kind of storage.
pub fn other_storage(kind: &str) -> Refusal {
    let reason = format!("Backups need network storage; this deployment has `{kind}`.");
    Refusal::new(Code::StorageNotSupported, reason)
}
