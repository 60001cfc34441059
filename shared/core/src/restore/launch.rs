//! What became of a start: whether a node may have run, and so have written to its
//! volumes, since the first start. As long as none may have, the way back is open.

use super::{Launch, Node, Outcome, Restore, Seen, Status};
use crate::id::InstanceId;
use crate::limits::VISIBLE;
use crate::operation::{CallError, backoff};
use crate::time::{Seconds, Time};

/// A start that was refused for want of capacity is asked for again after at most this:
/// with the tick that comes back to it, every two minutes.
pub(super) const CAPACITY_EVERY: Seconds = Seconds(45);

/// A start that EC2 has just taken may not show yet.
pub(super) const SHOWS: Seconds = Seconds(15);

/// Codes of a start that may be granted later: AWS is full.
/// Source: EC2 API reference, "Error codes"; EC2 user guide, "Troubleshoot instance
/// launch issues".
const CAPACITY: &[&str] = &[
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "InsufficientCapacity",
    "Server.InsufficientInstanceCapacity",
    "Server.InsufficientHostCapacity",
    "Server.InsufficientCapacity",
];

/// Whether an instance's state reason says that EC2 itself gave its launch up: the
/// operating system never ran.
/// Source: EC2 user guide, "Troubleshoot instance launch issues" (`Client.InternalError`:
/// an encrypted volume whose key cannot be used).
fn never_launched(reason: Option<&str>) -> bool {
    reason.is_some_and(|reason| {
        CAPACITY.contains(&reason)
            || matches!(
                reason,
                "Client.InternalError"
                    | "Client.InvalidSnapshot.NotFound"
                    | "Client.VolumeLimitExceeded"
                    | "Server.InternalError"
            )
    })
}

/// Notes what was seen of the nodes that cannot be seen again: that one is gone, that one
/// has run.
pub(super) fn observe(restore: &mut Restore, seen: &Seen, now: Time) {
    let (mut refused, mut said) = (false, None);
    for node in &mut restore.nodes {
        let Some(machine) = seen.instances.get(&node.instance_id) else { continue };
        node.missing |= machine.is_gone();
        let holds_new = machine
            .attached
            .iter()
            .any(|one| node.new.iter().any(|new| new.volume_id.as_ref() == Some(&one.volume_id)));
        let runs = matches!(machine.state.as_str(), "running" | "pending");
        if machine.state == "running" {
            (node.start_asked_at, node.start_refusals) = (None, 0);
        }
        if machine.state == "running" && holds_new {
            node.launch = Launch::Yes;
        } else if runs && holds_new {
            node.launch = node.launch.max(Launch::Maybe);
        } else if machine.state == "stopped" && asked(node, SHOWS, now) {
            // EC2 itself says what became of the start: it gave it up.
            let reason = machine.state_reason.as_deref();
            if never_launched(reason) {
                gave_up(node, now);
                let full = reason.is_some_and(|reason| CAPACITY.contains(&reason));
                refused |= !full;
                said = reason.map(str::to_owned);
            } else if node.launch == Launch::Maybe && asked(node, VISIBLE, now) {
                // Or it never took it: then it was last launched when it was before.
                let before =
                    machine.launched_at.is_some() && machine.launched_at == node.launched_at;
                node.launch = if before { Launch::No } else { Launch::Yes };
            }
        }
    }
    if refused {
        restore.refused_since = restore.refused_since.or(Some(now));
    }
    if let Some(said) = said {
        restore.trouble = Some(format!("a start ended with {said}"));
    }
}

/// Whether the node's start was last asked for so long ago.
fn asked(node: &Node, span: Seconds, now: Time) -> bool {
    node.start_asked_at.is_some_and(|at| now - at >= span)
}

/// EC2 gave the node's start up: it is asked for again, later each time.
fn gave_up(node: &mut Node, now: Time) {
    if node.launch == Launch::Maybe {
        node.launch = Launch::No;
    }
    node.start_asked_at = None;
    node.start_refusals = node.start_refusals.saturating_add(1);
    node.start_not_before = Some(now + backoff(node.start_refusals).min(CAPACITY_EVERY));
}

/// A start that was asked for.
pub(super) fn started(restore: &mut Restore, id: &InstanceId, outcome: &Outcome, now: Time) {
    let forward = restore.status == Status::InProgress;
    let mut refused = None;
    for node in restore.nodes.iter_mut().filter(|node| node.instance_id == *id) {
        match outcome {
            Outcome::Failed(CallError::Rejected { code, .. }) => {
                // Full: it stood when it was asked for. Of another refusal the cause may
                // be that an earlier start, of which nobody heard, was taken.
                if node.launch == Launch::Maybe && forward && CAPACITY.contains(&code.as_str()) {
                    node.launch = Launch::No;
                }
                node.start_refusals = node.start_refusals.saturating_add(1);
                let pause = backoff(node.start_refusals).min(CAPACITY_EVERY);
                node.start_not_before = Some(now + pause);
                refused = Some(CAPACITY.contains(&code.as_str()));
            }
            Outcome::NotBegun => {
                node.start_not_before = None;
                if node.launch == Launch::Maybe && forward {
                    node.launch = Launch::No;
                }
            }
            _ => {}
        }
    }
    if refused == Some(false) {
        restore.refused_since = restore.refused_since.or(Some(now));
    }
}
