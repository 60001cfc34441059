//! The table's rows, after each write: edges, slots, counts, what never changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use cloud::Cloud;
use jiff::Timestamp;
use local::Name;
use serde_json::Value;

use super::super::life::Life;
use super::super::reach::Reach;
use super::super::table::{Change, RowRef, Table};
use super::{
    Backup, BackupKey, Oracle, SLACK, Verdict, Violation, found, moves, named, text, time, violated,
};

/// The contract's edges, with the row's birth and end.
const EDGES: &[(&str, &str)] = &[
    ("new", "pending"),
    ("pending", "in_progress"),
    ("pending", "failed"),
    ("in_progress", "completed"),
    ("in_progress", "failed"),
    ("completed", "deleting"),
    ("failed", "deleting"),
    ("deleting", "gone"),
];

/// What a backup has from its birth to its end. There is no PATCH yet: what a
/// person may change stands here too.
const FIXED: &[&str] = &[
    "deployment_id",
    "id",
    "tenant_id",
    "region",
    "node_id",
    "backup_type",
    "created_at",
    "token",
    "name",
    "remarks",
    "expires_at",
];

impl Oracle {
    /// One call has changed these rows.
    pub(crate) fn changed(
        &mut self,
        now: Timestamp,
        life: &Life,
        changes: &[Change],
        cloud: &Cloud,
        table: &Table,
        reach: &mut Reach,
    ) -> Option<Violation> {
        found(self.all_changed(now, life, changes, cloud, table, reach))
    }

    fn all_changed(
        &mut self,
        now: Timestamp,
        life: &Life,
        changes: &[Change],
        cloud: &Cloud,
        table: &Table,
        reach: &mut Reach,
    ) -> Verdict {
        let mut deployments = BTreeSet::new();
        // The deployment's row first: a new backup is measured by it.
        let meta = |change: &&Change| change.key.1 == "META";
        for change in changes.iter().filter(meta) {
            let Some(id) = deployment_of(&change.key.0) else { continue };
            deployments.insert(id);
            self.deployment_changed(now, id, change, reach)?;
        }
        for change in changes.iter().filter(|change| !meta(change)) {
            let sk = change.key.1.as_str();
            let deployment = deployment_of(&change.key.0);
            let backup = sk.strip_prefix("BACKUP#").and_then(|id| id.parse().ok());
            if let (Some(deployment), Some(id)) = (deployment, backup) {
                deployments.insert(deployment);
                self.backup_changed(now, life, (deployment, id), change, cloud, reach)?;
            } else if change.new.is_some() {
                match sk {
                    "OWNER" => reach.hit("turn owner row"),
                    _ if sk.starts_with("VOLUMES#") => reach.hit("turn volumes kept"),
                    _ if sk.starts_with("TOMBSTONE#") => reach.hit("turn tombstone"),
                    _ => {}
                }
            }
        }
        deployments.into_iter().try_for_each(|id| self.slot_and_count(id, table))
    }

    /// Two never run at once; the slot and the count say what is.
    fn slot_and_count(&self, deployment: u64, table: &Table) -> Verdict {
        let key = (format!("DEPLOYMENT#{deployment}"), "META".to_owned());
        let Some(meta) = table.rows().get(&key) else {
            return violated("deployment-kept", format!("deployment {deployment} has no row"));
        };
        let status = |row: &RowRef| text(row, "status").to_owned();
        let all: Vec<(u64, String)> =
            self.backups_of(deployment).map(|(id, row)| (id, status(row))).collect();
        let active: Vec<u64> = all
            .iter()
            .filter(|(_, status)| matches!(status.as_str(), "pending" | "in_progress"))
            .map(|(id, _)| *id)
            .collect();
        if active.len() > 1 {
            return violated(
                "one-at-a-time",
                format!("deployment {deployment}: {active:?} run at once"),
            );
        }
        if meta["active_backup"].as_u64() != active.first().copied() {
            let slot = &meta["active_backup"];
            return violated(
                "slot",
                format!("deployment {deployment}: the slot is {slot}, active is {active:?}"),
            );
        }
        let counted =
            all.iter().filter(|(_, status)| !matches!(status.as_str(), "failed" | "deleting"));
        let (count, counted) = (meta["backup_count"].as_u64().unwrap_or(0), counted.count() as u64);
        if count != counted {
            return violated(
                "count",
                format!("deployment {deployment}: the count is {count}, there are {counted}"),
            );
        }
        Ok(())
    }

