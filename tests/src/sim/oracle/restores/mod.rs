//! Restores: a deployment is never left down, and nothing that was written is lost.
//!
//! What is known of one: its row as it has been, the volumes that our calls made for it,
//! and which of them a node has run on.

mod answers;
mod calls;
mod ends;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use cloud::Cloud;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::super::table::RowRef;
use super::named::KEPT;
use super::{Oracle, SLACK, time};
use crate::rows::{BackupKey, items, text};

/// A restore: its deployment and its own id.
pub(super) type RestoreKey = (u64, u64);

/// For so long after somebody has changed a node by hand what the service does to it may
/// rest on what was before.
const MEDDLED: SignedDuration = SignedDuration::from_secs(120);

/// What is known of restores.
#[derive(Debug, Default)]
pub(super) struct Restores {
    pub(super) all: BTreeMap<RestoreKey, Restore>,
    /// Volumes that our calls have made.
    made: BTreeMap<String, Made>,
    /// What was asked for under a client token.
    tokens: BTreeMap<String, Token>,
    /// When somebody changed a node by hand.
    meddled: BTreeMap<String, Timestamp>,
    /// Restores with something left to be done.
    moving: BTreeSet<RestoreKey>,
    /// Requests for a restore of a backup that were not refused, and have got none.
    asked: BTreeMap<BackupKey, u32>,
    /// When each of them that has a name was first sent since it was refused, and how often.
    tries: BTreeMap<String, (Timestamp, u32)>,
}

/// A restore, as its row has been.
#[derive(Debug, Default)]
pub(super) struct Restore {
    rows: Vec<(Timestamp, RowRef)>,
    statuses: BTreeSet<String>,
    /// By kind: the ids under which the bus took it.
    announced: BTreeMap<String, BTreeSet<String>>,
}

/// What was made under a client token.
#[derive(Debug)]
struct Token {
    asked: String,
    volume: String,
    at: Timestamp,
}

/// A volume that a call of ours has made.
#[derive(Debug)]
struct Made {
    restore: RestoreKey,
    /// A node has run on it since the first start.
    ran: bool,
}

impl Restores {
    /// Somebody asks who may: a request that has a name asks for one restore, however often
    /// it is sent as long as its answer is kept.
    pub(super) fn ask(&mut self, backup: BackupKey, named: Option<String>, now: Timestamp) {
        let tries = named.map_or(1, |named| {
            let (first, tries) = self.tries.entry(named).or_default();
            if *tries == 0 || *first + (KEPT - SLACK) < now {
                (*first, *tries) = (now, 0);
            }
            *tries += 1;
            *tries
        });
        if tries == 1 {
            *self.asked.entry(backup).or_default() += 1;
        }
    }

    /// Such a request was refused. False: it has got its restore.
    pub(super) fn refused(&mut self, backup: BackupKey, named: Option<String>) -> bool {
        let Some((_, tries)) = named.and_then(|named| self.tries.get_mut(&named)) else {
            return self.settle(backup);
        };
        // Of an earlier try nobody knows what came of it.
        if *tries > 1 {
            return true;
        }
        *tries = 0;
        self.settle(backup)
    }

    /// One of the requests is over: it was refused, or has got its restore. False: there
    /// was none.
    pub(super) fn settle(&mut self, backup: BackupKey) -> bool {
        match self.asked.get_mut(&backup) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        }
    }
}

impl Restore {
    /// The row as it is.
    fn row(&self) -> Option<&RowRef> {
        self.rows.last().map(|(_, row)| row)
    }
}

/// Whether a restore holds its deployment.
fn is_active(row: &Value) -> bool {
    matches!(text(row, "status"), "pending" | "in_progress" | "rolling_back" | "stuck")
}

/// The volumes that a node is to get.
fn news(node: &Value) -> impl Iterator<Item = (&str, &str)> {
    items(&node["new"])
        .map(|one| (text(one, "volume_id"), text(one, "device")))
        .filter(|(volume, _)| !volume.is_empty())
}

