//! Reconciliation: once a day the table and EC2 are compared, both ways.
//!
//! ```text
//!   idle ─▶ snapshots ─▶ volumes ─▶ backups ─▶ idle, for the rest of the day
//!           EC2 ▶ table  EC2 ▶ table  table ▶ EC2
//! ```
//!
//! From EC2 to the table: what bears this stack's tag and nobody needs goes, on positive
//! evidence alone ([`judge_snapshot`], [`judge_volume`]). A row that is missing is no
//! evidence: who loses the table must not lose what it named.
//!
//! From the table to EC2: the snapshots of each completed backup are asked for; what is
//! surely missing is remembered in the backup's own row, whose step has the last word
//! ([`crate::backup::note_missing`]).
//!
//! A run is worked in pages. Where it is stands in its row, so a crash costs one page.

mod judge;
mod run;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::announce::{Kind, Orphans};
use crate::id::Nonce;
use crate::limits::RECONCILE_EVERY;
use crate::operation::Lease;
use crate::time::{Seconds, Time};

/// How long after its time a run may begin, or be over when the next one's has come.
const LATE: Seconds = Seconds::hours(1);

pub use judge::{
    Because, SeenSnapshot, SeenVolume, Tags, Thing, Verdict, Vouching, VouchingRestore,
    judge_snapshot, judge_volume, removable,
};
pub use run::{Judged, Run, Side};

/// What a run is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Every snapshot that bears the stack's tag.
    Snapshots,
    /// Every volume that does.
    Volumes,
    /// Every completed backup of the table.
    Backups,
}

/// Where the next page of a phase begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// EC2's token of the next page.
    Token(String),
    /// The keys of the last row that was read.
    After {
        /// Its partition.
        pk: String,
        /// Its sort key.
        sk: String,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// When it began.
    pub started_at: Time,
    /// When it ended.
    pub finished_at: Time,
    /// What it found.
    #[serde(flatten)]
    pub orphans: Orphans,
    /// Backups of which a snapshot was said to be missing, for the first time.
    pub missing: u64,
    /// Ids of the first that no row vouches for.
    #[serde(default)]
    pub ids: Vec<String>,
}

/// An announcement that the bus has not surely taken yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// Lets a consumer drop doubles.
    pub announcement_id: Nonce,
    /// When the run ended that it is of.
    pub at: Time,
    /// What the run found.
    pub orphans: Orphans,
}

/// The row of the stack's reconciliation: there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciliation {
    /// Random, in the ids of its announcements.
    pub token: Nonce,
    /// Grows with each write.
    pub revision: u64,
    /// The last write's mark.
    pub nonce: Nonce,
    /// When the next run begins.
    pub next_at: Time,
    /// Who acts now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// The run under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// The last one that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Report>,
    /// Looks that failed in a row, for the backoff.
    #[serde(default)]
    pub troubles: u32,
    /// What AWS last said against us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// What the bus has not surely taken.
    #[serde(default)]
    pub outbox: Vec<Announced>,

    /// When the row is due, as read. Written beside the row's value, never with it.
    #[serde(default, skip_serializing)]
    pub due_at: Option<Time>,
}

impl Reconciliation {
    /// The attributes that a write may change: all but the token.
    pub const OWNED: &'static [&'static str] =
        &["revision", "nonce", "next_at", "lease", "run", "last", "troubles", "trouble", "outbox"];

    /// A new stack's. Its hour is drawn from its token, so that the stacks of an account
    /// do not all describe at once.
    pub fn new(token: Nonce, now: Time) -> Self {
        let mixed = token
            .as_str()
            .bytes()
            .fold(0_i64, |mixed, byte| (mixed * 31 + i64::from(byte)) % RECONCILE_EVERY.0);
        Self {
            nonce: token.clone(),
            token,
            revision: 1,
            next_at: now + Seconds(mixed),
            lease: None,
            run: None,
            last: None,
            troubles: 0,
            trouble: None,
            outbox: Vec::new(),
            due_at: None,
        }
    }

    /// The row with a run under way: the one that there is, or a new one, if it is time.
    /// None: nothing is to be done before [`Reconciliation::next_at`].
    #[must_use]
    pub fn begun(&self, now: Time) -> Option<Self> {
        let mut next = self.clone();
        if next.run.is_none() {
            if now < self.next_at {
                return None;
            }
            next.run = Some(Run::new(now));
            // A day after this one's beginning, and never twice a day: one announcement a
            // day at most.
            next.next_at = now + RECONCILE_EVERY;
        }
        Some(next)
    }

    /// Whether a run has not begun in time, or has not ended when the next one is due: whatever
    /// keeps it back, nothing that is lost or left over is found meanwhile.
    pub fn is_late(&self, now: Time) -> bool {
        now > self.next_at + LATE
    }

    /// The run has a page less before it; with none left in its last phase it is over.
    pub fn page_done(&mut self, judged: &Judged, next: Option<Place>, now: Time) {
        self.troubles = 0;
        self.trouble = None;
        let Some(run) = &mut self.run else { return };
        run.count(judged);
        if !run.go_on(next) {
            self.finish(now);
        }
    }

    /// The token of the next page is not good any more: the phase begins anew.
    pub fn page_lost(&mut self) {
        if let Some(run) = &mut self.run {
            run.restart_phase();
        }
    }

    fn finish(&mut self, now: Time) {
        let Some(run) = self.run.take() else { return };
        let orphans = run.orphans();
        if orphans.are_worth_telling() {
            self.outbox.push(Announced {
                announcement_id: Nonce(format!(
                    "{}-{}-{}",
                    self.token,
                    run.started_at.unix(),
                    Kind::OrphansFound.word()
                )),
                at: now,
                orphans,
            });
        }
        self.last = Some(Report {
            started_at: run.started_at,
            finished_at: now,
            orphans,
            missing: run.missing,
            ids: run.ids,
        });
    }
}
