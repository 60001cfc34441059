//! One run: what it is at, and what it has counted.

use serde::{Deserialize, Serialize};

use super::{Phase, Place};
use crate::announce::Orphans;
use crate::limits::RECONCILED_DELETES;
use crate::time::Time;

/// How many ids of what no row vouches for are kept. All of them are in the operator's
/// list, which looks at EC2 itself.
const IDS: usize = 100;

/// What was counted of one kind, snapshots or volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Side {
    /// Looked at.
    pub seen: u64,
    /// No row vouches for them.
    pub orphans: u64,
    /// Deletes that were about to be asked for. Counted before the calls: after a crash
    /// the cap still holds.
    pub asked: u64,
    /// Of these, those that EC2 did not take.
    pub refused: u64,
    /// To be deleted, but for the cap.
    pub withheld: u64,
}

/// What came of a page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judged {
    /// Looked at.
    pub seen: u64,
    /// Ids of what no row vouches for.
    pub orphans: Vec<String>,
    /// To be deleted, but for the cap.
    pub withheld: u64,
    /// Backups of which a snapshot was said to be missing.
    pub missing: u64,
}

/// A run under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// When it began.
    pub started_at: Time,
    /// What it is at.
    pub phase: Phase,
    /// Where the phase's next page begins; None: with its first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Snapshots.
    pub snapshots: Side,
    /// Volumes.
    pub volumes: Side,
    /// Completed backups that were looked at.
    pub backups: u64,
    /// Of these, those of which a snapshot was said to be missing, for the first time.
    pub missing: u64,
    /// Ids of the first that no row vouches for.
    #[serde(default)]
    pub ids: Vec<String>,
}

impl Run {
    pub(super) fn new(now: Time) -> Self {
        Self {
            started_at: now,
            phase: Phase::Snapshots,
            place: None,
            snapshots: Side::default(),
            volumes: Side::default(),
            backups: 0,
            missing: 0,
            ids: Vec::new(),
        }
    }

    fn side(&mut self) -> Option<&mut Side> {
        match self.phase {
            Phase::Snapshots => Some(&mut self.snapshots),
            Phase::Volumes => Some(&mut self.volumes),
            Phase::Backups => None,
        }
    }

    /// How many deletes the cap leaves.
    pub fn allowance(&self) -> u64 {
        RECONCILED_DELETES.saturating_sub(self.snapshots.asked + self.volumes.asked)
    }

    /// So many deletes are about to be asked for.
    pub fn reserve(&mut self, deletes: u64) {
        if let Some(side) = self.side() {
            side.asked += deletes;
        }
    }

    /// Of those that were about to be asked for, so many were not after all, for want of
    /// time, and so many EC2 did not take.
    pub fn settle(&mut self, not_begun: u64, refused: u64) {
        if let Some(side) = self.side() {
            side.asked = side.asked.saturating_sub(not_begun);
            side.refused += refused;
        }
    }

    pub(super) fn count(&mut self, judged: &Judged) {
        self.missing += judged.missing;
        let Some(side) = self.side() else {
            self.backups += judged.seen;
            return;
        };
        side.seen += judged.seen;
        side.withheld += judged.withheld;
        side.orphans += u64::try_from(judged.orphans.len()).unwrap_or(u64::MAX);
        let room = IDS.saturating_sub(self.ids.len());
        self.ids.extend(judged.orphans.iter().take(room).cloned());
    }

    /// On to the next page, or to the next phase. False: that was the last.
    pub(super) fn go_on(&mut self, next: Option<Place>) -> bool {
        self.place = next;
        if self.place.is_some() {
            return true;
        }
        self.phase = match self.phase {
            Phase::Snapshots => Phase::Volumes,
            Phase::Volumes => Phase::Backups,
            Phase::Backups => return false,
        };
        true
    }

    /// The phase begins anew, and counts anew, but for what was deleted.
    pub(super) fn restart_phase(&mut self) {
        self.place = None;
        if self.phase == Phase::Backups {
            self.backups = 0;
        }
        let prefix = if self.phase == Phase::Snapshots { "snap-" } else { "vol-" };
        if let Some(side) = self.side() {
            *side = Side { asked: side.asked, refused: side.refused, ..Side::default() };
            self.ids.retain(|id| !id.starts_with(prefix));
        }
    }

    pub(super) fn orphans(&self) -> Orphans {
        Orphans {
            snapshots: self.snapshots.orphans,
            volumes: self.volumes.orphans,
            deleted: (self.snapshots.asked + self.volumes.asked)
                .saturating_sub(self.snapshots.refused + self.volumes.refused),
            withheld: self.snapshots.withheld + self.volumes.withheld,
        }
    }
}
