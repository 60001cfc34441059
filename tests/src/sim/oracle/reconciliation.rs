//! The daily comparison of the table and EC2: nothing goes without evidence, nothing that
//! is not a day old, never more than the cap; what nobody vouches for is told; and a
//! backup fails for a lost snapshot only after two answers an hour apart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cloud::Cloud;
use jiff::{SignedDuration, Timestamp};
use local::Name;
use serde_json::Value;

use super::super::call::Call;
use super::super::life::Life;
use super::super::reach::Reach;
use super::super::table::{Change, RowRef, Table};
use super::{Backup, DECIDED, Of, Oracle, SLACK, Verdict, calls, time, violated};
use crate::rows::{BackupKey, items, named, text};

/// How old a thing must be before it is judged (the contract's).
const GRACE: SignedDuration = SignedDuration::from_hours(24);

/// From the beginning of a run to that of the next (the contract's).
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The most that a run deletes (the contract's).
const CAP: usize = 100;

/// Between the two answers that fail a backup (the contract's).
const APART: SignedDuration = SignedDuration::from_hours(1);

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Reconciling {
    row: Option<RowRef>,
    /// The life that works it now.
    holder: Option<u32>,
    /// Deletes of the run under way, by the SDK's invocation.
    asked: BTreeSet<String>,
    /// Snapshots that bear the tags and the description of a backup whose call did not
    /// make them.
    forged: BTreeMap<String, BackupKey>,
    /// When EC2 said that it does not know a snapshot.
    unknown: BTreeMap<String, Vec<Timestamp>>,
    /// What is to be announced, and what was.
    owed: BTreeMap<String, Value>,
    told: BTreeSet<String>,
}

impl Oracle {
    /// Somebody made a snapshot that looks to the letter like one of a backup's own.
    pub(crate) fn forged(&mut self, id: &str, like: &str) {
        if let Some(key) = self.snapshots.get(like).map(|one| one.backup) {
            self.stack_row.forged.insert(id.to_owned(), key);
        }
    }

    /// Whether this life works the reconciliation.
    pub(super) fn reconciles(&self, life: &Life) -> bool {
        self.stack_row.holder == Some(life.id)
    }

    /// Whether there is the row that a nudge is about.
    pub(super) fn knows_reconciliation(&self) -> bool {
        self.stack_row.row.is_some()
    }

    /// An invocation is over: what it worked it works no more.
    pub(super) fn lets_go(&mut self, life: &Life) {
        if self.reconciles(life) {
            self.stack_row.holder = None;
        }
    }

    /// Whether a run is under way, or has something to say.
    pub(super) fn reconciling(&self) -> bool {
        let row = self.stack_row.row.as_ref();
        row.is_some_and(|row| !row["run"].is_null() || items(&row["outbox"]).next().is_some())
    }

    /// Its row was written.
    pub(super) fn reconciliation_changed(
        &mut self,
        now: Timestamp,
        life: &Life,
        change: &Change,
        cloud: &Cloud,
        reach: &mut Reach,
    ) -> Verdict {
        let Some(new) = change.new.as_ref() else {
            return violated("reconciliation-kept", format!("{life} removed its row"));
        };
        let none = Value::Null;
        let old = change.old.as_ref().map_or(&none, |row| &**row);
        self.stack_row.row = Some(Arc::clone(new));
        let next = time(new, "next_at").unwrap_or(Timestamp::MAX);
        if old.is_null() {
            if life.function == Name::Scheduler && next <= now + DAY + SLACK {
                return Ok(());
            }
            return violated("reconciliation-born", format!("{life}: {new}"));
        }
        if life.function == Name::Worker {
            self.stack_row.holder = (!new["lease"].is_null()).then_some(life.id);
        }
        if old["run"].is_null() && !new["run"].is_null() {
            reach.hit("reconciliation begun");
            self.stack_row.asked.clear();
            let due = time(old, "next_at").unwrap_or(Timestamp::MAX);
            if now < due - SLACK || (next.duration_since(now) - DAY).abs() > DECIDED {
                return violated("reconciled-early", format!("{life} at {now}: {old}, {new}"));
            }
        }
        if !old["run"].is_null() && new["run"].is_null() {
            reach.hit("reconciliation ended");
            return self.run_ended(now, life, (old, new), cloud, reach);
        }
        Ok(())
    }

    /// A run has counted what is there that nobody vouches for, and tells it.
    fn run_ended(
        &mut self,
        now: Timestamp,
        life: &Life,
        (old, new): (&Value, &Value),
        cloud: &Cloud,
        reach: &mut Reach,
    ) -> Verdict {
        let found = &new["last"]["orphans"];
        let found = if found.is_null() { &new["last"] } else { found };
        let began = time(&old["run"], "started_at").unwrap_or(now);
        let sure = self.orphans(cloud, began - GRACE - SLACK);
        let most = self.orphans(cloud, now - GRACE + SLACK);
        let counted = ["snapshots", "volumes"].map(|name| found[name].as_u64());
        for ((count, sure), most) in counted.into_iter().zip(sure).zip(most) {
            if count.is_none_or(|count| count < sure || count > most) {
                return violated(
                    "orphans",
                    format!("{life} counted {found}; there are {sure} to {most}"),
                );
            }
        }
        let worth = ["snapshots", "volumes", "withheld"];
        let worth = worth.iter().any(|name| found[*name].as_u64().is_some_and(|count| count > 0));
        if found["withheld"].as_u64().is_some_and(|count| count > 0) {
            reach.hit("reconciliation cap met");
        }
        let known = |id: &str| self.stack_row.owed.contains_key(id);
        let owes = items(&new["outbox"]).find(|one| !known(text(one, "announcement_id")));
        if worth != owes.is_some() {
            return violated("orphans-untold", format!("{life}: {new}"));
        }
        if let Some(one) = owes {
            let orphans = one["orphans"].clone();
            let same = ["snapshots", "volumes", "deleted", "withheld"];
            if same.iter().any(|name| orphans[*name] != found[*name]) {
                return violated("orphans-untold", format!("{life}: {new}"));
            }
            let id = text(one, "announcement_id").to_owned();
            self.stack_row.owed.insert(id, orphans);
        }
        Ok(())
    }

    /// How many snapshots and volumes there are, of that time or before, that bear the
    /// stack's tag and that nobody made who may.
    fn orphans(&self, cloud: &Cloud, before: Timestamp) -> [u64; 2] {
        let stack = |tag: Option<&String>| tag.is_some_and(|tag| *tag == self.stack);
        let snapshots = cloud.snapshots().filter(|one| {
            one.exists
                && one.started_at <= before
                && stack(one.tags.get("ld:stack"))
                && !self.snapshots.contains_key(one.snapshot_id)
                && !self.stack_row.forged.contains_key(one.snapshot_id)
        });
        let volumes = cloud
            .volumes()
            .filter(|one| one.created_at <= before && stack(one.tags.get("ld:stack")));
        [snapshots.count() as u64, volumes.count() as u64]
    }

    /// `Orphans Found` says what a run has found, once for each run.
    pub(super) fn orphans_announced(&mut self, detail: &Value) -> Verdict {
        let id = text(detail, "announcement_id").to_owned();
        if self.stack_row.owed.get(&id) != Some(&detail["orphans"]) {
            return violated("announced-untrue", format!("{detail}: {:?}", self.stack_row.owed));
        }
        self.stack_row.told.insert(id);
        Ok(())
    }

    /// Each run that has found something was told of.
    pub(super) fn orphans_are_told(&self) -> Verdict {
        match self.stack_row.owed.keys().find(|id| !self.stack_row.told.contains(*id)) {
            None => Ok(()),
            Some(id) => violated("untold", format!("the orphans of {id} were never announced")),
        }
    }

    /// The reconciliation deletes something.
    pub(super) fn reconciliation_deletes(
        &mut self,
        now: Timestamp,
        life: &Life,
        call: &Call,
        cloud: &Cloud,
        table: &Table,
    ) -> Verdict {
        let id = call.field("SnapshotId");
        // Of volumes the seeds with reconciliation have only some that nobody vouches for.
        if call.operation != "DeleteSnapshot" {
            return violated("orphan-deleted", format!("{life}: {call} of {:?}", call.form));
        }
        let ours = self.snapshots.get(id).map(|one| one.backup);
        let Some(key) = ours.or_else(|| self.stack_row.forged.get(id).copied()) else {
            return violated("orphan-deleted", format!("{life} deletes {id}, which has no owner"));
        };
        let young = |at: Timestamp| at > now - GRACE + SLACK;
        if cloud.snapshot(id).is_some_and(|one| young(one.started_at)) {
            return violated("reconciled-young", format!("{life} deletes {id} at {now}"));
        }
        match self.backups.get(&key).and_then(Backup::row) {
            Some(row) => {
                let names = named(row).any(|(one, _)| one == id);
                let rests = matches!(text(row, "status"), "completed" | "failed");
                if names || !rests {
                    return violated("needed-deleted", format!("{life} deletes {id} of {row}"));
                }
            }
            None if calls::tombstone(key, table).is_none() => {
                return violated("rowless-deleted", format!("{life} deletes {id} of {key:?}"));
            }
            None => {}
        }
        let row = self.stack_row.row.clone();
        self.begins(now, life, call, Of::Stack, row.as_ref())?;
        self.stack_row.asked.insert(call.invocation.clone());
        let count = |side: &str| {
            let run = row.as_ref().map(|row| row["run"][side]["asked"].as_u64());
            usize::try_from(run.flatten().unwrap_or(0)).unwrap_or(usize::MAX)
        };
        let (asked, counted) = (self.stack_row.asked.len(), count("snapshots") + count("volumes"));
        if asked > counted || asked > CAP {
            return violated(
                "cap",
                format!("{life} deletes {asked} in one run, which has counted {counted}"),
            );
        }
        Ok(())
    }

    /// Whether it is one that somebody forged.
    pub(crate) fn is_forged(&self, id: &str) -> bool {
        self.stack_row.forged.contains_key(id)
    }

    /// What is forged is a backup's own to whoever looks at it.
    pub(super) fn forged_of(&self, id: &str) -> Option<BackupKey> {
        self.stack_row.forged.get(id).copied()
    }

    /// EC2 does not know a snapshot.
    pub(super) fn is_unknown(&mut self, now: Timestamp, call: &Call, body: &[u8]) {
        let said = String::from_utf8_lossy(body);
        if call.operation == "DescribeSnapshots" && said.contains("InvalidSnapshot.NotFound") {
            let id = call.field("SnapshotId.1").to_owned();
            self.stack_row.unknown.entry(id).or_default().push(now);
        }
    }

    /// Whether the backup was complete once.
    pub(super) fn was_complete(&self, key: BackupKey) -> bool {
        self.backups.get(&key).is_some_and(|backup| backup.statuses.contains("completed"))
    }

    /// A completed backup has failed: EC2 said twice, an hour apart, that one of its
    /// snapshots is not there, which somebody has deleted. The others it keeps.
    pub(super) fn lost(
        &self,
        now: Timestamp,
        key: BackupKey,
        (old, new): (&Value, &Value),
        reach: &mut Reach,
    ) -> Verdict {
        let code = text(&new["failure"], "code");
        reach.hit(&format!("failure {code}"));
        let twice = |id: &str| {
            let times = self.stack_row.unknown.get(id).map_or(&[][..], Vec::as_slice);
            let (first, last) = (times.first(), times.last());
            first.zip(last).is_some_and(|(first, last)| {
                last.duration_since(*first) >= APART - SLACK && *last >= now - DECIDED
            })
        };
        let by_hand = |id: &str| self.snapshots.get(id).is_some_and(|one| one.by_hand.is_some());
        let gone = named(old).any(|(id, _)| twice(id) && by_hand(id));
        let kept = named(old).eq(named(new)) && new["completed_at"].is_null();
        if code == "snapshot_missing" && gone && kept && old["pinned_by"].is_null() {
            return Ok(());
        }
        violated("lost-unfounded", format!("backup {key:?} at {now}: {old} became {new}"))
    }
}
