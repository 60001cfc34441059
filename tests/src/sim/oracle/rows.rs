//! The table's rows, after each write: edges, slots, counts, what never changes.

use std::collections::BTreeSet;

use cloud::Cloud;
use jiff::Timestamp;
use local::Name;
use serde_json::Value;

use super::super::life::Life;
use super::super::reach::Reach;
use super::super::spells::Trouble;
use super::super::table::{Change, RowRef, Table};
use super::versions::since;
use super::{Backup, HELD, KEPT, LOOKS, Oracle, SLACK, TICKS, Verdict, pause, time, violated};
use crate::rows::{self, BackupKey, items, moves, text};

/// The contract's edges, with the row's birth and end.
const EDGES: &[(&str, &str)] = &[
    ("new", "pending"),
    ("pending", "in_progress"),
    ("pending", "failed"),
    ("in_progress", "completed"),
    ("in_progress", "failed"),
    ("completed", "deleting"),
    // By reconciliation.
    ("completed", "failed"),
    ("failed", "deleting"),
    ("deleting", "gone"),
];

/// What a backup has from its birth to its end. What people may change stands in `patches`.
const FIXED: &[&str] = &[
    "deployment_id",
    "id",
    "tenant_id",
    "region",
    "node_id",
    "backup_type",
    "schedule_slot",
    "upgrade_id",
    "created_at",
    "token",
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
    ) -> Verdict {
        let mut deployments = BTreeSet::new();
        let mut scheduled = BTreeSet::new();
        let of = changes.iter().find_map(|change| deployment_of(&change.key.0));
        self.gives_way = of.and_then(|of| self.rotation(now, life, of, changes).map(|id| (of, id)));
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
            if deployment.is_some() && (backup.is_some() || sk == "SCHEDULE") {
                scheduled.extend(deployment);
            }
            if let (Some(deployment), Some(id)) = (deployment, backup) {
                deployments.insert(deployment);
                self.backup_changed(now, life, (deployment, id), change, (cloud, table), reach)?;
            } else if let (Some(deployment), Some(id)) =
                (deployment, sk.strip_prefix("RESTORE#").and_then(|id| id.parse().ok()))
            {
                deployments.insert(deployment);
                self.restore_changed(now, (deployment, id), change, cloud, reach)?;
            } else if let (Some(deployment), "SCHEDULE") = (deployment, sk) {
                self.schedule_changed(now, life, deployment, change, reach)?;
            } else if let (Some(deployment), Some(id)) = (deployment, sk.strip_prefix("UPGRADE#")) {
                self.upgrade_changed(now, life, (deployment, id), change, reach)?;
            } else if change.new.is_some() {
                match sk {
                    "OWNER" => reach.hit("turn owner row"),
                    _ if sk.starts_with("VOLUMES#") => reach.hit("turn volumes kept"),
                    _ if sk.starts_with("TOMBSTONE#") => reach.hit("turn tombstone"),
                    // The stack's own facts.
                    "TABLE" => {}
                    _ if sk == "KEY" || change.key.0 == "KEYS" => stays_revoked(life, change)?,
                    _ if sk.starts_with("MINUTE#") => reach.hit("turn requests counted"),
                    _ if sk.starts_with("IDEMPOTENCY#") => {
                        reach.hit("turn request recorded");
                        self.recorded(now, life, change, changes)?;
                    }
                    "BRAKE" if life.function == Name::Scheduler => {
                        reach.hit("turn tick saw a pause");
                    }
                    "RELEASES" => reach.hit("turn release reserved"),
                    "RECONCILIATION" => {
                        self.reconciliation_changed(now, life, change, cloud, reach)?;
                    }
                    // Of another release it may be moved on, not made.
                    _ if change.old.is_some() => {}
                    _ => {
                        return violated(
                            "ghost-row",
                            format!("{life} made a row that is nothing: {:?}", change.new),
                        );
                    }
                }
            }
        }
        if let Some(key) = self.gives_way.take() {
            return violated(
                "not-rotated",
                format!("{life} completes one above the limit, and {key:?} stays"),
            );
        }
        scheduled.into_iter().try_for_each(|id| self.outcome_is_true(id))?;
        deployments.into_iter().try_for_each(|id| {
            self.slot_and_count(id, table)?;
            self.failed_are_pruned(id)
        })
    }

    /// As long as a deployment has more failed backups than it keeps, one of them is
    /// not at rest: whoever looks after that one removes the others.
    fn failed_are_pruned(&self, deployment: u64) -> Verdict {
        let all = self.backups_of(deployment);
        let failed = all.filter(|(_, row)| text(row, "status") == "failed").map(|(id, _)| id);
        // One that has lost a snapshot neither counts among them nor goes with them.
        let failed: Vec<u64> = failed.filter(|id| !self.was_complete((deployment, *id))).collect();
        let count = failed.len();
        if count > KEPT && !failed.iter().any(|id| self.moving.contains(&(deployment, *id))) {
            return violated(
                "failed-kept",
                format!("deployment {deployment} has {count} failed backups, all at rest"),
            );
        }
        Ok(())
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
        self.restore_slot(deployment, meta)?;
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

    fn backup_changed(
        &mut self,
        now: Timestamp,
        life: &Life,
        key: BackupKey,
        change: &Change,
        (cloud, table): (&Cloud, &Table),
        reach: &mut Reach,
    ) -> Verdict {
        let status = |row: &Option<RowRef>, none: &'static str| {
            row.as_ref().map_or(none.to_owned(), |row| text(row, "status").to_owned())
        };
        let (from, to) = (status(&change.old, "new"), status(&change.new, "gone"));
        if from != to {
            reach.hit(&format!("edge {from}>{to}"));
            self.pending_is_over(now, key, &from, change.old.as_ref())?;
            if !EDGES.contains(&(from.as_str(), to.as_str())) {
                return violated("edge", format!("backup {key:?} went from {from} to {to}"));
            }
        }
        match (&change.old, &change.new) {
            (None, Some(new)) => self.born(now, key, new)?,
            (Some(old), None) => self.gone(now, key, old, cloud, table)?,
            (Some(old), Some(new)) => {
                if let Some(name) = FIXED.iter().find(|name| old[**name] != new[**name]) {
                    return violated(
                        "fixed",
                        format!("backup {key:?}: {name} was {} and is {}", old[*name], new[*name]),
                    );
                }
                self.patched(now, life, key, (old, new))?;
                stays_as_it_was(key, (&from, old), (&to, new))?;
                turns(life, self.backups.get(&key), old, new, reach);
            }
            (None, None) => {}
        }
        let backup = self.backups.entry(key).or_default();
        for node in called(change) {
            *backup.tried.entry(node).or_default() += 1;
        }
        backup.rows.push((now, change.new.clone()));
        backup.statuses.insert(to.clone());
        let Some(new) = &change.new else {
            self.moving.remove(&key);
            return Ok(());
        };
        // Due because it expires, and with something left to be done, it moves too.
        let due = time(new, "due_at").is_some_and(|due| due <= now);
        if moves(new) || due || self.is_unfinished(key, new, cloud) {
            self.moving.insert(key);
        } else {
            self.moving.remove(&key);
        }
        if from == "pending" && to == "pending" {
            self.starts_or_fails(now, key, new)?;
        }
        if from == "in_progress" && to != "failed" {
            self.gives_up(now, key, new, cloud)?;
        }
        if from != to {
            match to.as_str() {
                "in_progress" => self.started(now, key, new, cloud)?,
                "completed" => {
                    self.completed(now, key, new, cloud)?;
                    self.volumes_are_kept(key, new, cloud, table)?;
                }
                "failed" if from == "completed" => {
                    let old = change.old.as_deref().unwrap_or(&Value::Null);
                    self.lost(now, key, (old, new), reach)?;
                }
                "failed" => self.failed(now, key, new, cloud, reach)?,
                "deleting" => self.deleting(now, life, key, &from, new, reach)?,
                _ => {}
            }
        }
        if to == "deleting" && !new["failure"].is_null() && !new["held"].is_null() {
            self.held(now, key, new)?;
            reach.hit(&format!("held {}", text(&new["failure"], "code")));
        }
        self.stands_in_the_index(now, key, new, cloud)
    }

    /// A backup that cannot start fails in the end, throttled or not.
    fn pending_is_over(
        &self,
        now: Timestamp,
        key: BackupKey,
        from: &str,
        old: Option<&RowRef>,
    ) -> Verdict {
        let created = old.and_then(|row| time(row, "created_at"));
        let Some(created) = created.filter(|_| from == "pending") else { return Ok(()) };
        // While the table is down nothing can be written, and while the bus is
        // nobody is told to; after it the tick has to come.
        let down =
            [Trouble::DynamoDown, Trouble::DynamoSlow, Trouble::EventsDown, Trouble::TicksAway];
        let down = down.into_iter().any(|trouble| self.met_since(trouble, created));
        let paused = self.paused_for(created, now);
        if !down && now.duration_since(created) > self.limits.pending_total + TICKS + paused {
            return violated("pending-late", format!("backup {key:?} of {created} was pending"));
        }
        Ok(())
    }

    /// A backup that cannot start is given up at its deadline, too: the time in which
    /// AWS throttles it does not count.
    fn starts_or_fails(&self, now: Timestamp, key: BackupKey, row: &Value) -> Verdict {
        let Some(created) = time(row, "created_at") else { return Ok(()) };
        let troubles = [
            Trouble::CreateThrottled,
            Trouble::DescribeThrottled,
            Trouble::DynamoDown,
            Trouble::DynamoSlow,
            Trouble::EventsDown,
            Trouble::TicksAway,
        ];
        let excused = troubles.into_iter().any(|trouble| self.met_since(trouble, created))
            || self.backups.get(&key).is_none_or(|backup| !backup.throttled.is_empty());
        let paused = self.paused_for(created, now);
        if !excused && now > created + self.limits.pending + TICKS + paused {
            return violated(
                "deadline-missed",
                format!("backup {key:?} of {created} is pending, and is not given up"),
            );
        }
        Ok(())
    }

    /// Whether something is left to be done for it.
    fn is_unfinished(&self, key: BackupKey, row: &Value, cloud: &Cloud) -> bool {
        let status = text(row, "status");
        let announces = row["outbox"].as_array().is_some_and(|outbox| !outbox.is_empty());
        // Of one that is complete too: what none of its sets has.
        let looks_on = status == "completed" && row["sweep_until"].is_null();
        let fails = status == "failed" && !self.was_complete(key);
        let leaves = (fails || looks_on)
            && self.taken_of(key).any(|(id, _)| {
                cloud.snapshot(id).is_some_and(|one| one.exists)
                    && (fails || !rows::named(row).any(|(name, _)| name == id))
            });
        !matches!(status, "completed" | "failed") || announces || leaves
    }

    /// Whatever is unfinished stands in the `due` index, an expiry too.
    fn stands_in_the_index(
        &self,
        now: Timestamp,
        key: BackupKey,
        row: &Value,
        cloud: &Cloud,
    ) -> Verdict {
        let status = text(row, "status");
        let unfinished = self.is_unfinished(key, row, cloud);
        let due = time(row, "due_at");
        if unfinished && (due.is_none() || row["due_shard"].is_null()) {
            return violated(
                "not-due",
                format!("backup {key:?} is {status} and in no shard of the index: {row}"),
            );
        }
        let pause = match status {
            "failed" | "deleting" => HELD,
            "in_progress" => pause(row),
            _ => LOOKS,
        };
        if unfinished && due.is_some_and(|due| due > now + pause + SLACK) {
            return violated(
                "due-late",
                format!("backup {key:?} is {status}, and looked at no sooner than {due:?}"),
            );
        }
        let expires = time(row, "expires_at").filter(|_| matches!(status, "completed" | "failed"));
        // One that an operator holds, or that a restore needs, is looked at every two minutes.
        let held =
            self.is_paused_since(now - TICKS) || self.was_pinned_since(key, row, now - TICKS);
        let held = held.then_some(now + SLACK);
        if let Some(expires) = expires.map(|at| held.map_or(at, |held| at.max(held)))
            && due.is_none_or(|due| due > expires + jiff::SignedDuration::from_secs(120))
        {
            return violated(
                "expiry-not-due",
                format!("backup {key:?} expires at {expires} and is due at {due:?}"),
            );
        }
        Ok(())
    }

    /// Whether a restore needs the backup that is this now, or did so since then.
    pub(super) fn was_pinned_since(&self, key: BackupKey, row: &Value, then: Timestamp) -> bool {
        let rows = self.backups.get(&key).map_or(&[][..], |one| &one.rows[..]);
        let before = since(rows, then).iter().filter_map(|(_, row)| row.as_deref());
        before.chain([row]).any(|row| !row["pinned_by"].is_null())
    }
}

