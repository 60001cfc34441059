//! Announcements: what automation is told is true, and each is told once.

use backups_core::announce;
use cloud::Cloud;
use jiff::Timestamp;
use local::Name;
use serde_json::{Value, json};

use super::super::call::Call;
use super::super::life::Life;
use super::super::reach::Reach;
use super::super::table::RowRef;
use super::{DECIDED, Oracle, SLACK, Verdict, time, violated};
use crate::Failed;
use crate::rows::{items, text};
use crate::schemas::Schemas;

/// Each kind, and the status that a backup must have come to.
pub(super) const KINDS: [(&str, &str); 6] = [
    ("Backup Requested", "pending"),
    ("Backup Started", "in_progress"),
    ("Backup Completed", "completed"),
    ("Backup Failed", "failed"),
    ("Backup Deleted", "deleting"),
    ("Backup Expired", "deleting"),
];

impl Oracle {
    /// The bus has taken these.
    pub(super) fn published(
        &mut self,
        now: Timestamp,
        life: &Life,
        call: &Call,
        cloud: &Cloud,
        reach: &mut Reach,
    ) -> Verdict {
        for entry in items(&call.json["Entries"]) {
            let source = text(entry, "Source");
            let ours = [announce::SOURCE, announce::REJECTED_SOURCE].contains(&source);
            if !ours || text(entry, "EventBusName") != self.bus {
                return violated("bus", format!("{life} sends {entry}"));
            }
            let kind = text(entry, "DetailType");
            let detail: Value = serde_json::from_str(text(entry, "Detail")).unwrap_or_default();
            let schemas = Schemas::shared();
            if let Err(Failed(why)) = schemas.and_then(|all| all.check(source, kind, &detail)) {
                return violated("announcement-shape", format!("{life} sends {detail}: {why}"));
            }
            if kind == announce::EVENT_REJECTED {
                // What must be, and as it was said.
                let said = &detail["event"]["detail"];
                if !self.refused.iter().any(|one| told_of(one) == *said) {
                    return violated("refused", format!("{life} refuses {detail}"));
                }
                reach.hit("announced Event Rejected");
                continue;
            }
            if kind == "Operation Due" {
                let id = |name: &str| detail[name].as_u64().unwrap_or(0);
                let key = (id("deployment_id"), id("id"));
                let known = match text(&detail, "operation") {
                    "backup" => self.backups.contains_key(&key),
                    "restore" => self.restores.all.contains_key(&key),
                    "reconciliation" => self.knows_reconciliation(),
                    "upgrade" => self.knows_upgrade(key.0, text(&detail, "upgrade_id")),
                    _ => false,
                };
                if !known {
                    return violated("nudge", format!("{life} nudges for {detail}"));
                }
                continue;
            }
            self.announced(now, kind, &detail, cloud)?;
            reach.hit(&format!("announced {kind}"));
            if kind == "Backup Requested" && life.function == Name::Worker {
                reach.hit("turn outbox published late");
            }
        }
        Ok(())
    }

    fn announced(&mut self, now: Timestamp, kind: &str, detail: &Value, cloud: &Cloud) -> Verdict {
        if kind.starts_with("Restore ") {
            return self.restore_announced(now, kind, detail);
        }
        if kind == "Orphans Found" {
            return self.orphans_announced(detail);
        }
        if kind == "Scheduled Backup Skipped" {
            return self.skip_announced(detail);
        }
        if kind == "Backup Failed" && detail["backup_id"].is_null() {
            return self.refusal_announced(detail);
        }
        self.backup_announced(now, kind, detail, cloud)
    }

