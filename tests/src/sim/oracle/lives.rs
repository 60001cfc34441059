//! The turns of a backup's life: what must hold when it is born, completed,
//! deleted, and gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use cloud::Cloud;
use jiff::{SignedDuration, Timestamp};
use local::Name;
use serde_json::Value;

use super::super::life::Life;
use super::super::reach::Reach;
use super::super::table::Table;
use super::calls::{self, TOUCH};
use super::{DECIDED, EXPIRED, KEPT, Oracle, SLACK, TICKS, Verdict, pause, time, violated};
use crate::rows::{BackupKey, items, named, text};

impl Oracle {
    /// A new backup is one that somebody asked for, and that the deployment allows.
    pub(super) fn born(&mut self, now: Timestamp, key: BackupKey, row: &Value) -> Verdict {
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
        let meta = &Arc::clone(meta);
        let limit = self.limits.of(meta).unwrap_or(0);
        let over = meta["backup_count"].as_u64().unwrap_or(0) > limit;
        if over && !self.may_be_over(deployment, row) {
            return violated(
                "over-limit",
                format!("backup {key:?} is one over the limit of {limit}"),
            );
        }
        let allowed = matches!(text(meta, "plan"), "pro" | "enterprise")
            && super::refusals::stores(meta)
            && (text(meta, "status") == "initialized" || !row["upgrade_id"].is_null())
            && meta["deleted"] != true;
        if !allowed {
            return violated("not-allowed", format!("backup {key:?} of a deployment like {meta}"));
        }
        if row["tenant_id"] != meta["tenant_id"] {
            return violated("tenant", format!("backup {key:?} is of {}", row["tenant_id"]));
        }
        if row["id"] != id || row["deployment_id"] != deployment || row["region"] != meta["region"]
        {
            return violated("born", format!("backup {key:?} says that it is another: {row}"));
        }
        if !row["schedule_slot"].is_null() {
            self.of_a_slot(key, row)?;
            return self.is_new(now, key, row, meta, row);
        }
        if !row["upgrade_id"].is_null() {
            self.of_an_upgrade(key, row)?;
            return self.is_new(now, key, row, meta, &Value::Null);
        }
        // One that goes before a restore is measured by that (`restore_slot`).
        if text(row, "name").starts_with("before restore ") {
            return Ok(());
        }
        let Some(request) = self.requests.get_mut(text(row, "name")) else {
            return violated("unasked", format!("nobody asked for backup {key:?}: {row}"));
        };
        if let Some(code) = &request.refused {
            return violated("refused-and-made", format!("backup {key:?}: {code}, and {row}"));
        }
        if let Some(other) = request.got.replace(key) {
            return violated("made-twice", format!("{other:?} and {key:?} are of one request"));
        }
        let asked = &request.body;
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
            .map(|days| created + SignedDuration::from_hours(24 * days));
        if time(row, "expires_at") != expires {
            return violated(
                "born",
                format!("backup {key:?} expires at {}, not at {expires:?}", row["expires_at"]),
            );
        }
        if created < request.at - SLACK || created > now + SLACK {
            return violated(
                "time",
                format!(
                    "backup {key:?} is created at {created}, asked for at {}, and it is {now}",
                    request.at
                ),
            );
        }
        let asked = asked.clone();
        self.is_new(now, key, row, meta, &asked)
    }

    /// Of its nodes, with nothing that only time brings, and a token of its own.
    fn is_new(
        &mut self,
        now: Timestamp,
        key: BackupKey,
        row: &Value,
        meta: &Value,
        asked: &Value,
    ) -> Verdict {
        let created = time(row, "created_at").unwrap_or(Timestamp::MIN);
        if created > now + SLACK {
            return violated("time", format!("backup {key:?} of {created} is there at {now}"));
        }
        of_its_nodes(key, row, meta, &asked["node_id"])?;
        for name in ["started_at", "completed_at", "size_bytes", "failure"] {
            if !row[name].is_null() {
                return violated("born", format!("backup {key:?} is new and has {name}: {row}"));
            }
        }
        let token = text(row, "token");
        if token.len() < 16 || !self.tokens.insert(token.to_owned()) {
            return violated("token", format!("the token of backup {key:?} is {token}"));
        }
        Ok(())
    }

