//! The brake: what an operator has paused, since when, and what was paused before.
//!
//! It is one row of the stack, read anew for each advance. Nothing of it is stored with an
//! operation: how long a deadline was held up follows from the pauses that lie in it, to the
//! second, however late a worker came to know.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::Nonce;
use crate::time::{Seconds, Time};

/// When what is held is looked at again.
pub const HELD: Seconds = Seconds(120);

/// The same while a deployment is down.
pub const HELD_DOWN: Seconds = Seconds(30);

/// How many pauses that are over are remembered. Of more the two oldest become one, which
/// errs towards patience.
const REMEMBERED: usize = 40;

/// How long they are: no deadline is as long as this.
const REMEMBERED_FOR: Seconds = Seconds::days(30);

/// What can be paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Switch {
    /// Nothing is deleted: no expiry, no rotation, no removal of what is left over.
    Deletions,
    /// No slot of a schedule is decided on.
    Schedules,
    /// No call that changes anything in EC2, deletions among them.
    Writes,
}

impl Switch {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Deletions, Self::Schedules, Self::Writes];

    /// As the operator writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deletions => "deletions",
            Self::Schedules => "schedules",
            Self::Writes => "writes",
        }
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|one| one.as_str() == text);
        named.ok_or_else(|| "one of deletions, schedules, writes".to_owned())
    }
}

/// A pause that lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct On {
    /// When the operator said so, by the operator's clock, or a tick before that.
    pub since: Time,
    /// The last tick that saw it, by the functions' clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<Time>,
    /// Of [`Switch::Writes`]: since when restores that have stopped nodes are held, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub even_restores_since: Option<Time>,
    /// The operator's reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A pause of [`Switch::Writes`] that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Its beginning.
    pub from: Time,
    /// Its end.
    pub to: Time,
    /// Since when it held restores that had stopped nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub even_restores_since: Option<Time>,
}

/// The row.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Brake {
    /// Grows with each write.
    pub revision: u64,
    /// The last write's mark.
    #[serde(default)]
    pub nonce: Nonce,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deletions: Option<On>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schedules: Option<On>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    writes: Option<On>,
    /// Pauses of writes that are over, the oldest first.
    #[serde(default)]
    past: Vec<Pause>,
}

impl Brake {
    /// The attributes of the row.
    pub const OWNED: &[&str] = &["revision", "nonce", "deletions", "schedules", "writes", "past"];

    /// The pause, if it lasts.
    pub const fn on(&self, switch: Switch) -> Option<&On> {
        match switch {
            Switch::Deletions => self.deletions.as_ref(),
            Switch::Schedules => self.schedules.as_ref(),
            Switch::Writes => self.writes.as_ref(),
        }
    }

    /// Since when anything has been paused.
    pub fn since(&self) -> Option<Time> {
        Switch::ALL.into_iter().filter_map(|one| self.on(one)).map(|on| on.since).min()
    }

    /// Pauses. One that lasts goes on, with the new reason if there is one. It may come to
    /// hold restores that have stopped nodes, too, from now on; to let those go takes a
    /// [`Brake::resume`], and not a flag that was left out.
    pub fn pause(&mut self, switch: Switch, even_restores: bool, why: Option<String>, now: Time) {
        let on = self.place(switch).get_or_insert(On {
            since: now,
            seen_at: None,
            even_restores_since: None,
            why: None,
        });
        on.why = why.or(on.why.take());
        if even_restores && switch == Switch::Writes {
            on.even_restores_since = on.even_restores_since.or(Some(now));
        }
    }

    /// A tick has seen it. The operator's clock may be wrong, and what it says of deadlines
    /// that the functions' clock measures then too: a pause lasts at least from the first
    /// tick to the last one that saw it. True: that is to be stored.
    pub fn seen(&mut self, now: Time) -> bool {
        let Some(on) = &mut self.writes else { return false };
        (on.since, on.seen_at) = (on.since.min(now), on.seen_at.max(Some(now)));
        true
    }