    fn backup_announced(
        &mut self,
        now: Timestamp,
        kind: &str,
        detail: &Value,
        cloud: &Cloud,
    ) -> Verdict {
        let id = |name: &str| detail[name].as_u64().unwrap_or(0);
        let key = (id("deployment_id"), id("backup_id"));
        let leaves: Vec<&String> = self
            .snapshots
            .iter()
            .filter(|(_, one)| one.backup == key)
            .map(|(id, _)| id)
            .filter(|id| cloud.snapshot(id).is_some_and(|one| one.exists))
            .collect();
        let Some(backup) = self.backups.get_mut(&key) else {
            return violated(
                "announced-untrue",
                format!("{kind} of {key:?}, which never was: {detail}"),
            );
        };
        let Some((_, needs)) = KINDS.iter().find(|(name, _)| *name == kind) else {
            return violated("announcement-shape", format!("{kind} is none of ours"));
        };
        let reached = backup.statuses.contains(*needs);
        if !reached || (kind == "Backup Deleted" && !leaves.is_empty()) {
            return violated(
                "announced-untrue",
                format!(
                    "{kind} of {key:?}, which has been {:?}; of it are there {leaves:?}",
                    backup.statuses
                ),
            );
        }
        let Some(row) = backup.rows.iter().rev().find_map(|(_, row)| row.clone()) else {
            return violated("announced-untrue", format!("{kind} of {key:?}, which has no row"));
        };
        for name in ["tenant_id", "backup_type", "node_id", "schedule_slot", "upgrade_id"] {
            if row[name] != detail[name] {
                return violated(
                    "announced-untrue",
                    format!("{kind} of {key:?}: {name} is {}", row[name]),
                );
            }
        }
        if !detail["restore_id"].is_null() {
            return violated("announced-untrue", format!("{kind} of {key:?}: {detail}"));
        }
        // When the look began that led to that status, or a little later.
        let at = time(detail, "at");
        let at_all = |(when, row): &(Timestamp, Option<RowRef>)| {
            let Some((row, at)) = row.as_ref().zip(at) else { return false };
            let completed = time(row, "completed_at").filter(|_| kind == "Backup Completed");
            text(row, "status") == *needs
                && (at - SLACK..=at + DECIDED).contains(when)
                && completed.is_none_or(|completed| completed <= at)
        };
        let gone = kind == "Backup Deleted" && at.is_some_and(|at| at <= now + SLACK);
        if !gone && !backup.rows.iter().any(at_all) {
            return violated(
                "announced-untrue",
                format!("{kind} of {key:?} at {at:?}, which nothing happened at"),
            );
        }
        if text(detail, "status") != *needs
            || (kind == "Backup Failed") == detail["failure"].is_null()
        {
            return violated("announced-untrue", format!("{kind} of {key:?}: {detail}"));
        }
        let failed = backup.rows.iter().filter_map(|(_, row)| row.as_ref());
        let failed = failed.into_iter().find(|row| text(row, "status") == "failed");
        if failed.is_some_and(|row| kind == "Backup Failed" && row["failure"] != detail["failure"])
        {
            return violated(
                "announced-untrue",
                format!("{kind} of {key:?}: {}, its row had {failed:?}", detail["failure"]),
            );
        }
        if kind == "Backup Expired" && time(&row, "expires_at").is_none_or(|at| at > now + SLACK) {
            return violated(
                "announced-untrue",
                format!("{kind} of {key:?}: it expires at {}", row["expires_at"]),
            );
        }
        if let Some(id) = row["upgrade_id"].as_str()
            && matches!(kind, "Backup Completed" | "Backup Failed")
        {
            self.answered_upgrade(id, detail);
        }
        let Some(backup) = self.backups.get_mut(&key) else { return Ok(()) };
        let announcement = text(detail, "announcement_id").to_owned();
        match backup.announced.insert(kind.to_owned(), announcement.clone()) {
            Some(other) if other != announcement => violated(
                "announced-twice",
                format!("{kind} of {key:?} as {other} and as {announcement}"),
            ),
            _ => Ok(()),
        }
    }
}

/// What is told of a detail that is refused: of a key no more than which it is.
pub(super) fn told_of(detail: &Value) -> Value {
    if detail["key_id"].is_null() {
        return detail.clone();
    }
    json!({"key_id": detail["key_id"], "version": detail["version"]})
}
