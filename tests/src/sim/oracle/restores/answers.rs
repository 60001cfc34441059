//! What the API answers of restores.

use jiff::Timestamp;
use serde_json::Value;

use super::super::refusals::restorable;
use super::super::versions::since;
use super::super::{Asked, Oracle, Page, SLACK, Verdict, time, violated};
use crate::rows::{items, text};
use crate::sim::reply::Reply;

impl Oracle {
    /// An acknowledged restore is there, of that backup, and its safety backup with it.
    pub(in super::super) fn restore_was_made(
        &self,
        asked: &Asked,
        backup: u64,
        body: &Value,
        reply: &Reply,
    ) -> Verdict {
        let key = reply.restore().map(|id| (asked.deployment, id));
        let row = key.and_then(|key| self.restores.all.get(&key)?.rows.first());
        let Some((_, row)) = row else {
            return violated("ack-lost", format!("{asked:?}: restore {key:?} is not there"));
        };
        let safety = body["safety_backup"] == true;
        let told = reply.backup();
        let new = time(row, "requested_at").is_some_and(|at| at + SLACK >= asked.at);
        let same = row["backup_id"].as_u64() == Some(backup) && new;
        if !same || told != row["safety_backup_id"].as_u64() || told.is_some() != safety {
            return violated("ack-lost", format!("{asked:?}: {told:?}, and the row is {row}"));
        }
        let of = self.backups.get(&(asked.deployment, backup)).and_then(|one| one.row());
        let meta = self.deployments.get(&asked.deployment).and_then(|one| one.rows.last());
        match of.zip(meta) {
            Some((of, (_, meta))) if !restorable(of, meta, asked) => violated(
                "restored-what-cannot",
                format!("{asked:?}: the backup is {of}, the deployment {meta}"),
            ),
            _ => Ok(()),
        }
    }

    /// Whether a restore was there when it was asked for.
    pub(in super::super) fn restore_was_there(&self, asked: &Asked, id: u64) -> bool {
        let one = self.restores.all.get(&(asked.deployment, id));
        one.and_then(|one| one.rows.first()).is_some_and(|(at, _)| *at <= asked.at)
    }

    /// Each as it was at some moment of the request, the newest first, none left out.
    pub(in super::super) fn restores_are_true(
        &self,
        now: Timestamp,
        asked: &Asked,
        page: Page,
        reply: &Reply,
    ) -> Verdict {
        for item in items(&reply.json()) {
            self.restore_is_true(asked, item["id"].as_u64().unwrap_or(0), item)?;
        }
        let there: Vec<(u64, bool)> = self
            .restores_of(asked.deployment)
            .map(|(id, _)| (id, self.restore_was_there(asked, id)))
            .collect();
        Self::page_is_true(now, asked, ("restores", page), reply, &there)
    }

    /// It is as it was at some moment of the request.
    pub(in super::super) fn restore_is_true(
        &self,
        asked: &Asked,
        id: u64,
        item: &Value,
    ) -> Verdict {
        let rows = self.restores.all.get(&(asked.deployment, id)).map(|one| one.rows.as_slice());
        let rows = rows.unwrap_or_default();
        if since(rows, asked.at).iter().any(|(_, row)| same(item, row)) {
            return Ok(());
        }
        violated("list-untrue", format!("{asked:?}: {item}, the row was {rows:?}"))
    }
}

/// Whether an item shows this row.
fn same(item: &Value, row: &Value) -> bool {
    let plain = [
        "id",
        "deployment_id",
        "backup_id",
        "status",
        "phase",
        "progress",
        "failure",
        "safety_backup_id",
        "requested_at",
        "stopped_at",
        "started_at",
        "completed_at",
        "old_volumes_kept_until",
    ];
    let volumes = |node: &Value| -> Vec<String> {
        items(&node["new"]).map(|one| text(one, "volume_id").to_owned()).collect()
    };
    let progress = |item: &Value| item["progress"].as_u64().filter(|percent| *percent <= 100);
    let shown = |node: &Value| -> Vec<String> {
        let made = items(&node["volumes"]).filter(|one| !one["snapshot_id"].is_null());
        made.map(|one| text(one, "new_volume_id").to_owned()).collect()
    };
    plain.iter().all(|name| item[*name] == row[*name])
        && items(&item["nodes"]).count() == items(&row["nodes"]).count()
        && items(&item["nodes"])
            .zip(items(&row["nodes"]))
            .all(|(item, row)| shown(item) == volumes(row) && item["progress"] == row["progress"])
        && items(&item["nodes"]).chain([item]).all(|one| progress(one).is_some())
}