    /// The registry's part follows the control plane's newest word; the counters
    /// only ever grow.
    fn deployment_changed(
        &mut self,
        now: Timestamp,
        id: u64,
        change: &Change,
        reach: &mut Reach,
    ) -> Verdict {
        let Some(new) = &change.new else {
            return violated("deployment-kept", format!("the row of deployment {id} was removed"));
        };
        let seen = self.deployments.entry(id).or_default();
        seen.rows.push((now, Arc::clone(new)));
        let before =
            |name: &str| change.old.as_ref().and_then(|old| old[name].as_u64()).unwrap_or(0);
        let version = new["registry_version"].as_u64().unwrap_or(0);
        if version < before("registry_version") {
            return violated("registry", format!("deployment {id} went back to version {version}"));
        }
        if new["next_backup_id"].as_u64().unwrap_or(0) < before("next_backup_id") {
            return violated("id-reuse", format!("deployment {id}: the next id went back"));
        }
        let registry = |row: &Value| {
            [
                "tenant_id",
                "status",
                "plan",
                "storage_type",
                "region",
                "backup_limit",
                "nodes",
                "deleted",
            ]
            .map(|name| row[name].clone())
        };
        if change.old.as_ref().is_some_and(|old| registry(old) == registry(new)) {
            return Ok(());
        }
        let Some((kind, said)) = seen.said.get(&version) else {
            return violated("registry", format!("deployment {id}: nobody sent version {version}"));
        };
        if kind == "Deployment Deleted" {
            reach.hit("registry deleted");
            if new["deleted"] != true {
                return violated(
                    "registry",
                    format!("deployment {id} was deleted, and its row does not say so"),
                );
            }
            return Ok(());
        }
        reach.hit("registry changed");
        for name in ["tenant_id", "status", "plan", "storage_type", "backup_limit"] {
            if new[name] != said[name] {
                return violated(
                    "registry",
                    format!(
                        "deployment {id} at version {version}: {name} is {}, the control plane said {}",
                        new[name], said[name]
                    ),
                );
            }
        }
        if let Some(old) = &change.old
            && !old["tenant_id"].is_null()
            && old["tenant_id"] != new["tenant_id"]
        {
            return violated("registry", format!("deployment {id} changed hands"));
        }
        Ok(())
    }

