//! When everything is at rest: nothing is left over, nothing is lost, and all
//! that happened was told.

use std::collections::{BTreeMap, BTreeSet};

use cloud::Cloud;
use jiff::Timestamp;
use serde_json::Value;

use super::super::table::Table;
use super::bus::{KINDS, told_of};
use super::deployments::DELETED;
use super::{Oracle, SaidKey, Verdict, violated};
use crate::rows::{items, named, text};

impl Oracle {
    /// The last word. `cleared`: every backup was deleted.
    pub(crate) fn at_rest(
        &self,
        now: Timestamp,
        cloud: &Cloud,
        table: &Table,
        cleared: bool,
    ) -> Verdict {
        self.nothing_leaks(cloud)?;
        self.nothing_is_lost(cloud)?;
        self.all_was_told()?;
        self.all_is_answered()?;
        self.all_is_told()?;
        self.orphans_are_told()?;
        self.no_row_is_left(table)?;
        self.expired_in_peace(now)?;
        self.restores_at_rest(cloud)?;
        nothing_is_given_up(cloud)?;
        self.registry_is_new(cloud)?;
        self.keys_are_new(table)?;
        if cleared { self.nothing_is_there(cloud) } else { Ok(()) }
    }

    /// Each deployment is as the control plane said last.
    fn registry_is_new(&self, cloud: &Cloud) -> Verdict {
        let dead = cloud.dead_letters();
        let has =
            |detail: &Value| items(&dead).any(|one| one["event"]["detail"] == told_of(detail));
        if let Some(detail) = self.refused.iter().find(|detail| !has(detail)) {
            return violated("not-refused", format!("{detail} is in no dead letter"));
        }
        for (id, deployment) in &self.deployments {
            let Some((version, (kind, _))) = deployment.said.last_key_value() else { continue };
            let row = deployment.rows.last().map(|(_, row)| row);
            let known = row.and_then(|row| row["registry_version"].as_u64());
            let mut ends = deployment.said.iter().filter(|(_, (kind, _))| kind == DELETED);
            let end = ends.next_back().map(|(version, _)| *version);
            let ended = row.and_then(|row| row["deleted_version"].as_u64());
            if let Some(end) = end.filter(|end| ended < Some(*end)) {
                let what = format!("deployment {id} ended at {ended:?}, and was said to at {end}");
                return violated("registry-behind", what);
            }
            if known != Some(*version) {
                return violated(
                    "registry-behind",
                    format!("deployment {id} is at {known:?}, the last {kind} said {version}"),
                );
            }
        }
        Ok(())
    }

    /// Each key is as the control plane said last.
    fn keys_are_new(&self, table: &Table) -> Verdict {
        for (id, SaidKey { last, over, said }) in &self.keys {
            let row = table.item(&(format!("KEY#{}", text(last, "hash")), "KEY".to_owned()));
            let row = row.as_deref().unwrap_or(&Value::Null);
            // What ends it may come first, and then it is told nothing any more.
            let same = *over || row["version"]["N"] == last["version"].to_string().as_str();
            if !same || row["revoked_at"].is_null() == *over {
                return violated("key-behind", format!("key {id} is {row}, and was said {said:?}"));
            }
        }
        Ok(())
    }

    /// What still moves when nothing should.
    pub(crate) fn unrest(&self, cloud: &Cloud, table: &Table) -> String {
        let rows: Vec<String> = self
            .moving
            .iter()
            .filter_map(|key| self.backups.get(key)?.row().map(ToString::to_string))
            .collect();
        let due = table.next_due();
        format!("not at rest: {rows:?}; on their way: {:?}; due: {due:?}", cloud.undelivered())
    }

    /// Each snapshot of ours is of a completed backup that names it.
    fn nothing_leaks(&self, cloud: &Cloud) -> Verdict {
        for one in cloud.snapshots().filter(|one| one.exists) {
            let Some(ours) = self.snapshots.get(one.snapshot_id) else { continue };
            let row = self.backups.get(&ours.backup).and_then(|backup| backup.row());
            let kept = row.is_some_and(|row| {
                (text(row, "status") == "completed" || self.was_complete(ours.backup))
                    && text(row, "status") != "deleting"
                    && named(row).any(|(id, _)| id == one.snapshot_id)
            });
            if !kept {
                return violated(
                    "leaked",
                    format!(
                        "{} of backup {:?} is there, and the row is {row:?}",
                        one.snapshot_id, ours.backup
                    ),
                );
            }
        }
        Ok(())
    }

