//! What runs by itself: each slot of a schedule makes one backup or is told of, and the
//! schedule's oldest gives way and nothing else.
//!
//! When a schedule is due is told by [`Slots`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use local::Name;
use serde_json::{Value, json};

use super::super::brake::Switch;
use super::super::life::Life;
use super::super::plan::Profile;
use super::super::reach::Reach;
use super::super::table::{Change, RowRef};
use super::brake::Held;
use super::slots::{Shown, Slots};
use super::versions::{since, was_there};
use super::{Asked, DECIDED, LOOKS, Oracle, SLACK, TICKS, Verdict, time, violated};
use crate::rows::{BackupKey, items, text};

/// So many slots that an outage has passed over are told of one by one (docs/schedules.md).
const PASSED: usize = 24;

/// What is known of schedules.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    /// What somebody with the right to has asked for, by deployment; null: a DELETE.
    asked: BTreeMap<u64, Vec<Value>>,
    /// The rows as they have been.
    pub(super) rows: BTreeMap<u64, Vec<(Timestamp, RowRef)>>,
    /// Slots that have made a backup.
    pub(super) made: BTreeSet<(u64, String)>,
    /// By slot: the id under which the bus was told that it is skipped.
    told: BTreeMap<(u64, String), String>,
    /// When each is due.
    pub(super) slots: Slots,
}

/// A schedule as it was asked for: with what is left out filled in.
pub(crate) fn setting(body: &Value) -> Value {
    json!({
        "cron": body["cron"],
        "timezone": body["timezone"].as_str().unwrap_or("UTC"),
        "expires_in_days": body["expires_in_days"],
        "node_id": body["node_id"],
        "enabled": body["enabled"].as_bool().unwrap_or(true),
    })
}

impl Schedules {
    pub(super) fn new(profile: &Profile) -> Self {
        Self { slots: Slots::new(profile), ..Self::default() }
    }

    /// Somebody asks for a schedule, or with null for none.
    pub(super) fn ask(&mut self, deployment: u64, body: &Value) {
        let wanted = if body.is_null() { Value::Null } else { setting(body) };
        self.asked.entry(deployment).or_default().push(wanted);
    }
}

/// What is set on a deployment that is as `meta`: nothing that was set before it was deleted.
pub(super) fn setting_on<'a>(meta: &Value, row: &'a Value) -> &'a Value {
    let version = |row: &Value, name: &str| row[name].as_u64().unwrap_or(0);
    let outlived = version(row, "registry_version") < version(meta, "deleted_version");
    if outlived || meta["deleted"] == true { &Value::Null } else { &row["setting"] }
}

/// Up to when the slots of a row are decided, or were never this setting's.
pub(super) fn behind(row: &Value) -> Timestamp {
    time(row, "decided").max(time(row, "set_at")).unwrap_or(Timestamp::MIN)
}

/// Whether a backup is there that gives way to another: the oldest.
pub(super) fn gives_way<'a>(all: impl Iterator<Item = (u64, &'a RowRef)>) -> Option<u64> {
    all.filter(|(_, row)| {
        text(row, "status") == "completed"
            && row["pinned_by"].is_null()
            && !row["schedule_slot"].is_null()
    })
    .map(|(id, _)| id)
    .min()
}

impl Oracle {
    /// Whether a slot or an upgrade waits for something.
    pub(super) fn scheduling(&mut self, now: Timestamp) -> bool {
        let rows: Vec<RowRef> = self
            .schedules
            .rows
            .values()
            .filter_map(|rows| rows.last().map(|(_, row)| Arc::clone(row)))
            .collect();
        let overdue = rows.iter().any(|row| {
            !row["waiting"].is_null()
                || items(&row["outbox"]).next().is_some()
                || !self.schedules.slots.between(&row["setting"], behind(row), now).is_empty()
        });
        overdue || self.upgrades.wait()
    }

    /// Whether the deployment has a schedule.
    pub(crate) fn has_schedule(&self, deployment: u64) -> bool {
        let rows = self.schedules.rows.get(&deployment).and_then(|rows| rows.last());
        let metas = self.deployments.get(&deployment).and_then(|one| one.rows.last());
        let (Some((_, row)), Some((_, meta))) = (rows, metas) else { return false };
        !setting_on(meta, row).is_null()
    }