    fn backup_changed(
        &mut self,
        now: Timestamp,
        life: &Life,
        key: BackupKey,
        change: &Change,
        cloud: &Cloud,
        reach: &mut Reach,
    ) -> Verdict {
        let status = |row: &Option<RowRef>, none: &'static str| {
            row.as_ref().map_or(none.to_owned(), |row| text(row, "status").to_owned())
        };
        let (from, to) = (status(&change.old, "new"), status(&change.new, "gone"));
        if from != to {
            reach.hit(&format!("edge {from}>{to}"));
            if !EDGES.contains(&(from.as_str(), to.as_str())) {
                return violated("edge", format!("backup {key:?} went from {from} to {to}"));
            }
        }
        match (&change.old, &change.new) {
            (None, Some(new)) => self.born(now, key, new)?,
            (Some(old), None) => self.gone(key, old, cloud)?,
            (Some(old), Some(new)) => {
                if let Some(name) = FIXED.iter().find(|name| old[**name] != new[**name]) {
                    return violated(
                        "fixed",
                        format!("backup {key:?}: {name} was {} and is {}", old[*name], new[*name]),
                    );
                }
                turns(life, self.backups.get(&key), old, new, reach);
            }
            (None, None) => {}
        }
        let backup = self.backups.entry(key).or_default();
        backup.rows.push((now, change.new.clone()));
        backup.statuses.insert(to.clone());
        match &change.new {
            Some(row) if moves(row) => self.moving.insert(key),
            _ => self.moving.remove(&key),
        };
        let Some(new) = &change.new else { return Ok(()) };
        if from != to {
            match to.as_str() {
                "completed" => self.completed(now, key, new, cloud)?,
                "failed" => self.failed(now, key, new, cloud, reach)?,
                "deleting" => self.deleting(now, life, key, &from, new, reach)?,
                _ => {}
            }
        }
        if to == "deleting" && !new["failure"].is_null() && !new["held"].is_null() {
            reach.hit(&format!("held {}", text(&new["failure"], "code")));
        }
        self.stands_in_the_index(key, new, cloud)
    }

    /// A new backup is one that somebody asked for, and that the deployment allows.
    fn born(&mut self, now: Timestamp, key: BackupKey, row: &Value) -> Verdict {
        let (deployment, id) = key;
        let Some(seen) = self.deployments.get_mut(&deployment) else {
            return violated("born", format!("backup {key:?} is of no deployment"));
        };
        if id != seen.highest + 1 {
            return violated("id-reuse", format!("backup {key:?} follows {}", seen.highest));
        }
        seen.highest = id;
        // What was asked of an id that nothing had is not asked of what has it now.
        self.deletes.remove(&key);
        let Some((_, meta)) = seen.rows.last() else {
            return violated("born", format!("backup {key:?} is of no deployment"));
        };
        let limit = match (meta["backup_limit"].as_u64(), text(meta, "plan")) {
            (Some(limit), _) => limit,
            (None, "pro") => self.limits.pro,
            (None, "enterprise") => self.limits.enterprise,
            _ => 0,
        };
        if meta["backup_count"].as_u64().unwrap_or(0) > limit {
            return violated(
                "over-limit",
                format!("backup {key:?} is one over the limit of {limit}"),
            );
        }
        let allowed = matches!(text(meta, "plan"), "pro" | "enterprise")
            && text(meta, "storage_type").starts_with("network_")
            && text(meta, "status") == "initialized"
            && meta["deleted"] != true;
        if !allowed {
            return violated("not-allowed", format!("backup {key:?} of a deployment like {meta}"));
        }
        if row["tenant_id"] != meta["tenant_id"] {
            return violated("tenant", format!("backup {key:?} is of {}", row["tenant_id"]));
        }
        let Some((asked, got)) = self.names.get_mut(text(row, "name")) else {
            return violated("unasked", format!("nobody asked for backup {key:?}: {row}"));
        };
        if let Some(other) = got.replace(key) {
            return violated("made-twice", format!("{other:?} and {key:?} are of one request"));
        }
        let type_asked = asked["backup_type"].as_str().unwrap_or("manual");
        if row["node_id"] != asked["node_id"]
            || text(row, "backup_type") != type_asked
            || row["remarks"] != asked["remarks"]
        {
            return violated(
                "born",
                format!("backup {key:?} is not what was asked for: {row}, {asked}"),
            );
        }
        let created = time(row, "created_at").unwrap_or(Timestamp::MIN);
        let expires = asked["expires_in_days"]
            .as_i64()
            .map(|days| created + jiff::SignedDuration::from_hours(24 * days));
        if time(row, "expires_at") != expires {
            return violated(
                "born",
                format!("backup {key:?} expires at {}, not at {expires:?}", row["expires_at"]),
            );
        }
        if created.duration_since(now).abs() > SLACK {
            return violated(
                "time",
                format!("backup {key:?} is created at {created}, and it is {now}"),
            );
        }
        // Each node that it is of, once.
        let nodes = |of: &Value| -> BTreeSet<u64> {
            of["nodes"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|node| node["node_id"].as_u64())
                .collect()
        };
        let wanted = asked["node_id"].as_u64().map_or_else(|| nodes(meta), |node| [node].into());
        if nodes(row) != wanted || !wanted.is_subset(&nodes(meta)) {
            return violated(
                "nodes",
                format!("backup {key:?} is of {:?}, not of {wanted:?}", nodes(row)),
            );
        }
        Ok(())
    }

    /// Complete: each node's whole set is there, each snapshot finished.
    fn completed(&self, now: Timestamp, key: BackupKey, row: &Value, cloud: &Cloud) -> Verdict {
        let nodes = row["nodes"].as_array().cloned().unwrap_or_default();
        let mut size = 0;
        for node in &nodes {
            let ids: BTreeSet<&str> = named(&serde_json::json!({"nodes": [node]}))
                .map(|(id, _)| self.snapshots.get_key_value(id).map_or("", |(id, _)| id.as_str()))
                .collect();
            let Some(first) = ids.first().and_then(|id| self.snapshots.get(*id)) else {
                return violated(
                    "completed-empty",
                    format!("backup {key:?} has no snapshot of {node}"),
                );
            };
            let set: BTreeSet<&str> = first.set.iter().map(String::as_str).collect();
            if ids != set || first.backup != key || Some(first.node) != node["node_id"].as_u64() {
                return violated(
                    "completed-partial",
                    format!(
                        "backup {key:?} names {ids:?} of node {}, one call made {set:?}",
                        node["node_id"]
                    ),
                );
            }
        }
        for (id, volume) in named(row) {
            let Some(ours) = self.snapshots.get(id) else {
                return violated(
                    "completed-foreign",
                    format!("backup {key:?} names {id}, which is not ours"),
                );
            };
            // A person may delete one between the look and the write; and one that
            // was deleted while pending goes when it ends, and is listed for a while.
            let lag = jiff::SignedDuration::from_secs(60);
            let ended = cloud.snapshot(id).and_then(|one| one.ended_at);
            let just_deleted = ours.by_hand.is_some_and(|at| {
                [Some(at), ended].into_iter().flatten().any(|at| now.duration_since(at) < lag)
            });
            let there = cloud.snapshot(id).filter(|one| one.exists && one.state == "completed");
            match there {
                None if just_deleted => {}
                None => {
                    let state = cloud.snapshot(id).map(|one| (one.state, one.exists));
                    return violated(
                        "completed-without",
                        format!("backup {key:?} is called completed, and {id} is {state:?}"),
                    );
                }
                Some(one)
                    if one.volume_id != volume
                        || one.content.map(str::to_owned) != ours.content =>
                {
                    return violated(
                        "completed-other",
                        format!("backup {key:?}: {id} is not of {volume} as it was"),
                    );
                }
                Some(one) => size += u64::from(one.size_gib) << 30,
            }
        }
        let whole = named(row).all(|(id, _)| cloud.snapshot(id).is_some_and(|one| one.exists));
        if whole && row["size_bytes"].as_u64() != Some(size) {
            return violated(
                "size",
                format!("backup {key:?} says {} bytes, EC2 {size}", row["size_bytes"]),
            );
        }
        let times = ["created_at", "started_at", "completed_at"].map(|name| time(row, name));
        let [Some(created), Some(started), Some(completed)] = times else {
            return violated(
                "time",
                format!("backup {key:?} is completed, and its times are {times:?}"),
            );
        };
        if started + SLACK < created || completed < started || completed > now + SLACK {
            return violated(
                "time",
                format!("backup {key:?}: {created}, {started}, {completed}, and it is {now}"),
            );
        }
        Ok(())
    }

    /// Deleted is only what somebody asked for, what has expired, and what failed
    /// too often to be kept.
    fn deleting(
        &self,
        now: Timestamp,
        life: &Life,
        key: BackupKey,
        from: &str,
        row: &Value,
        reach: &mut Reach,
    ) -> Verdict {
        match life.function {
            Name::Scheduler => reach.hit("turn expiry began the delete"),
            Name::Worker => reach.hit("turn failed one pruned"),
            Name::Api => {}
        }
        let asked = self.deletes.contains(&key);
        let expired = time(row, "expires_at").is_some_and(|at| at <= now + SLACK);
        let newer = self
            .backups_of(key.0)
            .filter(|(id, row)| *id > key.1 && text(row, "status") == "failed");
        let pruned = from == "failed" && newer.count() >= 20;
        let by = match life.function {
            Name::Api => asked,
            Name::Scheduler => expired,
            Name::Worker => pruned,
        };
        if by {
            return Ok(());
        }
        violated(
            "unasked-delete",
            format!(
                "backup {key:?}, {from}, is being deleted by {life}, and nobody asked for it: {row}"
            ),
        )
    }

    /// The row goes when nothing of it is left.
    fn gone(&self, key: BackupKey, old: &Value, cloud: &Cloud) -> Verdict {
        let ours = self.snapshots.iter().filter(|(_, one)| one.backup == key);
        for (id, _) in ours {
            if cloud.snapshot(id).is_some_and(|one| one.exists) {
                return violated(
                    "gone-early",
                    format!("the row of backup {key:?} is removed, and {id} is there"),
                );
            }
        }
        if old["outbox"].as_array().is_some_and(|outbox| !outbox.is_empty()) {
            let announced = self.backups.get(&key).map(|backup| &backup.announced);
            if announced.is_none_or(|kinds| !kinds.contains_key("Backup Deleted")) {
                return violated(
                    "gone-unannounced",
                    format!("the row of backup {key:?} is removed with {}", old["outbox"]),
                );
            }
        }
        Ok(())
    }

    /// Whatever is unfinished stands in the `due` index, an expiry too.
    fn stands_in_the_index(&self, key: BackupKey, row: &Value, cloud: &Cloud) -> Verdict {
        let status = text(row, "status");
        let announces = row["outbox"].as_array().is_some_and(|outbox| !outbox.is_empty());
        let leaves = status == "failed"
            && self.snapshots.iter().any(|(id, one)| {
                one.backup == key && cloud.snapshot(id).is_some_and(|one| one.exists)
            });
        let unfinished = !matches!(status, "completed" | "failed") || announces || leaves;
        let due = time(row, "due_at");
        if unfinished && (due.is_none() || row["due_shard"].is_null()) {
            return violated(
                "not-due",
                format!("backup {key:?} is {status} and in no shard of the index: {row}"),
            );
        }
        let expires = time(row, "expires_at").filter(|_| matches!(status, "completed" | "failed"));
        if let Some(expires) = expires
            && due.is_none_or(|due| due > expires + jiff::SignedDuration::from_secs(120))
        {
            return violated(
                "expiry-not-due",
                format!("backup {key:?} expires at {expires} and is due at {due:?}"),
            );
        }
        Ok(())
    }
}

/// What of the lifecycle's turns shows in a change, for the reach table.
fn turns(life: &Life, backup: Option<&Backup>, old: &Value, new: &Value, reach: &mut Reach) {
    let nodes = |row: &Value| row["nodes"].as_array().cloned().unwrap_or_default();
    for (old, new) in nodes(old).iter().zip(&nodes(new)) {
        let node = new["node_id"].as_u64().unwrap_or(0);
        match (text(old, "take"), text(new, "take")) {
            ("open", "called") => reach.hit("turn called"),
            ("called", "open") => reach.hit("turn attempt given up"),
            ("called", "taken") => {
                let caller = backup.and_then(|backup| backup.callers.get(&node));
                reach.hit(if caller == Some(&life.id) {
                    "turn taken by its reply"
                } else {
                    "turn adopted by tag"
                });
            }
            _ => {}
        }
    }
    match (old["sweep_until"].is_null(), new["sweep_until"].is_null()) {
        (true, false) => reach.hit("turn sweep begun"),
        (false, true) => reach.hit("turn sweep over"),
        _ => {}
    }
}

fn deployment_of(pk: &str) -> Option<u64> {
    pk.strip_prefix("DEPLOYMENT#")?.parse().ok()
}