    /// Ends a pause, if there is one.
    pub fn resume(&mut self, switch: Switch, now: Time) {
        let Some(on) = self.place(switch).take() else { return };
        if switch != Switch::Writes {
            return;
        }
        self.past.retain(|one| now - one.to <= REMEMBERED_FOR);
        let to = now.max(on.seen_at.unwrap_or(now));
        // Of an operator's clock that went back nothing follows.
        if to > on.since {
            let even_restores_since = on.even_restores_since;
            self.past.push(Pause { from: on.since, to, even_restores_since });
        }
        while self.past.len() > REMEMBERED {
            let first = self.past.remove(0);
            self.past[0].from = first.from;
            let even = [first.even_restores_since, self.past[0].even_restores_since];
            self.past[0].even_restores_since = even.into_iter().flatten().min();
        }
    }

    const fn place(&mut self, switch: Switch) -> &mut Option<On> {
        match switch {
            Switch::Deletions => &mut self.deletions,
            Switch::Schedules => &mut self.schedules,
            Switch::Writes => &mut self.writes,
        }
    }

    /// What it holds of anything but a restore that has stopped nodes.
    pub fn hold(&self) -> Hold {
        self.hold_of_restore(None)
    }

    /// What it holds of a restore that stopped its first node at `stopped_at`: from then on
    /// only what was to hold even such a one.
    pub fn hold_of_restore(&self, stopped_at: Option<Time>) -> Hold {
        let past = self.past.iter();
        let past = past.map(|one| (one.from, Some(one.to), one.even_restores_since));
        let on = self.writes.iter().map(|on| (on.since, None, on.even_restores_since));
        let mut spans: Vec<_> = past
            .chain(on)
            .flat_map(|(from, to, even)| match stopped_at {
                None => [Some((from, to)), None],
                Some(at) => {
                    let before = (from, Some(to.map_or(at, |to| to.min(at))));
                    [Some(before), even.map(|even| (even, to))]
                }
            })
            .flatten()
            // What began after the first stop and did not hold such is none of its pauses.
            .filter(|(from, to)| to.is_none_or(|to| to > *from))
            .collect();
        spans.sort_by_key(|(from, _)| *from);
        let even = |on: &On| on.even_restores_since.is_some();
        let writes = self.writes.as_ref().is_some_and(|on| even(on) || stopped_at.is_none());
        // A restore goes on to its end, and what is deleted after it is no part of it.
        let deletions = self.deletions.is_some() || self.writes.is_some();
        Hold { deletions, writes, spans }
    }
}

/// What is held now, and what was before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hold {
    /// Nothing may be deleted, nor begin to be. Also if no write may be made.
    pub deletions: bool,
    /// No call may be made that changes anything.
    pub writes: bool,
    /// The pauses of writes by their beginnings, none of them empty; with no end if it lasts.
    spans: Vec<(Time, Option<Time>)>,
}

impl Hold {
    /// All of it.
    pub const fn all() -> Self {
        Self { deletions: true, writes: true, spans: Vec::new() }
    }

    /// How much of the time between the two no write could be made.
    pub fn held(&self, since: Time, now: Time) -> Seconds {
        let mut held = Seconds(0);
        let mut behind = since;
        // By two clocks one may begin before the one before it has ended: no second counts
        // twice.
        for (from, to) in &self.spans {
            let (from, to) = (behind.max(*from), to.map_or(now, |to| to.min(now)));
            held = held + (to - from).max(Seconds(0));
            behind = behind.max(to);
        }
        held
    }

    /// How much of it there was in which writes could be made.
    pub fn passed(&self, since: Time, now: Time) -> Seconds {
        Seconds((now - since).0 - self.held(since, now).0)
    }