    /// The row of a schedule was written.
    pub(super) fn schedule_changed(
        &mut self,
        now: Timestamp,
        life: &Life,
        deployment: u64,
        change: &Change,
        reach: &mut Reach,
    ) -> Verdict {
        let Some(new) = change.new.as_ref() else {
            return violated("schedule-kept", format!("{life} removed that of {deployment}"));
        };
        let none = Value::Null;
        let old = change.old.as_ref().map_or(&none, |row| &**row);
        let revision = |row: &Value| row["revision"].as_u64().unwrap_or(0);
        if revision(new) != revision(old) + 1 {
            return violated("revision", format!("{life}: {old} became {new}"));
        }
        let version = |row: &Value| row["registry_version"].as_u64().unwrap_or(0);
        if version(new) < version(old) {
            let what = format!("{life} takes {old} back to an older deployment: {new}");
            return violated("schedule-back", what);
        }
        let metas = self.deployments.get(&deployment).and_then(|one| one.rows.last());
        let meta = metas.map_or(&none, |(_, row)| &**row);
        let outlived = !old["setting"].is_null() && setting_on(meta, old).is_null();
        let set = (&new["setting"], &new["registry_version"]);
        if (&old["setting"], &old["registry_version"]) != set {
            let asked = self.schedules.asked.get(&deployment).into_iter().flatten();
            let wanted = asked.into_iter().any(|one| one == set.0);
            // As it was read a moment before it may be by now another, or none: of that nobody
            // keeps this schedule.
            let metas = self.deployment_rows(deployment, now - DECIDED);
            let lived = metas
                .iter()
                .any(|meta| meta["deleted"] != true && meta["registry_version"] == *set.1);
            if !set.0.is_null() && !lived {
                let what = format!("{life} set {new} of {deployment}, which is {meta}");
                return violated("schedule-outlives", what);
            }
            let ends = new["setting"].is_null() && outlived && life.function != Name::Api;
            if !(ends || wanted && life.function == Name::Api) {
                return violated(
                    "schedule-unasked",
                    format!("{life} set {}, nobody asked for it", new["setting"]),
                );
            }
            reach.hit(if new["setting"].is_null() { "schedule deleted" } else { "schedule set" });
        }
        if !old["waiting"].is_null() && new["waiting"].is_null() && old["setting"] != new["setting"]
        {
            reach.hit("schedule waiting dropped");
        }
        let met = text(&new["waiting"]["why"], "code");
        if old["waiting"].is_null() && !met.is_empty() && met != "backup_limit_reached" {
            reach.hit(&format!("schedule waits {met}"));
        }
        self.slots_are_told_of(now, deployment, (old, new), outlived, reach)?;
        if old["decided"] != new["decided"] || old["waiting"] != new["waiting"] {
            self.may_release(now, life, new)?;
        }
        self.skips_are_founded(now, life, deployment, (old, new))?;
        self.schedule_is_due(now, new)?;
        let rows = self.schedules.rows.entry(deployment).or_default();
        rows.push((now, Arc::clone(new)));
        Ok(())
    }

