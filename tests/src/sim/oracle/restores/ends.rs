//! Announcements of restores, and the last word: nobody is down, nothing is left over.

use cloud::Cloud;
use jiff::Timestamp;
use serde_json::Value;

use super::super::{Oracle, SLACK, Verdict, time, violated};
use super::{RestoreKey, is_active, is_gone, news, olds};
use crate::rows::{items, text};

/// Each kind, and the status that a restore must have come to.
const KINDS: [(&str, &str); 6] = [
    ("Restore Requested", "pending"),
    ("Restore Started", "in_progress"),
    ("Restore Completed", "completed"),
    ("Restore Failed", "failed"),
    ("Restore Rolled Back", "rolled_back"),
    ("Restore Stuck", "stuck"),
];

impl Oracle {
    /// The bus has taken an announcement of a restore.
    pub(in super::super) fn restore_announced(
        &mut self,
        now: Timestamp,
        kind: &str,
        detail: &Value,
    ) -> Verdict {
        let id = |name: &str| detail[name].as_u64().unwrap_or(0);
        let key: RestoreKey = (id("deployment_id"), id("restore_id"));
        let untrue = |why: &str| {
            violated("announced-untrue", format!("{kind} of restore {key:?}: {why}: {detail}"))
        };
        let Some(one) = self.restores.all.get_mut(&key) else {
            return untrue("there never was one");
        };
        let Some((_, needs)) = KINDS.iter().find(|(name, _)| *name == kind) else {
            return violated("announcement-shape", format!("{kind} is none of ours"));
        };
        let Some(row) = one.row().cloned() else { return untrue("it has no row") };
        let same = ["tenant_id", "backup_id"].iter().all(|name| row[*name] == detail[*name]);
        if !one.statuses.contains(*needs) || !same || text(detail, "status") != *needs {
            return untrue("it was never so");
        }
        if time(detail, "at").is_none_or(|at| at > now + SLACK) {
            return untrue("it was later");
        }
        let ids = one.announced.entry(kind.to_owned()).or_default();
        ids.insert(text(detail, "announcement_id").to_owned());
        if ids.len() > 1 && kind != "Restore Stuck" {
            return violated("announced-twice", format!("{kind} of restore {key:?} as {ids:?}"));
        }
        Ok(())
    }

    /// All is at rest: what became of each restore, and of its volumes.
    pub(in super::super) fn restores_at_rest(&self, cloud: &Cloud) -> Verdict {
        for (key, one) in &self.restores.all {
            let Some(row) = one.row() else { continue };
            if is_active(row) {
                return violated("restore-rest", format!("restore {key:?} is not over: {row}"));
            }
            for (kind, status) in KINDS {
                if one.statuses.contains(status) && !one.announced.contains_key(kind) {
                    return violated("untold", format!("{kind} of restore {key:?}"));
                }
            }
            self.nobody_is_down(*key, row, cloud)?;
            self.old_volumes_are_as_told(*key, row, cloud)?;
        }
        for (id, made) in &self.restores.made {
            let there = cloud.volume(id).filter(|one| one.state != "deleting");
            let Some(volume) = there else { continue };
            let row = self.restores.all.get(&made.restore).and_then(super::Restore::row);
            let Some(row) = row else { continue };
            let named = items(&row["nodes"]).flat_map(news).any(|(one, _)| one == id);
            // A later restore may have taken it off again.
            let rows = self.restores_of(made.restore.0).map(|(_, row)| row);
            let left = rows
                .flat_map(|row| items(&row["leftovers"]))
                .find(|one| text(one, "volume_id") == id);
            let bears = volume.tags.keys().any(|key| key.starts_with("ld:restore"));
            let adopted = named && text(row, "status") == "completed" && left.is_none() && !bears;
            let kept = left.is_some_and(|one| text(one, "fate") == "kept") && bears;
            // Released by an operator with what hung on the nodes, or taken by somebody.
            let hangs = volume.attachment.is_some() && left.is_none();
            if !(adopted || kept || hangs) {
                return violated("volume-leaked", format!("{volume:?} of restore {row}"));
            }
        }
        Ok(())
    }

    /// Who ran runs, unless somebody else stopped it since.
    fn nobody_is_down(&self, key: RestoreKey, row: &Value, cloud: &Cloud) -> Verdict {
        for node in items(&row["nodes"]).filter(|node| node["was_running"] == true) {
            let instance = text(node, "instance_id");
            let meddled = self.restores.meddled.contains_key(instance);
            let state = cloud.instance(instance).map_or("none", |one| one.state);
            if !meddled && !is_gone(cloud, instance) && state != "running" {
                return violated(
                    "left-down",
                    format!("{instance} is {state}, after {key:?}: {row}"),
                );
            }
        }
        Ok(())
    }

    /// The old volumes of a completed restore are gone after their time, and all others
    /// are there.
    fn old_volumes_are_as_told(&self, key: RestoreKey, row: &Value, cloud: &Cloud) -> Verdict {
        for node in items(&row["nodes"]) {
            let instance = text(node, "instance_id");
            if self.restores.meddled.contains_key(instance) {
                continue;
            }
            for old in items(&node["old"]) {
                let (id, device) = (text(old, "volume_id"), text(old, "device"));
                let there = cloud.volume(id).is_some_and(|one| one.state != "deleting");
                let covered = news(node).any(|(_, at)| at == device);
                let goes = text(row, "status") == "completed"
                    && row["was_stuck"] != true
                    && covered
                    && old["late"] != true;
                // What a later restore took off it deletes in its own time.
                let later = self.restores_of(key.0).any(|(other, row)| {
                    other > key.1
                        && items(&row["nodes"]).flat_map(olds).any(|(other, _)| other == id)
                });
                if there == goes && !later {
                    let what = if there { "is there" } else { "is gone" };
                    return violated("old-volume", format!("{id} {what}, after {key:?}: {row}"));
                }
            }
        }
        Ok(())
    }
}