/// The volumes that a node had.
fn olds(node: &Value) -> impl Iterator<Item = (&str, &str)> {
    items(&node["old"]).map(|one| (text(one, "volume_id"), text(one, "device")))
}

/// Whether exactly these volumes hang on the instance, each at its device.
fn hangs(cloud: &Cloud, instance: &str, wanted: &mut dyn Iterator<Item = (&str, &str)>) -> bool {
    let Some(view) = cloud.instance(instance) else { return false };
    let have: BTreeSet<(&str, &str)> = view.data_volumes.iter().copied().collect();
    have == wanted.collect()
}

/// Whether the instance is on its way out, or gone.
fn is_gone(cloud: &Cloud, instance: &str) -> bool {
    cloud.instance(instance).is_none_or(|one| matches!(one.state, "terminated" | "shutting-down"))
}

impl Oracle {
    /// Somebody changes a node, or what hangs on it, by hand.
    pub(crate) fn meddled(&mut self, now: Timestamp, instance: &str) {
        self.restores.meddled.insert(instance.to_owned(), now);
    }

    /// Whether somebody did, since then.
    fn is_meddled(&self, instance: &str, since: Timestamp) -> bool {
        self.restores.meddled.get(instance).is_some_and(|at| *at + MEDDLED >= since)
    }

    /// From when to when the last restore that completed was down.
    pub(crate) fn last_downtime(&self) -> Option<(Timestamp, Timestamp)> {
        let rows = self.restores.all.values().filter_map(Restore::row);
        let done = rows.rev().find(|row| row["status"] == "completed")?;
        time(done, "stopped_at").zip(time(done, "started_at"))
    }

    /// The restores that a deployment has had, as their rows say.
    pub(crate) fn restores_of(&self, deployment: u64) -> impl Iterator<Item = (u64, &RowRef)> {
        let all = self.restores.all.range((deployment, 0)..=(deployment, u64::MAX));
        all.filter_map(|((_, id), one)| Some((*id, one.row()?)))
    }

    /// The restores that wait for an operator.
    pub(crate) fn stuck(&self) -> Vec<RestoreKey> {
        let stuck = |one: &Restore| one.row().is_some_and(|row| text(row, "status") == "stuck");
        let all = self.restores.all.iter();
        all.filter(|(_, one)| stuck(one)).map(|(key, _)| *key).collect()
    }

    /// Whether a restore has something left to be done.
    pub(super) fn restoring(&self) -> bool {
        !self.restores.moving.is_empty()
    }

    /// Whose restore an instance is in, now.
    fn restore_on(&self, instance: &str) -> Option<(RestoreKey, &RowRef)> {
        self.restores.all.iter().find_map(|(key, one)| {
            let row = one.row().filter(|row| is_active(row))?;
            let mut nodes = items(&row["nodes"]);
            nodes.any(|node| text(node, "instance_id") == instance).then_some((*key, row))
        })
    }

    /// Notes which of the new volumes a node runs on since the first start.
    fn watch(&mut self, cloud: &Cloud) {
        let Restores { all, made, .. } = &mut self.restores;
        for (id, one) in made.iter_mut().filter(|(_, one)| !one.ran) {
            let row = all.get(&one.restore).and_then(Restore::row);
            let launched = row.is_some_and(|row| time(row, "launched_at").is_some());
            let on = cloud.volume(id).and_then(|volume| volume.attachment.map(|(on, _)| on));
            let state = on.and_then(|on| cloud.instance(on)).map(|one| one.state);
            one.ran |= launched && state == Some("running");
        }
    }

    /// The last restore of a deployment whose backup this is, if it holds it.
    pub(super) fn pins(&self, key: BackupKey) -> Option<u64> {
        let mut all = self.restores_of(key.0);
        all.find_map(|(id, row)| {
            (is_active(row) && row["backup_id"].as_u64() == Some(key.1)).then_some(id)
        })
    }
}
