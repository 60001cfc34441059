//! What became of each slot: in time, for a reason that was true, and told as it was.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use local::Name;
use serde_json::{Value, json};

use super::super::life::Life;
use super::super::table::RowRef;
use super::refusals::IN_ORDER;
use super::schedules::{behind, gives_way, setting_on};
use super::versions::{since, was_there};
use super::{Asked, DECIDED, EXPIRED, Oracle, SLACK, TICKS, Verdict, time, violated};
use crate::rows::{items, text};

/// The longest pause of a slot that waits (docs/schedules.md).
const PAUSE: SignedDuration = SignedDuration::from_mins(4);

/// A slot waits so long for a deployment that is not ready (docs/schedules.md).
const READY: SignedDuration = SignedDuration::from_hours(1);

/// Longer than any two slots of the settings are apart.
const APART: SignedDuration = SignedDuration::from_hours(8 * 24);

impl Oracle {
    /// A slot that nothing hinders is decided on within two ticks; one that waits within
    /// its longest pause more, once nothing hinders it.
    pub(super) fn slot_in_time(
        &self,
        now: Timestamp,
        deployment: u64,
        slot: Timestamp,
        waited: bool,
    ) -> Verdict {
        if !self.is_smooth(slot - TICKS) {
            return Ok(());
        }
        let free = if waited { self.hindered_until(deployment, now).max(slot) } else { slot };
        let pause = if waited { PAUSE } else { SignedDuration::ZERO };
        if now > free + EXPIRED + pause + self.paced {
            return violated(
                "slot-late",
                format!(
                    "{slot} of {deployment} is decided on at {now}; nothing hinders it since {free}"
                ),
            );
        }
        Ok(())
    }

    /// Until when the deployment last was as no slot can run.
    fn hindered_until(&self, deployment: u64, now: Timestamp) -> Timestamp {
        let rows = self.deployments.get(&deployment).map_or(&[][..], |one| one.rows.as_slice());
        let hinders = |row: &Value| {
            text(row, "status") != "initialized"
                || !row["active_backup"].is_null()
                || !row["active_restore"].is_null()
                || row["deleted"] == true
        };
        // Of the write that is being looked at the row is there already.
        let before = rows.partition_point(|(at, _)| *at < now);
        let last = rows[..before].iter().rposition(|(_, row)| hinders(row));
        let end = last.map(|at| rows.get(at + 1).map_or(now, |(until, _)| *until));
        end.unwrap_or(Timestamp::MIN)
    }

    /// Each slot that a write tells of as skipped was skipped for what was so then.
    pub(super) fn skips_are_founded(
        &mut self,
        now: Timestamp,
        life: &Life,
        deployment: u64,
        (old, new): (&Value, &Value),
    ) -> Verdict {
        let (waiting, met) = (&old["waiting"], &new["waiting"]);
        if !met.is_null() && met["why"] != waiting["why"] {
            let code = text(&met["why"], "code");
            let passes = ["backup_in_progress", "restore_in_progress", "deployment_not_ready"];
            let found = self.refuses(now, deployment, code, &old["setting"]);
            let paused = code == "backup_limit_reached" && self.is_paused_since(now - DECIDED);
            if !(passes.contains(&code) || paused) || !found {
                return violated("waits-unfounded", format!("{life} at {now}: {new}"));
            }
        }
        let told: Vec<Value> = items(&new["outbox"])
            .filter(|one| !items(&old["outbox"]).any(|before| before["slot"] == one["slot"]))
            .cloned()
            .collect();
        for one in &told {
            let Some(slot) = time(one, "slot") else { continue };
            let code = text(&one["why"], "code");
            let later = self.schedules.slots.between(&old["setting"], slot, now + SLACK);
            let of_waiting = waiting["slot"] == one["slot"] && waiting["why"]["code"] == code;
            let founded = match code {
                "superseded" => life.function == Name::Api && old["setting"] != new["setting"],
                "unavailable" => !later.is_empty() && !self.is_smooth(slot - TICKS),
                // What it met last, until the next slot came.
                _ if of_waiting && !later.is_empty() => true,
                "deployment_not_ready" => {
                    now >= slot + READY - SLACK
                        && self.refuses(now, deployment, code, &old["setting"])
                }
                "backup_in_progress" | "restore_in_progress" => false,
                _ => self.refuses(now, deployment, code, &old["setting"]),
            };
            if !founded {
                let meta = self.deployment_rows(deployment, now - DECIDED);
                return violated(
                    "skip-unfounded",
                    format!("{life} at {now}: {one}, after {old}, the deployment was {meta:?}"),
                );
            }
        }
        Ok(())
    }

    /// Whether the deployment was such just now that a slot of the setting is refused so.
    fn refuses(&self, now: Timestamp, deployment: u64, code: &str, setting: &Value) -> bool {
        let rows = self.deployment_rows(deployment, now - DECIDED);
        let body = json!({ "node_id": setting["node_id"] });
        let applies = |code: &str, row: &RowRef| {
            self.refuses_like(code, &body, row)
                && (code != "backup_limit_reached" || !self.surely_gives_way(now, deployment))
        };
        // Of several that apply the first one is told.
        let mut before = IN_ORDER.iter().take_while(|one| **one != code);
        IN_ORDER.contains(&code)
            && rows.iter().any(|row| applies(code, row))
            && !before.any(|sooner| rows.iter().all(|row| applies(sooner, row)))
    }