    /// Each completed backup has all its snapshots, but for what people deleted;
    /// each other one has none.
    fn nothing_is_lost(&self, cloud: &Cloud) -> Verdict {
        let mut owners = BTreeMap::new();
        for (key, backup) in &self.backups {
            let Some(row) = backup.row() else { continue };
            // One that has lost a snapshot keeps the others.
            let completed = text(row, "status") == "completed" || self.was_complete(*key);
            for (id, _) in named(row) {
                if let Some(other) = owners.insert(id.to_owned(), key) {
                    return violated("shared", format!("{id} is {other:?}'s and {key:?}'s"));
                }
                let by_hand = self.snapshots.get(id).is_some_and(|one| one.by_hand.is_some());
                let there =
                    cloud.snapshot(id).is_some_and(|one| one.exists && one.state == "completed");
                if completed && !there && !by_hand {
                    return violated(
                        "lost",
                        format!("{id} of the completed backup {key:?} is gone"),
                    );
                }
                if !completed {
                    return violated(
                        "left",
                        format!(
                            "backup {key:?} is at rest, {}, and names {id}",
                            text(row, "status")
                        ),
                    );
                }
            }
        }
        Ok(())
    }

    /// Every status that a backup has come to was announced.
    fn all_was_told(&self) -> Verdict {
        for (key, backup) in &self.backups {
            if backup.rows.is_empty() {
                continue;
            }
            for (kind, status) in KINDS {
                let told = match kind {
                    // Announced when it is gone, and there is no status of that name.
                    "Backup Deleted" => backup.row().is_none(),
                    "Backup Expired" => backup.expired,
                    _ => backup.statuses.contains(status),
                };
                if told && !backup.announced.contains_key(kind) {
                    return violated("untold", format!("{kind} of {key:?} was never announced"));
                }
            }
        }
        Ok(())
    }

    /// No row is left of what is gone.
    fn no_row_is_left(&self, table: &Table) -> Verdict {
        let owned: BTreeSet<String> = self
            .backups
            .values()
            .filter_map(|backup| backup.row())
            .flat_map(|row| items(&row["owners"]).filter_map(|id| id.as_str()))
            .map(|id| format!("SNAPSHOTS#{id}"))
            .collect();
        for (pk, sk) in table.rows().keys() {
            if sk == "OWNER" && !owned.contains(pk) {
                return violated(
                    "row-left",
                    format!("{pk} has an owner row, and no backup has it"),
                );
            }
            let Some(rest) = sk.strip_prefix("VOLUMES#BACKUP#") else { continue };
            let id = rest.split('#').next().and_then(|id| id.parse().ok());
            let deployment = pk.strip_prefix("DEPLOYMENT#").and_then(|id| id.parse().ok());
            let there = deployment.zip(id).is_some_and(|key| {
                self.backups.get(&key).is_some_and(|backup| backup.row().is_some())
            });
            if !there {
                return violated("row-left", format!("{pk} {sk} is of a backup that is gone"));
            }
        }
        Ok(())
    }

    fn nothing_is_there(&self, cloud: &Cloud) -> Verdict {
        if let Some((key, backup)) = self.backups.iter().find(|(_, backup)| backup.row().is_some())
        {
            return violated(
                "not-cleared",
                format!("backup {key:?} was deleted and is {:?}", backup.row()),
            );
        }
        let left: Vec<&str> = cloud
            .snapshots()
            .filter(|one| one.exists && self.is_ours(one.snapshot_id))
            .map(|one| one.snapshot_id)
            .collect();
        if left.is_empty() { Ok(()) } else { violated("not-cleared", format!("{left:?} are left")) }
    }
}

/// What the control plane said waits until it is done, or is refused with a reason: of a
/// refused one the dead letters have what a rule handed them, and no try that failed.
fn nothing_is_given_up(cloud: &Cloud) -> Verdict {
    let dead = cloud.dead_letters();
    let ours = |one: &&Value| one["event"]["source"] == "supervisor.control-plane";
    let tried = |one: &&Value| one["attempts"] != 0 || text(one, "reason").is_empty();
    match items(&dead).filter(ours).find(tried) {
        Some(one) => violated("given-up", one.to_string()),
        None => Ok(()),
    }
}