    /// When so much of such time has passed since then; `now` at the latest.
    pub fn later(&self, since: Time, span: Seconds, now: Time) -> Time {
        let (mut at, mut left) = (since, span);
        for (from, to) in &self.spans {
            let to = to.unwrap_or(now);
            let before = (*from - at).max(Seconds(0));
            if to <= at {
                continue;
            }
            if left <= before {
                break;
            }
            left = Seconds(left.0 - before.0);
            at = to;
        }
        (at + left).min(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: i64) -> Time {
        Time::from_unix(1_800_000_000 + seconds)
    }

    fn held(hold: &Hold, since: i64, now: i64) -> i64 {
        hold.held(at(since), at(now)).0
    }

    #[test]
    fn a_deadline_is_held_up_by_what_lies_in_it_of_each_pause() {
        let mut brake = Brake::default();
        brake.pause(Switch::Writes, false, None, at(100));
        assert_eq!(held(&brake.hold(), 0, 50), 0, "not begun");
        assert_eq!(held(&brake.hold(), 0, 130), 30);
        assert_eq!(held(&brake.hold(), 120, 130), 10, "what began within it");
        brake.resume(Switch::Writes, at(200));
        brake.pause(Switch::Writes, false, None, at(1_000));
        let hold = brake.hold();
        assert!(hold.writes && hold.deletions);
        assert_eq!(held(&hold, 0, 1_500), 600);
        assert_eq!(held(&hold, 150, 1_500), 550);
        assert_eq!(held(&hold, 300, 900), 0, "between them");
        brake.resume(Switch::Writes, at(1_600));
        assert_eq!(brake.hold(), Hold { deletions: false, writes: false, ..brake.hold() });
        assert_eq!(held(&brake.hold(), 0, 9_000), 700);
    }

    #[test]
    fn schedules_and_deletions_hold_up_no_deadline() {
        let mut brake = Brake::default();
        brake.pause(Switch::Deletions, true, None, at(0));
        brake.pause(Switch::Schedules, false, None, at(0));
        let hold = brake.hold();
        assert!(hold.deletions && !hold.writes);
        assert_eq!(held(&hold, 0, 500), 0);
        assert_eq!(brake.on(Switch::Deletions).expect("it is on").even_restores_since, None);
        brake.resume(Switch::Deletions, at(9));
        assert_eq!(brake.hold(), Hold::default());
        assert_eq!(brake.since(), Some(at(0)));
        brake.resume(Switch::Schedules, at(9));
        assert_eq!(brake.since(), None);
    }

    #[test]
    fn a_restore_that_has_stopped_nodes_goes_on_unless_it_is_said() {
        let mut brake = Brake::default();
        brake.pause(Switch::Writes, false, Some("a storm".to_owned()), at(100));
        let (before, after) = (brake.hold_of_restore(None), brake.hold_of_restore(Some(at(150))));
        assert!(before.writes && !after.writes && after.deletions);
        assert_eq!(held(&before, 0, 300), 200);
        assert_eq!(held(&after, 0, 300), 50, "until its first stop");
        // Said later, it counts from then; and the reason stays.
        brake.pause(Switch::Writes, true, None, at(200));
        let after = brake.hold_of_restore(Some(at(150)));
        assert!(after.writes);
        assert_eq!(held(&after, 0, 300), 150);
        assert_eq!(held(&brake.hold(), 0, 300), 200);
        let on = brake.on(Switch::Writes).expect("it is on");
        assert_eq!((on.since, on.why.as_deref()), (at(100), Some("a storm")));
        // A flag that is left out lets nobody go.
        brake.pause(Switch::Writes, false, Some("until Friday".to_owned()), at(250));
        assert!(brake.hold_of_restore(Some(at(150))).writes);
        brake.resume(Switch::Writes, at(400));
        assert_eq!(held(&brake.hold_of_restore(Some(at(150))), 0, 500), 250);
    }

    #[test]
    fn to_pause_twice_is_to_pause_once() {
        let mut brake = Brake::default();
        brake.pause(Switch::Writes, false, Some("one".to_owned()), at(0));
        brake.pause(Switch::Writes, false, Some("two".to_owned()), at(50));
        let on = brake.on(Switch::Writes).expect("it is on");
        assert_eq!((on.since, on.why.as_deref()), (at(0), Some("two")));
        assert_eq!(held(&brake.hold(), 0, 100), 100);
        brake.resume(Switch::Writes, at(100));
        brake.resume(Switch::Writes, at(200));
        assert_eq!(held(&brake.hold(), 0, 300), 100);
    }

    #[test]
    fn the_memory_of_pauses_is_bounded_and_errs_towards_patience() {
        let mut brake = Brake::default();
        for round in 0..1_000 {
            brake.pause(Switch::Writes, false, None, at(round * 10));
            brake.resume(Switch::Writes, at(round * 10 + 1));
        }
        assert_eq!(brake.past.len(), REMEMBERED);
        assert_eq!(held(&brake.hold(), 9_900, 10_000), 10);
        let all = held(&brake.hold(), 0, 10_000);
        // Never less than there was, nor what is still known apart.
        assert!((1_000..=9_700).contains(&all), "{all}");
        assert_eq!(held(&brake.hold(), 9_700, 10_000), 30);
        let later = REMEMBERED_FOR.0 + 20_000;
        brake.pause(Switch::Writes, false, None, at(later));
        brake.resume(Switch::Writes, at(later + 5));
        assert_eq!(brake.past.len(), 1, "those of long ago are forgotten");
    }

    #[test]
    fn an_operator_s_wrong_clock_takes_nothing_from_what_the_ticks_saw() {
        for wrong in [-5_000, 5_000] {
            let mut brake = Brake::default();
            assert!(!brake.seen(at(10)));
            brake.pause(Switch::Writes, false, None, at(100 + wrong));
            assert!(brake.seen(at(120)) && brake.seen(at(180)));
            brake.resume(Switch::Writes, at(200 + wrong));
            let counted = held(&brake.hold(), 120, 400);
            assert!((60..=280).contains(&counted), "{wrong}: {counted}");
        }
    }

    #[test]
    fn pauses_that_overlap_by_a_wrong_clock_count_once() {
        let mut brake = Brake::default();
        brake.pause(Switch::Writes, false, None, at(0));
        brake.seen(at(300));
        // The operator's clock is five minutes behind that of the ticks.
        brake.pause(Switch::Writes, true, None, at(60));
        brake.resume(Switch::Writes, at(310));
        assert_eq!(held(&brake.hold(), 0, 1_000), 310);
        assert_eq!(held(&brake.hold(), 100, 1_000), 210);
    }

    #[test]
    fn a_span_of_work_is_found_again_between_the_pauses() {
        let mut brake = Brake::default();
        for from in [100, 300] {
            brake.pause(Switch::Writes, false, None, at(from));
            brake.resume(Switch::Writes, at(from + 100));
        }
        let hold = brake.hold();
        for (span, found) in [(0, 0), (50, 50), (100, 100), (150, 250), (200, 300), (250, 450)] {
            assert_eq!(hold.later(at(0), Seconds(span), at(9_999)), at(found), "{span}");
            assert_eq!(hold.passed(at(0), at(found)), Seconds(span), "{span}");
        }
        assert_eq!(hold.later(at(0), Seconds(5_000), at(600)), at(600));
        // Of one that lasts nothing comes after it.
        brake.pause(Switch::Writes, false, None, at(500));
        assert_eq!(brake.hold().later(at(0), Seconds(5_000), at(900)), at(900));
    }

    #[test]
    fn a_pause_that_did_not_hold_a_restore_is_none_of_its_spans() {
        let mut brake = Brake::default();
        // In its downtime, and without a word about such.
        brake.pause(Switch::Writes, false, None, at(100));
        brake.resume(Switch::Writes, at(200));
        let hold = brake.hold_of_restore(Some(at(50)));
        assert_eq!(held(&hold, 0, 500), 0);
        assert_eq!(hold.later(at(0), Seconds(300), at(900)), at(300));
    }

    #[test]
    fn a_clock_that_goes_back_takes_nothing_from_a_deadline() {
        let mut brake = Brake::default();
        brake.pause(Switch::Writes, false, None, at(100));
        brake.resume(Switch::Writes, at(90));
        assert_eq!(held(&brake.hold(), 0, 500), 0);
        brake.pause(Switch::Writes, false, None, at(1_000));
        assert!(brake.hold().writes, "it holds by what was said, whatever the clocks say");
        assert_eq!(held(&brake.hold(), 0, 500), 0);
    }
}
