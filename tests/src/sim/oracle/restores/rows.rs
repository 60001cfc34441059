//! A restore's row, after each write: edges, what never changes, and what must be true of
//! EC2 when it says that it is over.

use std::collections::BTreeSet;
use std::sync::Arc;

use cloud::{Cloud, VolumeView};
use jiff::Timestamp;
use serde_json::Value;

use super::super::{LOOKS, Oracle, Verdict, time, violated};
use super::{MEDDLED, RestoreKey, hangs, is_active, is_gone, news, olds};
use crate::rows::{items, named, text};
use crate::sim::reach::Reach;
use crate::sim::table::Change;

/// The edges, with the row's birth.
const EDGES: &[(&str, &str)] = &[
    ("new", "pending"),
    ("pending", "in_progress"),
    ("pending", "failed"),
    ("in_progress", "completed"),
    ("in_progress", "rolling_back"),
    ("in_progress", "failed"),
    ("in_progress", "stuck"),
    ("rolling_back", "in_progress"),
    ("rolling_back", "rolled_back"),
    ("rolling_back", "failed"),
    ("rolling_back", "stuck"),
    ("stuck", "in_progress"),
    ("stuck", "rolling_back"),
    ("stuck", "completed"),
    ("stuck", "rolled_back"),
    ("stuck", "failed"),
    ("in_progress", "rolled_back"),
];

/// Those that no seed need go over: an operator's release, in the right moment.
const SELDOM: &[(&str, &str)] = &[
    ("pending", "failed"),
    ("in_progress", "rolled_back"),
    ("rolling_back", "in_progress"),
    ("stuck", "completed"),
    ("stuck", "rolled_back"),
    ("stuck", "failed"),
];

/// Why restores fail, in many seeds.
const FAILURES: &[&str] = &[
    "deadline_exceeded",
    "multi_attach",
    "node_missing",
    "permission_denied",
    "quota",
    "safety_backup_failed",
    "snapshot_missing",
    "stop_failed",
    "superseded",
];

/// Those that only an operator's order leads over.
const ORDERED: &[(&str, &str)] = &[
    ("stuck", "in_progress"),
    ("stuck", "rolling_back"),
    ("stuck", "completed"),
    ("stuck", "rolled_back"),
    ("in_progress", "rolled_back"),
    ("rolling_back", "in_progress"),
];

/// What a restore has from its birth on.
const FIXED: &[&str] = &[
    "deployment_id",
    "id",
    "tenant_id",
    "region",
    "backup_id",
    "safety_backup_id",
    "requested_at",
    "token",
];

impl Oracle {
    pub(in super::super) fn restore_changed(
        &mut self,
        now: Timestamp,
        key: RestoreKey,
        change: &Change,
        cloud: &Cloud,
        reach: &mut Reach,
    ) -> Verdict {
        self.watch(cloud);
        let Some(new) = &change.new else {
            return violated("restore-kept", format!("the row of restore {key:?} was removed"));
        };
        let to = text(new, "status").to_owned();
        let from = change.old.as_ref().map_or("new", |row| text(row, "status")).to_owned();
        let edge = (from.as_str(), to.as_str());
        if change.old.is_none() {
            let backup = (key.0, new["backup_id"].as_u64().unwrap_or(0));
            if !self.restores.settle(backup) {
                return violated("unasked", format!("nobody asked for restore {key:?}: {new}"));
            }
        }
        let one = self.restores.all.entry(key).or_default();
        one.rows.push((now, Arc::clone(new)));
        one.statuses.insert(to.clone());
        // An order is obeyed in the very write that answers it.
        let old = change.old.as_ref().map(|old| &old["answers"]);
        let ordered = old.is_some_and(|answers| *answers != new["answers"]);
        if from != to {
            if !SELDOM.contains(&edge) {
                reach.hit(&format!("restore {from}>{to}"));
            }
            if !EDGES.contains(&edge) || (ORDERED.contains(&edge) && !ordered) {
                return violated(
                    "restore-edge",
                    format!("restore {key:?} went from {from} to {to}"),
                );
            }
        }
        if let Some(phase) = new["phase"].as_str() {
            let was = change.old.as_ref().is_some_and(|old| old["phase"] == new["phase"]);
            if !was {
                reach.hit(&format!("restore phase {phase}"));
            }
        }
        if let Some(old) = &change.old {
            if let Some(name) = FIXED.iter().find(|name| old[**name] != new[**name]) {
                return violated(
                    "fixed",
                    format!("restore {key:?}: {name} was {} and is {}", old[*name], new[*name]),
                );
            }
            stays_written(key, old, new)?;
        }
        let frozen = |row: &Value| !row["frozen_at"].is_null();
        if frozen(new) && !change.old.as_ref().is_some_and(|old| frozen(old)) {
            self.frozen(key, new)?;
        }
        if from != to {
            match to.as_str() {
                "completed" => self.restored(now, key, new, cloud)?,
                "rolled_back" => self.is_back(now, key, new, cloud)?,
                "failed" => {
                    let code = text(&new["failure"], "code");
                    let code = if FAILURES.contains(&code) { code } else { "of another kind" };
                    reach.hit(&format!("restore failure {code}"));
                }
                "rolling_back" => self.may_go_back(key, new, ordered)?,
                _ => {}
            }
        }
        if (new["progress"] == 100) != (to == "completed") {
            return violated("progress", format!("restore {key:?} is {to}: {}", new["progress"]));
        }
        let rests = new["due_at"].is_null() || to == "stuck";
        if rests {
            self.restores.moving.remove(&key);
        } else {
            self.restores.moving.insert(key);
        }
        let left = items(&new["leftovers"])
            .any(|one| text(one, "fate") == "deleted" || one["tagged"] != true);
        let told = items(&new["outbox"]).next().is_none();
        let due = time(new, "due_at");
        if (is_active(new) || left || !told) && due.is_none() {
            return violated("not-due", format!("restore {key:?} is {to} and not due: {new}"));
        }
        if is_active(new) && due.is_some_and(|due| due > now + LOOKS) {
            return violated("due-late", format!("restore {key:?} is {to} and due at {due:?}"));
        }
        Ok(())
    }

