//! The turns of a restore: from phase to phase, back, and to where a person has to look;
//! and the clock of its deadlines.

use super::{Phase, Restore, Seen, Status, end};
use crate::announce::Kind;
use crate::brake::Hold;
use crate::limits::Limits;
use crate::operation::{Failure, FailureCode, backoff};
use crate::time::{Seconds, Time};

/// One that is so late for its row was away: a tick comes each minute.
const AWAY: Seconds = Seconds::minutes(3);

/// For so long after a call a describe may show what was before it (EC2 API reference,
/// "Eventual consistency": seconds).
pub(super) const SHOWN: Seconds = Seconds(15);

impl Restore {
    /// Says what it is at, and dates a phase that is further than any before in this
    /// direction: a node that somebody starts in the middle does not reset a deadline. Of
    /// the last phase, which may last for days, one steps back with a clock of its own.
    pub(super) fn at(&mut self, phase: Phase, now: Time) {
        self.phase = Some(phase);
        let dated = |furthest: Phase| furthest >= phase && furthest != Phase::Starting;
        let same = self.reached.is_some_and(|(furthest, _)| furthest == phase);
        if !same && !self.reached.is_some_and(|(furthest, _)| dated(furthest)) {
            self.reached = Some((phase, now));
        }
    }

    /// Nobody came when it was due: that time counts towards no deadline of the downtime,
    /// for nothing was tried in it. False: somebody did.
    pub(super) fn excuse(&mut self, hold: &Hold, now: Time) -> bool {
        let Some(due) = self.due_at.filter(|due| now - *due >= AWAY) else { return false };
        self.due_at = Some(now);
        let away = hold.passed(due, now);
        self.unseen_since = self.unseen_since.map(|at| hold.later(at, away, now));
        self.spare(away, hold, now);
        true
    }

    /// So much time counts towards no deadline. In it no pause is counted: that is left out
    /// of every deadline already, and must still be found in what is left of this one.
    fn spare(&mut self, span: Seconds, hold: &Hold, now: Time) {
        let later = |at: Time| hold.later(at, span, now);
        self.reached = self.reached.map(|(phase, at)| (phase, later(at)));
        for node in &mut self.nodes {
            node.start.overdue_since = node.start.overdue_since.map(later);
        }
    }

    /// EC2 does not show what must be seen: nothing is decided, and nothing is overdue.
    pub(super) fn is_unseen(&mut self, why: String, now: Time) {
        self.unseen_since = self.unseen_since.or(Some(now));
        self.trouble = Some(why);
        self.troubles = self.troubles.saturating_add(1);
    }

    /// How long to wait after a trouble: not for minutes from the freeze to the end, when
    /// somebody is down or about to be.
    pub(super) fn pause(&self) -> Seconds {
        let pause = backoff(self.troubles);
        let moves = matches!(self.status, Status::InProgress | Status::RollingBack);
        let soon = moves && self.frozen_at.is_some();
        if soon { pause.min(Seconds(10)) } else { pause }
    }

    /// EC2 shows all again.
    pub(super) fn is_seen(&mut self, hold: &Hold, now: Time) {
        if let Some(since) = self.unseen_since.take() {
            self.spare(hold.passed(since, now), hold, now);
            self.troubles = 0;
        }
    }

    /// Since when it is in the furthest phase.
    pub(super) fn since(&self, now: Time) -> Time {
        self.reached.map_or(now, |(_, at)| at)
    }

    /// Into another direction: its clocks count anew.
    fn turn(&mut self, now: Time) {
        (self.troubles, self.trouble) = (0, None);
        self.unseen_since = None;
        (self.phase, self.reached) = (None, None);
        // What was asked of EC2 just before may not show yet, and the deployment must not
        // be taken for what it was.
        self.not_before = Some(now + SHOWN);
        for node in &mut self.nodes {
            node.start.anew();
        }
    }

    /// A lasting failure: back, if anything was touched; over, if not.
    pub(super) fn turn_back(
        &mut self,
        code: FailureCode,
        reason: String,
        limits: &Limits,
        now: Time,
    ) {
        self.failure = Some(Failure { code, reason });
        self.turn(now);
        if self.touched_at.is_none() {
            end::finish(self, Status::Failed, limits, now);
        } else {
            self.status = Status::RollingBack;
            self.back = true;
        }
    }

    /// An operator's word on the way back: forward again, from the nodes as they are.
    pub(super) fn turn_forward(&mut self, seen: &Seen, now: Time) {
        self.turn(now);
        self.status = Status::InProgress;
        self.back = false;
        self.committed |= self.may_have_written();
        self.failure = None;
        // The nodes that run are on their old volumes: they are to be stopped.
        self.launched_at = None;
        for node in &mut self.nodes {
            // It may have been started on the way back: a launch from here on is another.
            let machine = seen.instances.get(&node.instance_id);
            node.launched_at = machine.and_then(|machine| machine.launched_at);
        }
        // A node may have run on its old volumes meanwhile: nothing goes by itself.
        self.was_stuck = true;
    }

    /// It can go neither way by itself.
    pub(super) fn get_stuck(&mut self, code: FailureCode, reason: String, now: Time) {
        self.failure = Some(Failure { code, reason });
        self.status = Status::Stuck;
        self.was_stuck = true;
        self.not_before = None;
        self.announce(Kind::RestoreStuck, now);
    }
}
