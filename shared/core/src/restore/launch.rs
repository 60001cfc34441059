//! What became of a start: whether a node may have run, and so have written to its
//! volumes, since the first start. As long as none may have, the way back is open.

use serde::{Deserialize, Serialize};

use super::sets::has_of_side;
use super::turns::SHOWN;
use super::{Machine, Node, Outcome, Phase, Restore, Seen};
use crate::id::InstanceId;
use crate::limits::VISIBLE;
use crate::operation::{CallError, backoff, is_full};
use crate::time::{Seconds, Time};

/// Whether a node may have run, and so written, since the first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Launch {
    /// Surely not.
    #[default]
    No,
    /// Its start was asked for, and what became of it is not known.
    Maybe,
    /// It was seen running.
    Yes,
}

/// The starts of a node, as far as EC2 cannot be asked about them afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Start {
    /// When it was last asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Time>,
    /// Whether EC2 said what became of that.
    pub answered: bool,
    /// The last one before it that EC2 did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unanswered_at: Option<Time>,
    /// It is not to be asked for again before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// How often it was refused in a row.
    pub refusals: u32,
    /// The last time for want of capacity: no deadline runs until it is asked for again.
    pub full: bool,
    /// Since when the node should run and does not, for another cause than that AWS is
    /// full: its deadline's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overdue_since: Option<Time>,
}

/// A start that was refused for want of capacity is asked for again after at most this:
/// with the tick that comes back to it, every two minutes.
const CAPACITY_EVERY: Seconds = Seconds(45);

/// Whether an instance's state reason says that EC2 itself gave its launch up: the
/// operating system never ran.
/// Source: EC2 user guide, "Troubleshoot instance launch issues" (`Client.InternalError`:
/// an encrypted volume whose key cannot be used).
fn never_launched(reason: &str) -> bool {
    is_full(reason)
        || matches!(
            reason,
            "Client.InternalError"
                | "Client.InvalidSnapshot.NotFound"
                | "Client.VolumeLimitExceeded"
                | "Server.InternalError"
        )
}

impl Start {
    /// Another direction, or an operator's word: it may be asked for at once, and the
    /// deadline counts anew. What is not known of earlier ones stays so.
    pub(super) fn anew(&mut self) {
        (self.not_before, self.refusals, self.overdue_since) = (None, 0, None);
    }

    /// It is about to be asked for: until EC2 answers, it may have been.
    pub(super) fn ask(&mut self, now: Time) {
        if !self.answered {
            self.unanswered_at = self.asked_at.or(self.unanswered_at);
        }
        self.asked_at = Some(now);
        (self.answered, self.full) = (false, false);
        // After two without an answer it is waited for until it would show: else what
        // became of them would never be known.
        let pause = if self.unanswered_at.is_some() { VISIBLE } else { SHOWN };
        self.not_before = Some(now + pause);
    }

    /// Whether one that EC2 did not answer may still show.
    pub(super) fn is_open(&self, now: Time) -> bool {
        self.open().is_some_and(|at| now - at < VISIBLE)
    }

    /// The last one that EC2 did not answer.
    fn open(&self) -> Option<Time> {
        if self.answered { self.unanswered_at } else { self.asked_at.or(self.unanswered_at) }
    }

    /// It surely did not lead to a launch.
    fn refused(&mut self, full: bool, now: Time) {
        self.asked_at = None;
        self.refusals = self.refusals.saturating_add(1);
        self.not_before = Some(now + backoff(self.refusals).min(CAPACITY_EVERY));
        self.full = full;
        if full {
            self.overdue_since = None;
        }
    }

    /// Whether it was last asked for so long ago.
    fn asked(&self, span: Seconds, now: Time) -> bool {
        self.asked_at.is_some_and(|at| now - at >= span)
    }
}

/// Notes what was seen of the nodes that cannot be seen again: that one is gone, that one
/// has run, that one was down.
pub(super) fn observe(restore: &mut Restore, seen: &Seen, now: Time) {
    let starting = restore.phase == Some(Phase::Starting);
    let mut said = None;
    for node in &mut restore.nodes {
        let Some(machine) = seen.instances.get(&node.instance_id) else { continue };
        node.missing |= machine.is_gone();
        restore.disturbed |= node.ran() && machine.state != "running";
        if machine.state == "running" {
            node.start = Start::default();
        } else if starting && node.ran() && !node.missing && !node.start.full {
            node.start.overdue_since = node.start.overdue_since.or(Some(now));
        }
        let holds_new = has_of_side(node, machine, false);
        match machine.state.as_str() {
            "running" if holds_new => node.launch = Launch::Yes,
            "pending" if holds_new => node.launch = node.launch.max(Launch::Maybe),
            "stopped" => said = stopped(node, machine, now).or(said),
            _ => {}
        }
    }
    if let Some(said) = said {
        restore.trouble = Some(format!("a start ended with {said}"));
    }
}

/// What a node that stands tells of the starts that were asked for. Gives the reason, if
/// EC2 itself gave the last one up.
fn stopped(node: &mut Node, machine: &Machine, now: Time) -> Option<String> {
    let start = &mut node.start;
    let reason = machine.state_reason.as_deref().filter(|reason| never_launched(reason));
    if let Some(reason) = reason
        && start.asked(SHOWN, now)
    {
        // Of one before it that nobody heard of the reason tells nothing.
        if start.unanswered_at.is_none() && node.launch == Launch::Maybe {
            node.launch = Launch::No;
        }
        start.answered = true;
        start.refused(is_full(reason), now);
        return Some(reason.to_owned());
    }
    // What EC2 took shows by now; if the node was last launched when it was before the
    // restore, it took none of them.
    let shown = start.asked_at.is_none() || start.asked(SHOWN, now);
    if let Some(open) = start.open()
        && now - open >= VISIBLE
        && shown
    {
        let before = machine.launched_at.is_some() && machine.launched_at == node.launched_at;
        if before {
            (start.asked_at, start.unanswered_at) = (None, None);
        }
        if node.launch == Launch::Maybe && before {
            node.launch = Launch::No;
        }
    }
    None
}

/// A start that was asked for.
pub(super) fn started(restore: &mut Restore, id: &InstanceId, outcome: &Outcome, now: Time) {
    for node in restore.nodes.iter_mut().filter(|node| node.instance_id == *id) {
        let start = &mut node.start;
        // The row may be newer than the call, and know what became of it.
        if start.answered || start.asked_at.is_none() {
            continue;
        }
        match outcome {
            Outcome::Failed(CallError::Unknown(_)) => continue,
            Outcome::Done | Outcome::Created(_) => {
                start.answered = true;
                continue;
            }
            Outcome::Failed(CallError::Rejected { code, .. }) => {
                start.refused(is_full(code), now);
            }
            Outcome::NotBegun
            | Outcome::Failed(CallError::NotApplied(_) | CallError::Throttled { .. }) => {
                (start.asked_at, start.not_before) = (None, None);
            }
        }
        start.answered = true;
        if start.unanswered_at.is_none() && node.launch == Launch::Maybe {
            node.launch = Launch::No;
        }
    }
}
