//! Whether a restore may begin, and the row that it starts as.

use super::{Launch, Node, Restore, Start, Status};
use crate::announce::Kind;
use crate::backup::{self, Backup, BackupType};
use crate::create::{self, NewBackup, Room};
use crate::deployment::{self, Deployment};
use crate::error::{Code, Refusal};
use crate::id::{BackupId, Nonce, RestoreId};
use crate::limits::Limits;
use crate::refusals;
use crate::time::Time;

/// The body of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// Leave alone the volumes of nodes that the backup does not have.
    pub allow_partial: bool,
    /// Back up the present state first.
    pub safety_backup: bool,
}

/// The new row, and that of the backup that goes first with the room that it needs, or why
/// not. The order of the checks is the contract's.
///
/// # Errors
/// The first rule that refuses.
pub fn decide(
    deployment: &Deployment,
    backup: Option<&Backup>,
    asked: Asked,
    limits: &Limits,
    tokens: [Nonce; 2],
    now: Time,
) -> Result<(Restore, Option<(Backup, Room)>), Refusal> {
    let id = RestoreId(deployment.next_restore_id);
    let [token, safety_token] = tokens;
    let safety = NewBackup {
        name: format!("before restore {id}"),
        node_id: None,
        backup_type: BackupType::Manual,
        remarks: None,
        expires_in_days: None,
    };
    // Plan, storage, and readiness are those of a create; so is what runs already, and
    // of a safety backup the limit.
    let safety = match create::decide(deployment, safety, limits, safety_token, now) {
        Ok(safety) => asked.safety_backup.then_some(safety),
        Err(refusal) if refusal.code == Code::BackupLimitReached && !asked.safety_backup => None,
        Err(refusal) => return Err(after_not_found(backup, refusal)),
    };
    let backup = backup.ok_or_else(refusals::no_backup)?;
    let nodes = matched(deployment, backup, asked)?;
    let mut restore = Restore {
        deployment_id: deployment.deployment_id,
        id,
        tenant_id: deployment.registry.tenant_id.clone(),
        region: deployment.registry.region.clone(),
        backup_id: backup.id,
        safety_backup_id: safety.as_ref().map(|(safety, _)| safety.id),
        requested_at: now,
        token: token.clone(),
        revision: 1,
        nonce: token,
        lease: None,
        status: Status::Pending,
        phase: None,
        reached: None,
        progress: 0,
        nodes,
        planned: false,
        frozen_at: None,
        touched_at: None,
        disturbed: false,
        back: false,
        committed: false,
        acted_at: None,
        unseen_since: None,
        stopped_at: None,
        launched_at: None,
        started_at: None,
        completed_at: None,
        failure: None,
        answers: Vec::new(),
        was_stuck: false,
        leftovers: Vec::new(),
        old_volumes_kept_until: None,
        sweep_until: None,
        troubles: 0,
        trouble: None,
        not_before: None,
        outbox: Vec::new(),
        due_at: None,
    };
    restore.announce(Kind::RestoreRequested, now);
    Ok((restore, safety))
}

/// That there is no such backup is told before what runs and what the limit is.
fn after_not_found(backup: Option<&Backup>, refusal: Refusal) -> Refusal {
    let later = [Code::RestoreInProgress, Code::BackupInProgress, Code::BackupLimitReached];
    if backup.is_none() && later.contains(&refusal.code) { refusals::no_backup() } else { refusal }
}

/// The deployment's nodes, and which of them the backup has.
fn matched(deployment: &Deployment, backup: &Backup, asked: Asked) -> Result<Vec<Node>, Refusal> {
    let refuse = |reason: String| Err(Refusal::new(Code::BackupNotRestorable, reason));
    if backup.status != backup::Status::Completed {
        return Err(refusals::not_completed(backup.id, backup.status));
    }
    let nodes = &deployment.registry.nodes;
    let left = backup.nodes.iter().find(|run| !nodes.iter().any(|now| now.node_id == run.node_id));
    if let Some(left) = left {
        return refuse(format!(
            "Node {} of backup {} is not in the deployment any more. Restore a backup of the nodes that it has, or bring the node back.",
            left.node_id, backup.id
        ));
    }
    let has = |node: &deployment::Node| backup.nodes.iter().any(|run| run.node_id == node.node_id);
    // A backup of one node is of that node; of all nodes, each must be in it.
    let joined = nodes.iter().find(|node| !has(node));
    if let Some(joined) = joined.filter(|_| backup.node_id.is_none() && !asked.allow_partial) {
        return refuse(format!(
            "Node {} joined after backup {}: its data would not be the others'. Send `\"allow_partial\": true` to leave its volumes alone.",
            joined.node_id, backup.id
        ));
    }
    let node = |node: &deployment::Node| Node {
        aside: Vec::new(),
        progress: 0,
        node_id: node.node_id,
        instance_id: node.instance_id.clone(),
        swaps: has(node),
        checked: false,
        was_running: None,
        launched_at: None,
        old: Vec::new(),
        new: Vec::new(),
        launch: Launch::No,
        start: Start::default(),
        missing: false,
    };
    Ok(nodes.iter().map(node).collect())
}

/// The id of the backup that a running restore has pinned, as a refusal of its delete.
pub(crate) fn pinned(id: BackupId, by: RestoreId) -> Refusal {
    Refusal::new(
        Code::RestoreInProgress,
        format!("Restore {by} needs backup {id}; wait until it is over, then delete it."),
    )
}