    /// Started: each node's whole set was made by one call.
    pub(super) fn started(
        &self,
        now: Timestamp,
        key: BackupKey,
        row: &Value,
        cloud: &Cloud,
    ) -> Verdict {
        let nodes = row["nodes"].as_array().cloned().unwrap_or_default();
        for node in &nodes {
            let ids: BTreeSet<&str> = named(&serde_json::json!({"nodes": [node]}))
                .map(|(id, _)| self.snapshots.get_key_value(id).map_or("", |(id, _)| id.as_str()))
                .collect();
            let Some(first) = ids.first().and_then(|id| self.snapshots.get(*id)) else {
                return violated(
                    "started-empty",
                    format!("backup {key:?} has no snapshot of {node}"),
                );
            };
            let set: BTreeSet<&str> = first.set.iter().map(String::as_str).collect();
            if ids != set || first.backup != key || Some(first.node) != node["node_id"].as_u64() {
                return violated(
                    "started-partial",
                    format!(
                        "backup {key:?} names {ids:?} of node {}, one call made {set:?}",
                        node["node_id"]
                    ),
                );
            }
        }
        self.in_order(key, &nodes, cloud)?;
        // Of one that was deleted meanwhile EC2 does not tell the size any more.
        let sizes: Option<Vec<u64>> =
            named(row).map(|(id, _)| Some(u64::from(cloud.snapshot(id)?.size_gib) << 30)).collect();
        let size = sizes.map(|sizes| sizes.iter().sum::<u64>());
        if row["size_bytes"].is_null() || size.is_some_and(|size| row["size_bytes"] != size) {
            return violated(
                "size",
                format!("backup {key:?} says {} bytes, EC2 {size:?}", row["size_bytes"]),
            );
        }
        let last = named(row).filter_map(|(id, _)| Some(self.snapshots.get(id)?.at)).max();
        let started = time(row, "started_at").unwrap_or(Timestamp::MIN);
        if !(now - DECIDED..=now + SLACK).contains(&started) || last.is_none_or(|at| at > now) {
            return violated(
                "time",
                format!("backup {key:?} started at {started}, its last set at {last:?}, now {now}"),
            );
        }
        if !row["completed_at"].is_null() || !row["failure"].is_null() {
            return violated("started-shape", format!("backup {key:?} has just started: {row}"));
        }
        Ok(())
    }