    /// Each slot that the write decides on was due, and has made a backup or is announced;
    /// of those that an outage has passed over the first is named.
    fn slots_are_told_of(
        &mut self,
        now: Timestamp,
        deployment: u64,
        (old, new): (&Value, &Value),
        outlived: bool,
        reach: &mut Reach,
    ) -> Verdict {
        let (before, after) = (time(old, "decided"), time(new, "decided"));
        if before == after {
            // Who changes a schedule does not take its due slots away without a word.
            let changed = !old.is_null() && old["setting"] != new["setting"];
            let open = self.schedules.slots.between(&old["setting"], behind(old), now - SLACK);
            if changed && !outlived && !open.is_empty() {
                return violated("slot-dropped", format!("of {open:?} nothing is told: {new}"));
            }
            return Ok(());
        }
        let Some(decided) = after.filter(|after| before.is_none_or(|before| *after > before))
        else {
            return violated("slot-again", format!("decided on {after:?} after {before:?}: {new}"));
        };
        if decided > now + SLACK {
            return violated("slot-early", format!("decided on {decided} at {now}: {new}"));
        }
        let first = behind(old);
        let mut open = self.schedules.slots.between(&old["setting"], first, decided);
        if !open.contains(&decided) {
            return violated("slot-untrue", format!("{decided} is no slot of {old}"));
        }
        match self.schedules.slots.shown(&old["setting"], decided) {
            Shown::Once => {}
            Shown::Twice => reach.hit("slot in a repeated hour"),
            Shown::Skipped => reach.hit("slot in a skipped hour"),
        }
        if let Some(waited) = time(&old["waiting"], "slot") {
            open.retain(|slot| *slot >= waited);
        }
        for slot in &open {
            let waited = time(&old["waiting"], "slot") == Some(*slot);
            self.slot_in_time(now, deployment, *slot, waited)?;
        }
        let told: Vec<&str> = items(&new["outbox"])
            .filter(|one| !items(&old["outbox"]).any(|before| before["slot"] == one["slot"]))
            .map(|one| text(one, "slot"))
            .collect();
        for one in items(&new["outbox"]).filter(|one| told.contains(&text(one, "slot"))) {
            reach.hit(&format!("schedule skipped {}", text(&one["why"], "code")));
        }
        let (last, slot) = (&new["last"], decided.to_string());
        let ran = text(last, "slot") == slot && text(last, "result") == "started";
        if !ran && !told.contains(&slot.as_str()) {
            return violated("slot-dropped", format!("of {slot} nothing is told: {old}, {new}"));
        }
        // Each that was passed over, the latest of very many: it may be one of them itself.
        let others = PASSED - usize::from(!ran);
        let passed = open.iter().rev().filter(|one| **one < decided).take(others);
        for one in passed {
            if !told.contains(&one.to_string().as_str()) {
                return violated("slot-dropped", format!("of {one} nothing is told: {old}, {new}"));
            }
        }
        Ok(())
    }

    /// The row stands in the index as long as it has a slot before it, or something to say.
    fn schedule_is_due(&mut self, now: Timestamp, row: &Value) -> Verdict {
        let due = time(row, "due_at").filter(|_| row["due_shard"] == -1);
        let from = time(&row["waiting"], "slot").unwrap_or(behind(row));
        let next = self.schedules.slots.between(&row["setting"], from, now + TICKS * 24);
        let next = next.first().copied();
        let waits = (!row["waiting"].is_null()).then_some(now + LOOKS);
        let says = items(&row["outbox"]).next().map(|_| now + LOOKS);
        let latest = [next, waits, says].into_iter().flatten().min();
        if latest.is_some_and(|latest| due.is_none_or(|due| due > latest)) {
            return violated("schedule-not-due", format!("at {now}, by {latest:?}: {row}"));
        }
        Ok(())
    }

    /// A new backup of a slot: the latest one, and its only backup ever.
    pub(super) fn of_a_slot(&mut self, key: BackupKey, row: &Value) -> Verdict {
        let (deployment, _) = key;
        let slot = text(row, "schedule_slot").to_owned();
        if !self.schedules.made.insert((deployment, slot.clone())) {
            return violated("slot-twice", format!("backup {key:?} is the second of {slot}"));
        }
        let rows = self.schedules.rows.get(&deployment).and_then(|rows| rows.last());
        let metas = self.deployments.get(&deployment).and_then(|one| one.rows.last());
        let setting = rows.zip(metas).map(|((_, row), (_, meta))| setting_on(meta, row).clone());
        let Some(setting) = setting.filter(|setting| !setting.is_null()) else {
            return violated("slot-unasked", format!("backup {key:?} is of no schedule"));
        };
        let created = time(row, "created_at").unwrap_or(Timestamp::MIN);
        let at = time(row, "schedule_slot").unwrap_or(Timestamp::MAX);
        let later = self.schedules.slots.between(&setting, at, created - SLACK);
        if !later.is_empty() || at > created {
            return violated(
                "catch-up",
                format!("backup {key:?} of {slot} was made at {created}, with {later:?} since"),
            );
        }
        let expires = setting["expires_in_days"]
            .as_i64()
            .map(|days| created + SignedDuration::from_hours(24 * days));
        let right = text(row, "name") == format!("scheduled {slot}")
            && text(row, "backup_type") == "scheduled"
            && row["node_id"] == setting["node_id"]
            && row["remarks"].is_null()
            && time(row, "expires_at") == expires;
        if right { Ok(()) } else { violated("born", format!("{key:?} is not {setting}: {row}")) }
    }