/// What was started is what it was until it goes, and what is over stays so. Before
/// that there is nothing of it.
fn stays_as_it_was(
    key: BackupKey,
    (from, old): (&str, &Value),
    (to, new): (&str, &Value),
) -> Verdict {
    let differs = |name: &&&str| old[**name] != new[**name];
    let named = |row| rows::named(row).collect::<Vec<_>>();
    let (fixed, sets): (&[&str], bool) = match (from, to) {
        ("pending", "pending" | "failed") => (&["started_at", "completed_at", "size_bytes"], false),
        ("in_progress", "in_progress") => (&["started_at", "completed_at", "size_bytes"], true),
        ("in_progress", "completed") | ("completed", "failed") => {
            (&["started_at", "size_bytes"], true)
        }
        ("completed", "completed") => {
            (&["started_at", "completed_at", "size_bytes", "failure"], true)
        }
        // The row forgets what is gone.
        _ => (&["started_at", "completed_at"], false),
    };
    let moved = (from != "pending" || to != "in_progress")
        .then(|| fixed.iter().find(differs).copied())
        .flatten()
        .or_else(|| (sets && named(old) != named(new)).then_some("set"));
    match moved {
        None => Ok(()),
        Some(name) => violated(
            "fixed",
            format!("backup {key:?}, {from}, now {to}: {name} was {old} and is {new}"),
        ),
    }
}

/// The nodes of which a change says that their call is about to be sent.
fn called(change: &Change) -> impl Iterator<Item = u64> {
    let old = change.old.as_ref().map_or(&Value::Null, |row| &row["nodes"]);
    let new = change.new.as_ref().map_or(&Value::Null, |row| &row["nodes"]);
    let both = items(old).zip(items(new));
    both.filter(|(old, new)| text(new, "take") == "called" && text(old, "take") != "called")
        .filter_map(|(_, new)| new["node_id"].as_u64())
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

/// What ended a key has the last word, of whatever comes after it.
fn stays_revoked(life: &Life, change: &Change) -> Verdict {
    let over = |row: &Option<RowRef>| row.as_ref().is_some_and(|row| !row["revoked_at"].is_null());
    if over(&change.old) && !over(&change.new) {
        let what = format!("{life}: {:?}, and now {:?}", change.old, change.new);
        return violated("key-revived", what);
    }
    Ok(())
}