    /// Whether a backup of the schedule has been there for a while that can go for another.
    fn surely_gives_way(&self, now: Timestamp, deployment: u64) -> bool {
        if self.is_paused_since(now - DECIDED) {
            return false;
        }
        let Some(id) = gives_way(self.backups_of(deployment)) else { return false };
        let rows = self.backups.get(&(deployment, id)).map_or(&[][..], |one| one.rows.as_slice());
        was_there(rows, now - DECIDED)
            && since(rows, now - DECIDED).iter().all(|(_, row)| {
                let row = row.as_ref();
                row.is_some_and(|row| gives_way(std::iter::once((id, row))).is_some())
            })
    }

    /// The row says of its latest slot what has become of it by now.
    pub(super) fn outcome_is_true(&self, deployment: u64) -> Verdict {
        let Some(row) = self.schedules.row(deployment) else { return Ok(()) };
        let last = &row["last"];
        let ran = self.schedules.ran_last(deployment);
        if row["last_run_at"].as_str() != ran {
            return violated("last-run", format!("the last slot that ran is {ran:?}: {row}"));
        }
        let told = if last["slot"] != row["decided"] {
            None
        } else if let Some(id) = last["backup_id"].as_u64() {
            self.result_of((deployment, id), last)
        } else if last.is_null() {
            Some((Value::Null, Value::Null))
        } else {
            let skipped = ran != last["slot"].as_str() && !last["why"].is_null();
            skipped.then(|| ("skipped".into(), last["why"].clone()))
        };
        if told == Some((last["result"].clone(), last["why"].clone())) {
            return Ok(());
        }
        violated("outcome", format!("{deployment}: it has become {told:?}: {row}"))
    }

    /// What became of a slot's backup. What was complete has been so, whatever is lost later.
    fn result_of(&self, key: (u64, u64), last: &Value) -> Option<(Value, Value)> {
        let backup = self.backups.get(&key)?;
        let of = |status: &str| {
            let mut rows = backup.rows.iter().filter_map(|(_, row)| row.as_ref());
            rows.find(|row| text(row, "status") == status)
        };
        let first = backup.rows.first()?.1.as_ref()?;
        if first["schedule_slot"] != last["slot"] {
            return None;
        }
        Some(match (of("completed"), of("failed")) {
            (Some(_), _) => ("completed".into(), Value::Null),
            (None, Some(row)) => ("failed".into(), row["failure"].clone()),
            (None, None) => ("started".into(), Value::Null),
        })
    }

    /// A schedule is shown as it was at some moment of the request.
    pub(super) fn schedule_is_true(
        &mut self,
        now: Timestamp,
        asked: &Asked,
        shown: &Value,
    ) -> Verdict {
        let metas: Vec<RowRef> = self.deployment_since(asked).into_iter().cloned().collect();
        for row in self.schedules.rows_since(asked) {
            let there = metas.iter().any(|meta| !setting_on(meta, &row).is_null());
            if there && self.is_shown(now, asked, &row, shown) {
                return Ok(());
            }
        }
        violated("schedule-untrue", format!("{asked:?}: {shown}"))
    }

    fn is_shown(&mut self, now: Timestamp, asked: &Asked, row: &Value, shown: &Value) -> bool {
        let setting = &row["setting"];
        let last = &row["last"];
        let outcome = json!({
            "slot": last["slot"],
            "result": last["result"],
            "code": last["why"]["code"],
            "reason": last["why"]["reason"],
            "backup_id": last["backup_id"],
        });
        let mut said = setting.clone();
        said["next_run_at"] = shown["next_run_at"].clone();
        said["last_run_at"] = row["last_run_at"].clone();
        said["last_outcome"] = if last.is_null() { Value::Null } else { outcome };
        if said != *shown {
            return false;
        }
        let first = behind(row);
        let slots = &mut self.schedules.slots;
        let mut next = slots.between(setting, first.max(asked.at - SLACK), now + SLACK);
        let after = first.max(now + SLACK);
        next.extend(slots.between(setting, after, after + APART).first());
        match time(shown, "next_run_at") {
            None => next.is_empty() && shown["next_run_at"].is_null(),
            Some(at) => next.contains(&at),
        }
    }

    /// The versions of a deployment's row since then, the one of that moment among them.
    pub(super) fn deployment_rows(&self, deployment: u64, then: Timestamp) -> Vec<&RowRef> {
        let rows = self.deployments.get(&deployment).map(|one| one.rows.as_slice());
        since(rows.unwrap_or_default(), then).iter().map(|(_, row)| row).collect()
    }
}

impl super::schedules::Schedules {
    /// The row as it is.
    fn row(&self, deployment: u64) -> Option<&RowRef> {
        self.rows.get(&deployment)?.last().map(|(_, row)| row)
    }

    /// The latest slot that has made a backup.
    fn ran_last(&self, deployment: u64) -> Option<&str> {
        let from = (deployment, String::new());
        let all = self.made.range(from..(deployment + 1, String::new()));
        all.last().map(|(_, slot)| slot.as_str())
    }

    /// The versions of the row between the question and now.
    fn rows_since(&self, asked: &Asked) -> Vec<RowRef> {
        let rows = self.rows.get(&asked.deployment).map_or(&[][..], Vec::as_slice);
        since(rows, asked.at).iter().map(|(_, row)| Arc::clone(row)).collect()
    }
}
