//! The outcome of calls, put into the row that announced them.

use super::pending::{in_order, start_if_taken, throttle_pause};
use super::{Action, Backup, Held, NodeRun, Outcome, SWEEP, Status, Take};
use crate::brake::Hold;
use crate::id::NodeId;
use crate::operation::{CallError, Failure, FailureCode, RIGHTS, backoff};
use crate::time::{Seconds, Time};

/// Puts the outcomes of `actions` into `backup`: the intent as stored, or a
/// newer row if somebody else wrote in between (a reply is merged, never dropped).
pub fn apply(backup: &mut Backup, outcomes: &[(Action, Outcome)], now: Time) {
    let mut throttled = false;
    let mut troubled = false;
    let mut deletes = 0;
    let mut held = None;
    let mut refused = None;
    for (action, outcome) in outcomes {
        if let Outcome::Failed(error) = outcome {
            backup.trouble = Some(error.shown());
            throttled |= matches!(error, CallError::Throttled { .. });
            troubled = true;
        }
        match action {
            Action::CreateSnapshots { node_id, attempt, .. } => {
                let in_a_row = backup.troubles.saturating_add(1);
                let fault = created(backup, *node_id, *attempt, outcome, in_a_row, now);
                refused = refused.or(fault);
            }
            Action::DeleteSnapshot(id) => {
                deletes += 1;
                let taken = backup.snapshots_mut().find(|taken| taken.snapshot_id == *id);
                if let Some(taken) = taken {
                    taken.asked |= *outcome == Outcome::Deleted;
                }
                if let Outcome::Failed(CallError::Rejected { code, message }) = outcome {
                    held = Some(hold(id.as_str(), code, message));
                }
            }
        }
    }
    if throttled && backup.status == Status::Pending {
        backup.throttled_since = backup.throttled_since.or(Some(now));
    } else {
        // Of a pause the step before this call knew.
        backup.count_throttled(&Hold::default(), now);
    }
    backup.troubles = if troubled { backup.troubles.saturating_add(1) } else { 0 };
    if deletes == outcomes.len() && deletes > 0 {
        pause_removal(backup, held, now);
    }
    match refused {
        Some((code, reason)) if backup.status == Status::Pending => backup.fail(code, reason, now),
        _ => {
            start_if_taken(backup, now);
        }
    }
}

/// One node's `CreateSnapshots`. Gives the failure that ends the backup, if it is one.
fn created(
    backup: &mut Backup,
    node_id: NodeId,
    attempt: u32,
    outcome: &Outcome,
    troubles: u32,
    now: Time,
) -> Option<(FailureCode, String)> {
    let unknown = matches!(outcome, Outcome::Failed(CallError::Unknown(_)));
    let index = backup.nodes.iter().position(|node| {
        node.node_id == node_id
            && matches!(&node.take, Take::Called { attempt: stored, .. } if *stored == attempt)
    });
    let Some(node) = index.and_then(|index| backup.nodes.get_mut(index)) else {
        // The row no longer waits for this call: what it made is looked for by tag.
        if unknown || matches!(outcome, Outcome::Created(_)) {
            backup.sweep_until = backup.sweep_until.max(Some(now + SWEEP));
        }
        return None;
    };
    let mut sweep = false;
    let fault = match outcome {
        Outcome::Created(made) => {
            backup.taken_at = Some(now);
            sweep = !adopt(node, attempt, made, now);
            if sweep {
                backup.trouble =
                    Some("the node's volumes changed while they were snapshotted".to_owned());
            }
            None
        }
        Outcome::NotBegun => {
            node.take = Take::Open { attempt, not_before: None };
            None
        }
        Outcome::Deleted => None,
        Outcome::Failed(CallError::Unknown(_)) => {
            if let Take::Called { at, .. } = &mut node.take {
                *at = now;
            }
            sweep = true;
            None
        }
        Outcome::Failed(CallError::Throttled { code }) => {
            let pause = throttle_pause(code, troubles);
            node.take = Take::Open { attempt, not_before: Some(now + pause) };
            None
        }
        Outcome::Failed(CallError::Rejected { code, .. }) if PASSING.contains(&code.as_str()) => {
            node.failed_calls = node.failed_calls.saturating_add(1);
            node.take = Take::Open { attempt, not_before: Some(now + backoff(troubles)) };
            None
        }
        Outcome::Failed(CallError::NotApplied(_)) => {
            node.failed_calls = node.failed_calls.saturating_add(1);
            node.take = Take::Open { attempt, not_before: Some(now + backoff(troubles)) };
            None
        }
        Outcome::Failed(CallError::Rejected { code, message }) => {
            node.take = Take::Open { attempt, not_before: None };
            Some(refusal(node, code, message))
        }
    };
    if sweep {
        backup.sweep_until = backup.sweep_until.max(Some(now + SWEEP));
    }
    fault
}