    /// Complete: each snapshot that was started is there, and finished.
    pub(super) fn completed(
        &self,
        now: Timestamp,
        key: BackupKey,
        row: &Value,
        cloud: &Cloud,
    ) -> Verdict {
        if !row["failure"].is_null() {
            return violated("failure-shape", format!("backup {key:?} is completed: {row}"));
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
            let lag = SignedDuration::from_secs(60);
            let ended = cloud.snapshot(id).and_then(|one| one.ended_at).or(ours.ended);
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
                Some(one) if one.volume_id != volume => {
                    return violated(
                        "completed-other",
                        format!("backup {key:?}: {id} is of {}, not of {volume}", one.volume_id),
                    );
                }
                Some(_) => {}
            }
        }
        let whole = named(row).all(|(id, _)| cloud.snapshot(id).is_some_and(|one| one.exists));
        let times = ["created_at", "started_at", "completed_at"].map(|name| time(row, name));
        let [Some(created), Some(started), Some(completed)] = times else {
            return violated(
                "time",
                format!("backup {key:?} is completed, and its times are {times:?}"),
            );
        };
        let soon = self.limits.snapshot + SignedDuration::from_mins(4);
        if self.quiet && now.duration_since(created) > soon {
            return violated(
                "late-in-peace",
                format!("backup {key:?} of {created} is completed at {now}, and nothing was wrong"),
            );
        }
        // When EC2 says that the last of them was.
        let ended = named(row).filter_map(|(id, _)| cloud.snapshot(id)?.ended_at).max();
        let done = ended.unwrap_or(completed).max(started);
        if whole && completed.duration_since(done).abs() > SLACK {
            return violated(
                "time",
                format!("backup {key:?} is completed at {completed}, its snapshots at {ended:?}"),
            );
        }
        if started < created || completed < started || completed > now + SLACK {
            return violated(
                "time",
                format!("backup {key:?}: {created}, {started}, {completed}, and it is {now}"),
            );
        }
        Ok(())
    }

    /// The lists name snapshots by node, then by device.
    fn in_order(&self, key: BackupKey, nodes: &[Value], cloud: &Cloud) -> Verdict {
        let ids = nodes.iter().map(|node| node["node_id"].as_u64());
        let mut right = ids.is_sorted();
        for node in nodes {
            let set: Vec<_> = items(&node["set"]).collect();
            let first = set.first().and_then(|one| self.snapshots.get(text(one, "snapshot_id")));
            let Some(first) = first else { continue };
            let touched =
                self.touched.get(&first.instance).is_some_and(|at| *at + TOUCH >= first.at);
            let Some(instance) = cloud.instance(&first.instance).filter(|_| !touched) else {
                continue;
            };
            let devices = instance.data_volumes.iter().map(|(volume, _)| *volume);
            right &= devices.eq(set.iter().map(|one| text(one, "volume_id")));
        }
        if right {
            return Ok(());
        }
        violated("order", format!("backup {key:?} names its snapshots out of order: {nodes:?}"))
    }

    /// Deleted is only what somebody asked for, what has expired, and what failed
    /// too often to be kept.
    pub(super) fn deleting(
        &mut self,
        now: Timestamp,
        life: &Life,
        key: BackupKey,
        from: &str,
        row: &Value,
        reach: &mut Reach,
    ) -> Verdict {
        match life.function {
            Name::Scheduler => reach.hit("turn expiry began the delete"),
            Name::Worker if from == "failed" => reach.hit("turn failed one pruned"),
            Name::Worker => reach.hit("turn one gave way"),
            Name::Api => {}
        }
        let asked = self.deletes.contains_key(&key);
        let expired = time(row, "expires_at").is_some_and(|at| at <= now + SLACK);
        let newer = self
            .backups_of(key.0)
            .filter(|(id, row)| *id > key.1 && text(row, "status") == "failed")
            .filter(|(id, _)| !self.was_complete((key.0, *id)));
        let newer = newer.count();
        let pruned = from == "failed" && newer >= KEPT && !self.was_complete(key);
        let by = match life.function {
            Name::Api => asked,
            Name::Scheduler => expired,
            Name::Worker => pruned || self.gives_way.take_if(|one| *one == key).is_some(),
        };
        if by {
            self.may_go(now, life, &format!("backup {key:?}"))?;
            self.expired_in_time(now, life, key, from, row)?;
            let backup = self.backups.entry(key).or_default();
            backup.expired = life.function == Name::Scheduler;
            return Ok(());
        }
        violated(
            "unasked-delete",
            format!(
                "backup {key:?}, {from}, is being deleted by {life}, and nobody asked for it: {row}"
            ),
        )
    }

    /// What has expired goes within two ticks, when nothing stands in the way.
    fn expired_in_time(
        &self,
        now: Timestamp,
        life: &Life,
        key: BackupKey,
        from: &str,
        row: &Value,
    ) -> Verdict {
        let Some(expires) = time(row, "expires_at") else { return Ok(()) };
        // One that ran is let finish first.
        let rows = self.backups.get(&key).map_or(&[][..], |backup| backup.rows.as_slice());
        let done = rows
            .iter()
            .find(|(_, row)| row.as_ref().is_some_and(|row| text(row, "status") == from));
        let since = done.map_or(expires, |(at, _)| expires.max(*at));
        let peace = life.function == Name::Scheduler
            && self.is_smooth(since - TICKS)
            && !self.was_pinned_since(key, row, now - EXPIRED);
        if peace && now > since + EXPIRED {
            return violated(
                "expired-late",
                format!("backup {key:?} expired at {expires}, and goes at {now}"),
            );
        }
        Ok(())
    }

    /// Whether nothing has stood in the service's way since then.
    pub(super) fn is_smooth(&self, since: Timestamp) -> bool {
        self.undisturbed && self.ticking && self.is_calm(since)
    }

    /// Whether no trouble has met a call since then.
    pub(super) fn is_calm(&self, since: Timestamp) -> bool {
        self.troubles.iter().all(|(_, at)| *at < since) && !self.is_paused_since(since)
    }

    /// What moves no more is given up at its deadline.
    pub(super) fn gives_up(
        &self,
        now: Timestamp,
        key: BackupKey,
        row: &Value,
        cloud: &Cloud,
    ) -> Verdict {
        let mut moved = time(row, "started_at").unwrap_or(now);
        for (id, _) in named(row) {
            let Some(one) = cloud.snapshot(id) else { return Ok(()) };
            let stands = one.stalled.filter(|(_, until)| *until > now).map(|(since, _)| since);
            // It moves.
            let Some(at) = one.ended_at.or(stands) else { return Ok(()) };
            moved = moved.max(at);
        }
        // That it moved is noticed by the next look, and that its time is over by a tick.
        let noticed = pause(row) + EXPIRED;
        let smooth = self.is_smooth(moved);
        let late =
            self.limits.in_progress + noticed + if smooth { SignedDuration::ZERO } else { TICKS };
        if self.is_calm(moved) && now > moved + late {
            return violated(
                "deadline-missed",
                format!(
                    "of backup {key:?} nothing has moved since {moved}, and it is not given up"
                ),
            );
        }
        Ok(())
    }

    /// The row goes when nothing of it is left.
    pub(super) fn gone(
        &self,
        now: Timestamp,
        key: BackupKey,
        old: &Value,
        cloud: &Cloud,
        table: &Table,
    ) -> Verdict {
        for (id, _) in self.taken_of(key) {
            if cloud.snapshot(id).is_some_and(|one| one.exists) {
                return violated(
                    "gone-early",
                    format!("the row of backup {key:?} is removed, and {id} is there"),
                );
            }
        }
        // The evidence by which what shows up late may go: for 30 days.
        let stone = calls::tombstone(key, table);
        let until = stone.and_then(|row| row["ttl"].as_i64()).unwrap_or(0);
        let days = (now + 30 * SignedDuration::from_hours(24) - TICKS).as_second();
        if stone.is_none_or(|row| row["token"] != old["token"]) || until < days {
            return violated("tombstone", format!("backup {key:?} is gone and leaves {stone:?}"));
        }
        let announced = self.backups.get(&key).map(|backup| &backup.announced);
        if announced.is_none_or(|kinds| !kinds.contains_key("Backup Deleted")) {
            return violated(
                "gone-unannounced",
                format!("the row of backup {key:?} is removed with {}", old["outbox"]),
            );
        }
        Ok(())
    }
}

/// Each node that a backup is of, once, and on its own instance.
fn of_its_nodes(key: BackupKey, row: &Value, meta: &Value, node: &Value) -> Verdict {
    let nodes = |of: &Value| -> Vec<(u64, String)> {
        let all = items(&of["nodes"]);
        let mut all: Vec<_> = all
            .filter_map(|one| Some((one["node_id"].as_u64()?, text(one, "instance_id").to_owned())))
            .collect();
        all.sort();
        all
    };
    let asked_for = node.as_u64();
    let mut wanted = nodes(meta);
    wanted.retain(|(node, _)| asked_for.is_none_or(|asked| asked == *node));
    if nodes(row) != wanted || wanted.is_empty() {
        return violated(
            "nodes",
            format!("backup {key:?} is of {:?}, not of {wanted:?}", nodes(row)),
        );
    }
    Ok(())
}
