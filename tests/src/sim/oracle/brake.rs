//! What an operator has paused is not done, by whoever began after that; and no deadline
//! runs out meanwhile.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use local::Name;
use serde_json::Value;

use super::super::brake::Switch;
use super::super::call::Call;
use super::super::life::Life;
use super::{Oracle, Verdict, violated};

/// What is known of pauses.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    all: Vec<Pause>,
    /// When each instance that works was invoked.
    began: BTreeMap<u32, Timestamp>,
}

#[derive(Debug)]
struct Pause {
    switch: Switch,
    even_restores: bool,
    from: Timestamp,
    until: Option<Timestamp>,
}

/// Whether an invocation knows of a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Held {
    No,
    /// It began, or ended, in the middle of the invocation.
    Perhaps,
    Surely,
}

impl Pause {
    /// Whether it stands in the way of this.
    fn holds(&self, what: Switch) -> bool {
        self.switch == what || (self.switch == Switch::Writes && what == Switch::Deletions)
    }

    fn held(&self, began: Timestamp, now: Timestamp) -> Held {
        let over = self.until.is_some_and(|until| until < began);
        if over || self.from > now {
            Held::No
        } else if self.from < began && self.until.is_none() {
            Held::Surely
        } else {
            Held::Perhaps
        }
    }
}

impl Oracle {
    /// An operator pauses something.
    pub(crate) fn paused(&mut self, switch: Switch, even_restores: bool, now: Timestamp) {
        self.resumed(switch, now);
        self.pauses.all.push(Pause { switch, even_restores, from: now, until: None });
    }

    /// And lets it go on.
    pub(crate) fn resumed(&mut self, switch: Switch, now: Timestamp) {
        let lasts = |one: &&mut Pause| one.switch == switch && one.until.is_none();
        if let Some(one) = self.pauses.all.iter_mut().find(lasts) {
            one.until = Some(now);
        }
    }

    /// A function is invoked.
    pub(crate) fn began(&mut self, life: &Life, now: Timestamp) {
        self.pauses.began.insert(life.id, now);
    }

    /// Whether an invocation must know that this is paused.
    pub(super) fn is_held(&self, what: Switch, life: &Life, now: Timestamp) -> Held {
        self.held_by(life, now, |one| one.holds(what))
    }

    fn held_by(&self, life: &Life, now: Timestamp, which: impl Fn(&Pause) -> bool) -> Held {
        let began = self.pauses.began.get(&life.id).copied().unwrap_or(now);
        let all = self.pauses.all.iter().filter(|one| which(one));
        all.map(|one| one.held(began, now)).max().unwrap_or(Held::No)
    }

    /// Whether something is paused, or was since then.
    pub(super) fn is_paused_since(&self, since: Timestamp) -> bool {
        self.pauses.all.iter().any(|one| one.until.is_none_or(|until| until >= since))
    }

    /// How long writes were paused between the two.
    pub(super) fn paused_for(&self, since: Timestamp, now: Timestamp) -> SignedDuration {
        let writes = self.pauses.all.iter().filter(|one| one.switch == Switch::Writes);
        let within = writes.map(|one| {
            let until = one.until.map_or(now, |until| until.min(now));
            until.duration_since(since.max(one.from)).max(SignedDuration::ZERO)
        });
        within.fold(SignedDuration::ZERO, |all, one| all + one)
    }

    /// A call that changes EC2 is sent, of a restore with this row or of a backup.
    pub(super) fn may_write(
        &self,
        now: Timestamp,
        life: &Life,
        call: &Call,
        restore: Option<&Value>,
    ) -> Verdict {
        let touched = restore.is_some_and(|row| !row["touched_at"].is_null());
        let held = self.held_by(life, now, |one| {
            one.switch == Switch::Writes && (one.even_restores || !touched)
        });
        let deletes = call.operation.starts_with("DeleteS") || call.operation == "DeleteVolume";
        let kept = deletes && self.is_held(Switch::Deletions, life, now) == Held::Surely;
        if held == Held::Surely || kept {
            return violated("paused", format!("{life} sends {}, of {restore:?}", call.told()));
        }
        Ok(())
    }

    /// A backup begins to be deleted, by nobody's word.
    pub(super) fn may_go(&self, now: Timestamp, life: &Life, what: &str) -> Verdict {
        let by_itself = life.function != Name::Api;
        if by_itself && self.is_held(Switch::Deletions, life, now) == Held::Surely {
            return violated("paused", format!("{life} lets {what} go"));
        }
        Ok(())
    }

    /// A slot is decided on.
    pub(super) fn may_release(&self, now: Timestamp, life: &Life, what: &Value) -> Verdict {
        let by_itself = life.function == Name::Scheduler;
        let held = [Switch::Schedules, Switch::Writes];
        let held = held.into_iter().map(|what| self.is_held(what, life, now)).max();
        if by_itself && held == Some(Held::Surely) {
            return violated("paused", format!("{life} decides on {what}"));
        }
        Ok(())
    }
}