/// Takes the reply's set, if it has exactly the volumes that were planned.
fn adopt(node: &mut NodeRun, attempt: u32, made: &[super::Taken], now: Time) -> bool {
    let Take::Called { volumes, .. } = &node.take else { return false };
    if let Some(set) = in_order(volumes, made) {
        node.take = Take::Taken { attempt, set };
        true
    } else {
        // A volume came or went between the look and the call. The set is not
        // what the row says: it goes as a stray, and the node is looked at anew.
        node.failed_calls = node.failed_calls.saturating_add(1);
        // Not at once: an attachment takes seconds to come or go.
        let pause = backoff(node.failed_calls + 1);
        node.take = Take::Open { attempt, not_before: Some(now + pause) };
        false
    }
}

/// Refusals that may pass by themselves: an instance on its way between two
/// states, credentials that were just renewed. They count as attempts.
const PASSING: &[&str] = &[
    "IncorrectState",
    "IncorrectInstanceState",
    "RequestExpired",
    "ExpiredToken",
    "RequestTimeTooSkewed",
];

/// What a refusal of `CreateSnapshots` means for the backup.
/// Source of the codes: EC2 API reference, "Error codes".
fn refusal(node: &NodeRun, code: &str, message: &str) -> (FailureCode, String) {
    let (kind, advice) = match code {
        _ if RIGHTS.contains(&code) => (
            FailureCode::PermissionDenied,
            "Give the worker's role the right (template.yaml) and look for a policy that denies it.",
        ),
        "InvalidInstanceID.NotFound" | "InvalidInstanceID.Malformed" => (
            FailureCode::NodeMissing,
            "When the deployment has its node back, create the backup again.",
        ),
        "SnapshotLimitExceeded" | "ResourceLimitExceeded" => (
            FailureCode::Quota,
            "Delete snapshots that nobody needs, or ask AWS to raise the quota.",
        ),
        _ if code.contains("KMS") || code.contains("Kms") => (
            FailureCode::KmsUnavailable,
            "Look at the volume's KMS key: it must be enabled, and the worker's role allowed to use it.",
        ),
        _ => (FailureCode::SnapshotFailed, "Mend what AWS names, then create the backup again."),
    };
    let said = shown(code, message);
    let reason = format!(
        "Node {} ({}): AWS refused CreateSnapshots with {said} {advice}",
        node.node_id, node.instance_id
    );
    (kind, reason)
}

/// What a refusal of `DeleteSnapshot` means: the removal is held, not over.
fn hold(id: &str, code: &str, message: &str) -> Failure {
    let (kind, advice) = match code {
        "InvalidSnapshot.InUse" => (
            FailureCode::SnapshotInUse,
            "Deregister the AMI that uses it; the removal goes on by itself.",
        ),
        "OperationNotPermitted" => (
            FailureCode::SnapshotLocked,
            "Unlock it, or wait until its lock ends; the removal goes on by itself.",
        ),
        _ if RIGHTS.contains(&code) => (
            FailureCode::PermissionDenied,
            "Give the worker's role the right to delete it; the removal goes on by itself.",
        ),
        _ => (FailureCode::SnapshotFailed, "The removal is tried again by itself."),
    };
    Failure {
        code: kind,
        reason: format!("Snapshot {id} cannot be deleted: {} {advice}", shown(code, message)),
    }
}

/// What a tenant may read of a refusal.
fn shown(code: &str, message: &str) -> String {
    CallError::Rejected { code: code.to_owned(), message: message.to_owned() }.shown()
}

/// What it means that AWS refuses to show what is to be deleted.
pub(super) fn cannot_look(code: &str) -> Failure {
    Failure {
        code: FailureCode::PermissionDenied,
        reason: format!(
            "The snapshots cannot be looked at: AWS answers {code}. Give the worker's role the right (template.yaml); the removal goes on by itself."
        ),
    }
}

impl Backup {
    /// A removal is held: says why while deleting, and gives the pause, 1 min
    /// doubled up to hourly.
    pub(super) fn hold(&mut self, failure: Failure) -> Seconds {
        let times = self.held.as_ref().map_or(1, |held| held.times.saturating_add(1));
        if self.status == Status::Deleting {
            self.failure = Some(failure.clone());
        }
        self.held = Some(Held { failure, times });
        Seconds((60_i64 << times.saturating_sub(1).min(6)).min(3600))
    }

    /// AWS does not throttle us any more: what it cost is written down.
    pub(super) fn count_throttled(&mut self, hold: &Hold, now: Time) {
        if let Some(since) = self.throttled_since.take() {
            // Time in which an operator has paused writes is left out elsewhere.
            self.throttled = self.throttled + hold.passed(since, now);
        }
    }
}

/// After a round of deletes: when to look again.
fn pause_removal(backup: &mut Backup, held: Option<Failure>, now: Time) {
    backup.rounds = backup.rounds.saturating_add(1);
    let pause = if let Some(failure) = held {
        backup.hold(failure)
    } else {
        if backup.held.take().is_some() && backup.status == Status::Deleting {
            backup.failure = None;
        }
        // EC2 lists what it has agreed to delete for some seconds: to look at
        // once would be to ask again for all of it.
        backoff(backup.troubles.max(backup.rounds.saturating_add(1))).min(Seconds(60))
    };
    if backup.status.active() {
        // Strays never hold up the backup itself.
        backup.strays_not_before = Some(now + pause);
    } else {
        backup.not_before = Some(now + pause);
    }
}
