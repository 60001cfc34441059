//! What people change of a backup: done as it was asked for, once, and never overtaken.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use local::Name;
use serde_json::Value;

use super::super::life::Life;
use super::super::reply::Reply;
use super::{Asked, Oracle, SLACK, Verdict, time, violated};
use crate::rows::{BackupKey, items, named, text};

/// What a person may change.
const CHANGED: [&str; 3] = ["name", "remarks", "expires_at"];

/// A patch that somebody asks for. Its new name is of nothing else.
#[derive(Debug)]
pub(super) struct Patch {
    of: BackupKey,
    at: Timestamp,
    body: Value,
    /// The life that has written it.
    applied: Option<u32>,
    /// It has a name, by which it is known again.
    named: bool,
    refused: Option<String>,
    /// How often it was asked for, and how often nobody knows with what success.
    tries: u32,
    open: u32,
}

/// Patches, by the name that each gives.
pub(super) type Patches = BTreeMap<String, Patch>;

impl Oracle {
    /// Somebody asks for a patch, perhaps once more.
    pub(super) fn ask_patch(&mut self, asked: &Asked, id: u64, body: &Value) {
        let of = (asked.deployment, id);
        let patch = self.patches.entry(text(body, "name").to_owned()).or_insert_with(|| Patch {
            of,
            at: asked.at,
            body: body.clone(),
            applied: None,
            named: asked.called.is_some(),
            refused: None,
            tries: 0,
            open: 0,
        });
        patch.tries += 1;
        patch.open += 1;
        patch.refused = None;
    }

    /// And is answered.
    pub(super) fn patch_answered(
        &mut self,
        asked: &Asked,
        body: &Value,
        reply: &Reply,
        code: &str,
        disturbed: bool,
    ) -> Verdict {
        let Some(patch) = self.patches.get_mut(text(body, "name")) else { return Ok(()) };
        let known = reply.status < 500;
        patch.open = patch.open.saturating_sub(u32::from(known));
        match reply.status {
            204 if patch.applied.is_none() => {
                violated("ack-lost", format!("{asked:?}: 204, and nothing was changed"))
            }
            // Without a name its own lost reply is not known again: it is decided on anew.
            400..500
                if patch.applied.is_some()
                    && !matches!(code, "idempotent_request_in_progress" | "rate_limited")
                    && (asked.called.is_some() || !disturbed) =>
            {
                violated("refused-and-made", format!("{asked:?}: {code}, and it was changed"))
            }
            400..500 if patch.open == 0 && patch.applied.is_none() => {
                patch.refused = Some(code.to_owned());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whatever of these changes was asked for, and is as it was asked for.
    pub(super) fn patched(
        &mut self,
        now: Timestamp,
        life: &Life,
        key: BackupKey,
        (old, new): (&Value, &Value),
    ) -> Verdict {
        if CHANGED.iter().all(|name| old[*name] == new[*name]) {
            return Ok(());
        }
        let fault = |check, why: &str| {
            violated(check, format!("backup {key:?} is changed by {life}, {why}: {old}, {new}"))
        };
        let name = text(new, "name");
        let Some(patch) = self.patches.get_mut(name).filter(|patch| patch.of == key) else {
            return fault("fixed", "and nobody asked for it");
        };
        if life.function != Name::Api {
            return fault("fixed", "which only people do");
        }
        if let Some(code) = &patch.refused {
            return fault("refused-and-made", &format!("which was refused as {code}"));
        }
        // Without a name its own lost reply is not known again, and it is decided on anew.
        if patch.applied.is_some_and(|by| patch.named || by != life.id) {
            return fault("patched-twice", "and was before");
        }
        patch.applied = Some(life.id);
        if text(old, "status") == "deleting" {
            return fault("edge", "and is going");
        }
        let body = &patch.body;
        let remarks = body.get("remarks").unwrap_or(&old["remarks"]);
        let expires = match body.get("expires_in_days") {
            None => new["expires_at"] == old["expires_at"],
            Some(days) => match (days.as_i64(), time(new, "expires_at")) {
                (None, expires) => expires.is_none(),
                (Some(days), Some(expires)) => {
                    let counted = expires - SignedDuration::from_hours(24 * days);
                    (patch.at - SLACK..=now + SLACK).contains(&counted)
                }
                (Some(_), None) => false,
            },
        };
        if new["remarks"] != *remarks || !expires {
            return fault("patched", &format!("and not as {body}"));
        }
        Ok(())
    }

    /// One of a deployment's backups that expires soon: which, and when.
    pub(crate) fn expiring(&self, deployment: u64, now: Timestamp) -> Option<(u64, Timestamp)> {
        let soon = now + SignedDuration::from_mins(15);
        self.backups_of(deployment)
            .filter(|(_, row)| matches!(text(row, "status"), "completed" | "failed"))
            .filter_map(|(id, row)| Some((id, time(row, "expires_at")?)))
            .find(|(_, at)| (now..=soon).contains(at))
    }

    /// A backup that is shown is as it was at some moment of the request.
    pub(super) fn shown_is_true(&self, asked: &Asked, id: u64, shown: &Value) -> Verdict {
        let snapshots = |row: &Value| -> Vec<String> {
            let started = !row["started_at"].is_null();
            named(row).filter(|_| started).map(|(snapshot, _)| snapshot.to_owned()).collect()
        };
        let like = |row: &Value| {
            let of = items(&shown["snapshots"]).map(|one| text(one, "snapshot_id").to_owned());
            super::answers::same(shown, row)
                && of.eq(snapshots(row))
                && shown["pinned"] == !row["pinned_by"].is_null()
                && shown["schedule_slot"] == row["schedule_slot"]
                && shown["upgrade_id"] == row["upgrade_id"]
                && shown["failure"]["code"] == row["failure"]["code"]
        };
        let versions = self.backup_since(asked, id);
        if versions.iter().flatten().any(|row| like(row)) {
            return Ok(());
        }
        violated("shown-untrue", format!("{asked:?}: {shown}, and the row was {versions:?}"))
    }
}