    /// At the limit it may be one more while it runs, if another will give way.
    pub(super) fn may_be_over(&self, deployment: u64, row: &Value) -> bool {
        let rotates = !row["schedule_slot"].is_null() || !row["upgrade_id"].is_null();
        rotates && gives_way(self.backups_of(deployment)).is_some()
    }

    /// Which backup gives way in this write, if any: the schedule's oldest, when one of a
    /// slot or an upgrade completes above the limit. `changes` are not taken in yet.
    pub(super) fn rotation(
        &self,
        now: Timestamp,
        life: &Life,
        deployment: u64,
        changes: &[Change],
    ) -> Option<u64> {
        let ends = |change: &&Change| {
            let (Some(old), Some(new)) = (&change.old, &change.new) else { return false };
            let rotates = !new["schedule_slot"].is_null() || !new["upgrade_id"].is_null();
            rotates && text(old, "status") == "in_progress" && text(new, "status") == "completed"
        };
        changes.iter().find(ends)?;
        let meta = changes.iter().find(|change| change.key.1 == "META")?.old.as_ref()?;
        let limit = self.limits.of(meta)?;
        if meta["backup_count"].as_u64().unwrap_or(0) <= limit {
            return None;
        }
        let victim = gives_way(self.backups_of(deployment))?;
        let goes = || {
            let sk = format!("BACKUP#{victim:020}");
            changes.iter().any(|change| change.key.1 == sk)
        };
        match self.is_held(Switch::Deletions, life, now) {
            Held::No => Some(victim),
            Held::Perhaps => goes().then_some(victim),
            Held::Surely => None,
        }
    }

    /// A skipped slot is announced: one that the row says is skipped, under one id.
    pub(super) fn skip_announced(&mut self, detail: &Value) -> Verdict {
        let deployment = detail["deployment_id"].as_u64().unwrap_or(0);
        let slot = text(detail, "schedule_slot").to_owned();
        let rows = self.schedules.rows.get(&deployment).map_or(&[][..], Vec::as_slice);
        let mut all = rows.iter().flat_map(|(_, row)| items(&row["outbox"]));
        let said = all.find(|one| text(one, "slot") == slot);
        let true_to = said.is_some_and(|one| {
            ["announcement_id", "at", "node_id"].iter().all(|name| one[*name] == detail[*name])
                && one["why"] == detail["failure"]
        });
        let nothing = ["backup_id", "restore_id", "upgrade_id"];
        if !true_to
            || nothing.iter().any(|name| !detail[*name].is_null())
            || text(detail, "status") != "skipped"
            || text(detail, "backup_type") != "scheduled"
            || self.schedules.made.contains(&(deployment, slot.clone()))
        {
            return violated("announced-untrue", format!("{detail}, and it is {said:?}"));
        }
        let id = text(detail, "announcement_id").to_owned();
        match self.schedules.told.insert((deployment, slot), id.clone()) {
            Some(other) if other != id => {
                violated("announced-twice", format!("{detail}, and before as {other}"))
            }
            _ => Ok(()),
        }
    }

    /// Every skipped slot is told of.
    pub(super) fn all_is_told(&self) -> Verdict {
        for (deployment, rows) in &self.schedules.rows {
            let all = rows.iter().flat_map(|(_, row)| items(&row["outbox"]));
            for slot in all.map(|one| text(one, "slot").to_owned()) {
                if !self.schedules.told.contains_key(&(*deployment, slot.clone())) {
                    return violated("untold", format!("{slot} of {deployment} was skipped"));
                }
            }
        }
        Ok(())
    }

    /// The versions of a schedule's setting between the question and now; null: none.
    pub(super) fn settings_since(&self, asked: &Asked) -> Vec<Value> {
        let rows = self.schedules.rows.get(&asked.deployment).map_or(&[][..], Vec::as_slice);
        let mut all = if was_there(rows, asked.at) { Vec::new() } else { vec![Value::Null] };
        for meta in self.deployment_since(asked) {
            let rows = since(rows, asked.at).iter();
            all.extend(rows.map(|(_, row)| setting_on(meta, row).clone()));
        }
        all
    }
}
