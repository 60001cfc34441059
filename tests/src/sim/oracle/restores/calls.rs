//! The calls that a restore makes: when each may be made, and of what.

use std::collections::BTreeMap;

use std::collections::BTreeSet;

use cloud::Cloud;
use jiff::Timestamp;
use serde_json::Value;

use super::super::{Of, Oracle, SLACK, Verdict, Violation, time, violated};
use super::{MEDDLED, Made, RestoreKey, Token, hangs, is_active, is_gone, news, olds};
use crate::rows::{items, text};
use crate::sim::call::Call;
use crate::sim::life::Life;
use crate::sim::table::RowRef;

impl Oracle {
    /// A call that changes EC2 and is no backup's.
    pub(in super::super) fn restore_sends(
        &mut self,
        now: Timestamp,
        life: &Life,
        call: &Call,
        cloud: &Cloud,
    ) -> Verdict {
        self.watch(cloud);
        let (key, row) = self.restore_of(call, cloud)?;
        self.may_write(now, life, call, Some(&row))?;
        if call.field("DryRun") == "true" {
            return Ok(());
        }
        self.may_be_sent(now, call, key, &row, cloud)?;
        self.begins(now, life, call, Of::Restore(key), Some(&row))
    }

    /// Which restore a call is of, with its row.
    fn restore_of(&self, call: &Call, cloud: &Cloud) -> Result<(RestoreKey, RowRef), Violation> {
        let key = match call.operation.as_str() {
            "CreateVolume" => {
                let tags = volume_tags(call);
                let id = |name: &str| tags.get(name).and_then(|text| text.parse::<u64>().ok());
                id("ld:deployment").zip(id("ld:restore"))
            }
            "StopInstances" | "StartInstances" => {
                self.restore_on(call.field("InstanceId.1")).map(|(key, _)| key)
            }
            "AttachVolume" | "DetachVolume" | "ModifyInstanceAttribute" => {
                self.restore_on(call.field("InstanceId")).map(|(key, _)| key)
            }
            "CreateTags" => self.restore_with(call.field("ResourceId.1"), cloud),
            "DeleteTags" => {
                let volume = call.field("ResourceId.1");
                self.restore_that_adopts(volume).or_else(|| self.restore_with(volume, cloud))
            }
            "DeleteVolume" => self.restore_with(call.field("VolumeId"), cloud),
            _ => None,
        };
        let found = key.and_then(|key| Some((key, self.restores.all.get(&key)?.row()?.clone())));
        found.ok_or_else(|| Violation::new("rights", format!("{} is no restore's", call.told())))
    }

    /// The latest restore that has a volume to release: a later one may have replaced it by
    /// now.
    fn restore_that_adopts(&self, volume: &str) -> Option<RestoreKey> {
        let adopts = |row: &RowRef| {
            items(&row["leftovers"])
                .any(|one| text(one, "volume_id") == volume && text(one, "fate") == "adopted")
        };
        let mut all = self.restores.all.iter().rev();
        all.find(|(_, one)| one.row().is_some_and(adopts)).map(|(key, _)| *key)
    }

    /// The restore that a volume is left over from, or that made it; of one that is tried
    /// beforehand, the restore that its node is in.
    fn restore_with(&self, volume: &str, cloud: &Cloud) -> Option<RestoreKey> {
        let left =
            |row: &RowRef| items(&row["leftovers"]).any(|one| text(one, "volume_id") == volume);
        let mut all = self.restores.all.iter().rev();
        let left = all.find(|(_, one)| one.row().is_some_and(left)).map(|(key, _)| *key);
        let made = || self.restores.made.get(volume).map(|one| one.restore);
        let on = || {
            let (on, _) = cloud.volume(volume)?.attachment?;
            self.restore_on(on).map(|(key, _)| key)
        };
        left.or_else(made).or_else(on)
    }

