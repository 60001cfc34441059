//! The kept volumes of a backup: what a restore will make anew.

use std::collections::BTreeMap;

use cloud::{Cloud, VolumeView};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::table::Table;
use super::{Oracle, Verdict, violated};
use crate::rows::{BackupKey, items, text};

impl Oracle {
    /// Each volume of a completed backup is kept as EC2 had it.
    pub(super) fn volumes_are_kept(
        &self,
        key: BackupKey,
        row: &Value,
        cloud: &Cloud,
        table: &Table,
    ) -> Verdict {
        for node in items(&row["nodes"]) {
            let of = node["node_id"].as_u64().unwrap_or(0);
            let pk = format!("DEPLOYMENT#{}", key.0);
            let begin = format!("VOLUMES#BACKUP#{:020}#{of:020}#", key.1);
            let rows = table.rows().range((pk.clone(), begin.clone())..);
            let rows = rows.take_while(|((other, sk), _)| *other == pk && sk.starts_with(&begin));
            let kept: BTreeMap<(u64, &str), &Value> = rows
                .flat_map(|(_, row)| {
                    let attempt = row["attempt"].as_u64().unwrap_or(0);
                    items(&row["volumes"]).map(move |one| ((attempt, text(one, "volume_id")), one))
                })
                .collect();
            for one in items(&node["set"]) {
                let snapshot = text(one, "snapshot_id");
                let volume = text(one, "volume_id");
                // As they were before the very call that made the set.
                let attempt = self.snapshots.get(snapshot).map_or(0, |one| one.attempt);
                let Some(kept) = kept.get(&(attempt, volume)) else {
                    return violated(
                        "volume-unkept",
                        format!(
                            "backup {key:?} has {snapshot} of {volume}, which was not kept for attempt {attempt}"
                        ),
                    );
                };
                // A volume that is gone cannot be compared any more.
                let Some(truth) = cloud.volume(volume) else { continue };
                let taken = self.snapshots.get(snapshot);
                let instance = taken.map_or("", |one| one.instance.as_str());
                let touched = self.touched.get(instance).copied().unwrap_or(Timestamp::MIN);
                let moved = taken.is_none_or(|one| touched >= one.at - super::calls::TOUCH);
                as_it_was(kept, &truth, moved).map_err(|name| {
                    super::Violation::new(
                        "volume-kept-wrong",
                        format!("backup {key:?}: {name} of {volume} is {kept}, EC2 has {truth:?}"),
                    )
                })?;
            }
        }
        Ok(())
    }
}

/// Whether a kept volume is as EC2 has it; the first attribute that is not.
/// `moved`: somebody changed what its instance has.
fn as_it_was(kept: &Value, truth: &VolumeView<'_>, moved: bool) -> Result<(), &'static str> {
    // A restore that has just made the volume takes its own tags off a little later.
    let ours = |key: &str| key.starts_with("ld:");
    let tags = truth.tags.iter().filter(|(key, _)| !ours(key));
    let tags: Vec<Value> = tags.map(|(key, value)| json!([key, value])).collect();
    let said = items(&kept["tags"]).filter(|tag| !ours(tag[0].as_str().unwrap_or_default()));
    let said = Value::Array(said.cloned().collect());
    let all = [
        ("size_gib", json!(truth.size_gib)),
        ("volume_type", json!(truth.volume_type)),
        ("iops", json!(truth.iops)),
        ("throughput", json!(truth.throughput)),
        ("kms_key_id", json!(truth.kms_key_id)),
        ("availability_zone", json!(truth.zone)),
        ("multi_attach", json!(truth.multi_attach)),
        ("tags", Value::Array(tags)),
    ];
    let attached = truth
        .attached
        .filter(|_| !moved)
        .map(|(device, goes)| [("device", json!(device)), ("delete_on_termination", json!(goes))]);
    let wrong = all.into_iter().chain(attached.into_iter().flatten());
    let kept = |name: &str| if name == "tags" { &said } else { &kept[name] };
    match wrong.into_iter().find(|(name, value)| kept(name) != value) {
        Some((name, _)) => Err(name),
        None => Ok(()),
    }
}