    /// One at a time; its slot and its pin say what is; and a backup runs beside it only if
    /// it is the one that goes first.
    pub(in super::super) fn restore_slot(&self, deployment: u64, meta: &Value) -> Verdict {
        let all = self.restores_of(deployment).filter(|(_, row)| is_active(row));
        let active: Vec<(u64, &Value)> = all.map(|(id, row)| (id, row.as_ref())).collect();
        if active.len() > 1 {
            return violated("one-at-a-time", format!("restores {active:?} of {deployment}"));
        }
        let one = active.first();
        if meta["active_restore"].as_u64() != one.map(|(id, _)| *id) {
            let slot = &meta["active_restore"];
            return violated("slot", format!("deployment {deployment}: {slot}, active {active:?}"));
        }
        let running = meta["active_backup"].as_u64();
        if let (Some((_, row)), Some(running)) = (one, running)
            && row["safety_backup_id"].as_u64() != Some(running)
        {
            return violated("one-at-a-time", format!("backup {running} beside restore {row}"));
        }
        for (id, row) in self.backups_of(deployment) {
            if let Some(of) = text(row, "name").strip_prefix("before restore ") {
                let of = of.parse().ok().and_then(|of| self.restores.all.get(&(deployment, of)));
                let named =
                    of.and_then(super::Restore::row).map(|of| of["safety_backup_id"].clone());
                if named.is_none_or(|named| named != id) {
                    return violated("unasked", format!("backup {id} of {deployment}: {row}"));
                }
            }
            let pinned = self.pins((deployment, id));
            if row["pinned_by"].as_u64() != pinned {
                return violated(
                    "pin",
                    format!("backup {id} of {deployment} is {row}, needed by {pinned:?}"),
                );
            }
            if pinned.is_some() && text(row, "status") != "completed" {
                return violated(
                    "pin",
                    format!("a restore needs backup {id} of {deployment}: {row}"),
                );
            }
        }
        Ok(())
    }

    /// Only as long as no node may have written to its new volumes.
    fn may_go_back(&self, key: RestoreKey, row: &Value, ordered: bool) -> Verdict {
        let ran = |id: &str| self.restores.made.get(id).is_some_and(|one| one.ran);
        let wrote = items(&row["nodes"]).flat_map(news).find(|(id, _)| ran(id));
        match wrote.filter(|_| !ordered) {
            Some((id, _)) => violated(
                "back-after-start",
                format!("restore {key:?} goes back, and a node has run on {id}: {row}"),
            ),
            None => Ok(()),
        }
    }

    /// What is written down before the first stop is of the nodes that the deployment has.
    fn frozen(&self, key: RestoreKey, row: &Value) -> Verdict {
        let meta = self.deployments.get(&key.0).and_then(|one| one.rows.last());
        let ids = |row: &Value| -> BTreeSet<String> {
            let all = items(&row["nodes"]);
            all.map(|one| format!("{} {}", one["node_id"], one["instance_id"])).collect()
        };
        match meta {
            Some((_, meta)) if ids(meta) == ids(row) && meta["deleted"] != true => Ok(()),
            _ => violated("frozen", format!("restore {key:?} is of other nodes: {row}, {meta:?}")),
        }
    }

    /// Whether somebody changed a node so lately that the look may be older.
    fn is_unclear(&self, now: Timestamp, instance: &str) -> bool {
        let at = self.restores.meddled.get(instance);
        at.is_some_and(|at| *at + MEDDLED >= now)
    }