    fn may_be_sent(
        &self,
        now: Timestamp,
        call: &Call,
        key: RestoreKey,
        row: &Value,
        cloud: &Cloud,
    ) -> Verdict {
        let wrong = |check: &'static str| {
            violated(check, format!("{} of restore {key:?}: {row}", call.told()))
        };
        let status = text(row, "status");
        let moves = matches!(status, "in_progress" | "rolling_back" | "stuck");
        match call.operation.as_str() {
            "CreateVolume" => {
                if status != "in_progress" || !row["frozen_at"].is_null() {
                    return wrong("made-in-downtime");
                }
                self.token_is_new(now, call, cloud)
            }
            "StopInstances" => {
                if !moves || status == "stuck" || row["touched_at"].is_null() {
                    return wrong("stopped-unwritten");
                }
                let unwritten = |node: &Value| node["was_running"].is_null();
                if items(&row["nodes"]).any(unwritten) {
                    return wrong("stopped-unwritten");
                }
                let back = row["back"] == true;
                if !back && !row["launched_at"].is_null() {
                    return wrong("stopped-after-start");
                }
                let ready = |id: &str| {
                    cloud.volume(id).is_some_and(|one| matches!(one.state, "available" | "in-use"))
                };
                let late = items(&row["nodes"]).flat_map(news).any(|(id, _)| !ready(id));
                let deleted = |id: &str| self.restores.meddled.contains_key(id);
                if !back && late && !items(&row["nodes"]).flat_map(news).any(|(id, _)| deleted(id))
                {
                    return wrong("stopped-before-ready");
                }
                Ok(())
            }
            "StartInstances" => self.may_be_started(now, call, key, row, cloud),
            "DetachVolume" | "AttachVolume" | "ModifyInstanceAttribute" => {
                if !moves || status == "stuck" || row["touched_at"].is_null() {
                    return wrong("swapped-unwritten");
                }
                let instance = call.field("InstanceId");
                let running = cloud.instance(instance).is_none_or(|one| one.state != "stopped");
                let node = items(&row["nodes"]).find(|one| text(one, "instance_id") == instance);
                let Some(node) = node.filter(|node| node["swaps"] == true) else {
                    return wrong("swapped-elsewhere");
                };
                if running
                    && call.operation != "ModifyInstanceAttribute"
                    && !self.is_meddled(instance, now)
                {
                    return wrong("swapped-while-running");
                }
                let (volume, device) = (call.field("VolumeId"), call.field("Device"));
                let wanted = if row["back"] == true {
                    olds(node).any(|one| one == (volume, device))
                } else {
                    news(node).any(|one| one == (volume, device))
                };
                if call.operation == "AttachVolume" && !wanted {
                    return wrong("attached-wrong");
                }
                Ok(())
            }
            "DeleteVolume" => {
                self.may_be_deleted_volume(now, call.field("VolumeId"), key, row, cloud)
            }
            "CreateTags" | "DeleteTags" => {
                let over = !is_active(row);
                if over { Ok(()) } else { wrong("tagged-early") }
            }
            _ => wrong("rights"),
        }
    }

    /// Under one token always the same is asked for, and nothing more when what was made
    /// under it is gone: EC2 would answer with that.
    fn token_is_new(&self, now: Timestamp, call: &Call, cloud: &Cloud) -> Verdict {
        let token = call.field("ClientToken");
        if token.is_empty() {
            return violated("token", format!("{} has no client token", call.told()));
        }
        let Some(known) = self.restores.tokens.get(token) else { return Ok(()) };
        if known.asked != asked_for(call) {
            return violated("token", format!("{} under a token of {known:?}", call.told()));
        }
        // Who heard of it knows that it is gone.
        let heard =
            self.restores.all.values().flat_map(|one| &one.rows).any(|(_, row)| {
                items(&row["nodes"]).flat_map(news).any(|(id, _)| id == known.volume)
            });
        let gone = heard && cloud.volume(&known.volume).is_none();
        if gone && now.duration_since(known.at) > MEDDLED {
            return violated("token", format!("{}, and {known:?} is gone", call.told()));
        }
        Ok(())
    }

    /// Who ran, and no sooner than every node has its whole set.
    fn may_be_started(
        &self,
        now: Timestamp,
        call: &Call,
        key: RestoreKey,
        row: &Value,
        cloud: &Cloud,
    ) -> Verdict {
        let wrong = |check: &'static str| {
            violated(check, format!("{} of restore {key:?}: {row}", call.told()))
        };
        let instance = call.field("InstanceId.1");
        let node = items(&row["nodes"]).find(|one| text(one, "instance_id") == instance);
        if node.is_none_or(|node| node["was_running"] != true) {
            return wrong("started-who-stood");
        }
        let back = row["back"] == true;
        if !back && row["launched_at"].is_null() {
            return wrong("started-unwritten");
        }
        let meddled =
            items(&row["nodes"]).any(|node| self.is_meddled(text(node, "instance_id"), now));
        if meddled {
            return Ok(());
        }
        let ran = |node: &Value| {
            news(node).any(|(id, _)| self.restores.made.get(id).is_some_and(|one| one.ran))
        };
        // Before the first one has run, all are whole; after it, those that are started.
        let first = !items(&row["nodes"]).any(ran);
        for node in items(&row["nodes"]).filter(|node| node["swaps"] == true) {
            let on = text(node, "instance_id");
            if is_gone(cloud, on) || !(on == instance || first) {
                continue;
            }
            let whole = if back {
                let view = cloud.instance(on);
                let has = |one: &(&str, &str)| {
                    view.as_ref().is_some_and(|view| view.data_volumes.contains(one))
                };
                olds(node).all(|one| has(&one)) && !news(node).any(|one| has(&one))
            } else {
                hangs(cloud, on, &mut news(node))
            };
            if !whole && text(row, "status") != "stuck" {
                return wrong("started-before-whole");
            }
        }
        if self.is_of_two_sides(row, instance, cloud) {
            return wrong("started-divided");
        }
        Ok(())
    }

    /// Of the nodes that run, and the one that is started, some are on the backup's volumes
    /// and some on their old ones. Where somebody else had a hand in it, it is not judged.
    fn is_of_two_sides(&self, row: &Value, instance: &str, cloud: &Cloud) -> bool {
        let mut sides = BTreeSet::new();
        for node in items(&row["nodes"]).filter(|node| node["swaps"] == true) {
            let on = text(node, "instance_id");
            if self.restores.meddled.contains_key(on) {
                return false;
            }
            let Some(view) = cloud.instance(on) else { continue };
            let serves = matches!(view.state, "running" | "pending") || on == instance;
            let has = |one: &(&str, &str)| view.data_volumes.contains(one);
            if serves && news(node).any(|one| has(&one)) {
                sides.insert("new");
            } else if serves && olds(node).any(|one| has(&one)) {
                sides.insert("old");
            }
        }
        sides.len() > 1
    }

    /// Only what nobody needs and no node has run on; an old volume after its time.
    fn may_be_deleted_volume(
        &self,
        now: Timestamp,
        id: &str,
        key: RestoreKey,
        row: &Value,
        cloud: &Cloud,
    ) -> Verdict {
        let wrong = |check: &'static str| {
            violated(check, format!("{id} is to be deleted by restore {key:?}: {row}"))
        };
        if is_active(row) {
            return wrong("volume-deleted-early");
        }
        if cloud.volume(id).is_some_and(|one| one.attachment.is_some()) {
            return wrong("volume-deleted-in-use");
        }
        let nodes = || items(&row["nodes"]);
        if let Some(made) = self.restores.made.get(id).filter(|made| made.restore == key) {
            let named = nodes().flat_map(news).any(|(one, _)| one == id);
            if made.ran || (text(row, "status") == "completed" && named) {
                return wrong("needed-volume-deleted");
            }
            return Ok(());
        }
        let Some(node) = nodes().find(|node| olds(node).any(|(one, _)| one == id)) else {
            return wrong("foreign-volume-deleted");
        };
        let old = items(&node["old"]).find(|one| text(one, "volume_id") == id);
        let device = old.map_or("", |one| text(one, "device"));
        let covered = news(node).any(|(_, at)| at == device);
        let until = time(row, "old_volumes_kept_until");
        let early = until.is_none_or(|until| now + SLACK < until);
        let late = old.is_none_or(|old| old["late"] == true);
        if text(row, "status") != "completed"
            || row["was_stuck"] == true
            || early
            || !covered
            || late
        {
            return wrong("old-volume-deleted");
        }
        Ok(())
    }

    /// AWS has done what a restore asked for.
    pub(in super::super) fn restore_done(
        &mut self,
        now: Timestamp,
        call: &Call,
        body: &[u8],
        quick: bool,
        cloud: &Cloud,
    ) -> Verdict {
        match call.operation.as_str() {
            "CreateVolume" => self.volume_made(now, call, body, cloud),
            "StopInstances" | "StartInstances" => {
                let instance = call.field("InstanceId.1").to_owned();
                self.changed_by_us(now, &instance, quick);
                Ok(())
            }
            "AttachVolume" | "DetachVolume" | "ModifyInstanceAttribute" => {
                let instance = call.field("InstanceId").to_owned();
                self.changed_by_us(now, &instance, quick);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A backup's look may be older than this; and of a call that comes late nobody knew.
    fn changed_by_us(&mut self, now: Timestamp, instance: &str, quick: bool) {
        self.touched.insert(instance.to_owned(), now);
        if !quick {
            self.restores.meddled.insert(instance.to_owned(), now);
        }
    }

    fn volume_made(&mut self, now: Timestamp, call: &Call, body: &[u8], cloud: &Cloud) -> Verdict {
        let said = String::from_utf8_lossy(body);
        let id = said
            .split_once("<volumeId>")
            .and_then(|(_, rest)| rest.split_once("</volumeId>"))
            .map_or("", |(id, _)| id)
            .to_owned();
        let token = call.field("ClientToken").to_owned();
        let asked = asked_for(call);
        let known = Token { asked, volume: id.clone(), at: now };
        let known = self.restores.tokens.entry(token).or_insert(known);
        if known.volume != id {
            return violated("made-twice", format!("{id} and {known:?} under one token"));
        }
        let (restore, _) = self.restore_of(call, cloud)?;
        let tags = volume_tags(call);
        // Asked again under its token EC2 answers with it even when it has vanished.
        let Some(volume) = cloud.volume(&id) else { return Ok(()) };
        if tags.get("ld:stack").is_none_or(|stack| **stack != self.stack) {
            return violated("tags", format!("{id}: {:?}", volume.tags));
        }
        self.restores.made.entry(id).or_insert(Made { restore, ran: false });
        Ok(())
    }
}

/// What a `CreateVolume` asks for, but for its token.
fn asked_for(call: &Call) -> String {
    let fields = call.form.iter().filter(|(name, _)| name.as_str() != "ClientToken");
    fields.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// The tags in a `CreateVolume`.
fn volume_tags(call: &Call) -> BTreeMap<&str, &str> {
    let of =
        |number: i32, part: &str| call.field(&format!("TagSpecification.1.Tag.{number}.{part}"));
    // EC2's own limit of tags.
    (1..=50)
        .map(|number| (of(number, "Key"), of(number, "Value")))
        .take_while(|(key, _)| !key.is_empty())
        .collect()
}