    /// Who ran runs, on the backup's data.
    fn restored(&self, now: Timestamp, key: RestoreKey, row: &Value, cloud: &Cloud) -> Verdict {
        let wrong = |what: String| violated("restored-untrue", format!("{key:?}: {what}: {row}"));
        let backup = (key.0, row["backup_id"].as_u64().unwrap_or(0));
        let has: BTreeSet<&str> = self
            .backups_of(key.0)
            .filter(|(id, _)| *id == backup.1)
            .flat_map(|(_, row)| named(row).map(|(id, _)| id))
            .collect();
        let made = items(&row["nodes"]).flat_map(|node| items(&node["new"]));
        let made: BTreeSet<&str> = made.map(|one| text(one, "snapshot_id")).collect();
        if has != made {
            return wrong(format!("it is made of {made:?}, the backup has {has:?}"));
        }
        for node in items(&row["nodes"]) {
            let instance = text(node, "instance_id");
            if self.is_unclear(now, instance) || is_gone(cloud, instance) {
                continue;
            }
            let state = cloud.instance(instance).map_or("none", |one| one.state);
            if node["was_running"] == true && state != "running" {
                return wrong(format!("{instance} is {state}"));
            }
            if node["swaps"] != true {
                continue;
            }
            // What somebody attached to a node that runs again is theirs.
            let meddled = self.restores.meddled.contains_key(instance);
            if !meddled && !hangs(cloud, instance, &mut news(node)) {
                return wrong(format!("{instance} has not the backup's set"));
            }
            for new in items(&node["new"]) {
                let id = text(new, "volume_id");
                let (Some(volume), Some(snapshot)) =
                    (cloud.volume(id), cloud.snapshot(text(new, "snapshot_id")))
                else {
                    continue;
                };
                if volume.snapshot_id != Some(snapshot.snapshot_id)
                    || volume.content != snapshot.content
                {
                    return wrong(format!(
                        "{id} is {:?} of {:?}",
                        volume.content, snapshot.content
                    ));
                }
                let of = self.snapshots.get(snapshot.snapshot_id).map(|one| one.node);
                if of != node["node_id"].as_u64() {
                    return wrong(format!(
                        "{id} is of {}, a volume of {of:?}",
                        snapshot.snapshot_id
                    ));
                }
                let device = text(new, "device");
                let old = items(&node["old"]).find(|one| text(one, "device") == device);
                let old = old.and_then(|one| cloud.volume(text(one, "volume_id")));
                if let Some(old) = old.filter(|_| !meddled)
                    && let Some(name) = differs(&old, &volume)
                {
                    return wrong(format!("{name} of {id} is not that of {}", old.volume_id));
                }
                let goes = volume.attached.map(|(_, goes)| goes);
                if !meddled && goes.is_some_and(|goes| new["delete_on_termination"] != goes) {
                    return wrong(format!("{id} goes with its instance: {goes:?}"));
                }
            }
        }
        Ok(())
    }

    /// Who ran runs, on its old volumes.
    fn is_back(&self, now: Timestamp, key: RestoreKey, row: &Value, cloud: &Cloud) -> Verdict {
        let wrong = |what: String| violated("back-untrue", format!("{key:?}: {what}: {row}"));
        for node in items(&row["nodes"]) {
            let instance = text(node, "instance_id");
            if self.is_unclear(now, instance) || is_gone(cloud, instance) {
                continue;
            }
            let state = cloud.instance(instance).map_or("none", |one| one.state);
            if node["was_running"] == true && state != "running" {
                return wrong(format!("{instance} is {state}"));
            }
            let Some(view) = cloud.instance(instance) else { continue };
            let has = |one: &(&str, &str)| view.data_volumes.contains(one);
            let meddled = self.restores.meddled.contains_key(instance);
            if node["swaps"] == true && !meddled && !olds(node).all(|one| has(&one)) {
                return wrong(format!("{instance} has not its old set"));
            }
        }
        Ok(())
    }
}

/// What a new volume does not have of the one that it replaces. Its size is at least
/// that of the snapshot, and its key may be the snapshot's.
fn differs(old: &VolumeView<'_>, new: &VolumeView<'_>) -> Option<&'static str> {
    let ours = |key: &str| key.starts_with("ld:") || key.starts_with("laserdata:");
    let mut tags = old.tags.iter().filter(|(key, _)| !ours(key));
    let all = [
        ("type", old.volume_type == new.volume_type),
        ("iops", old.iops == new.iops),
        ("throughput", old.throughput == new.throughput),
        ("zone", old.zone == new.zone),
        ("size", old.size_gib <= new.size_gib),
        ("key", old.kms_key_id.is_none() || old.kms_key_id == new.kms_key_id),
        ("tags", tags.all(|(key, value)| new.tags.get(key) == Some(value))),
        ("managed tag", new.tags.contains_key("laserdata:managed")),
    ];
    all.into_iter().find(|(_, same)| !same).map(|(name, _)| name)
}

/// Once a call may have touched the deployment, what was written down before stays.
fn stays_written(key: RestoreKey, old: &Value, new: &Value) -> Verdict {
    if old["touched_at"].is_null() {
        return Ok(());
    }
    let frozen = |row: &Value| -> Vec<Value> {
        let mut all = Vec::new();
        for node in items(&row["nodes"]) {
            all.push(node["was_running"].clone());
            all.extend(items(&node["old"]).filter(|one| one["late"] != true).cloned());
            all.extend(items(&node["new"]).map(|one| one["volume_id"].clone()));
        }
        all
    };
    if frozen(old) == frozen(new) {
        return Ok(());
    }
    violated("frozen", format!("restore {key:?}: was {old} and is {new}"))
}
