//! `pending`: one `CreateSnapshots` per node, side by side, all or nothing.
//!
//! `CreateSnapshots` has no client token, and an SDK that repeats it takes the
//! snapshots twice. So each call has a number that is stored before it and
//! tagged in it; after an outcome that nobody knows, what bears the number is
//! looked for, adopted if it is the whole set, and removed if it is not.

use super::{Action, Backup, Instance, Seen, Snapshot, Step, Take, Taken, removal};
use crate::announce::Kind;
use crate::backup::Status;
use crate::id::VolumeId;
use crate::limits::{LOOKS, Limits, MAX_ATTEMPTS, MAX_VOLUMES, SETTLE, VISIBLE};
use crate::operation::{FailureCode, backoff};
use crate::time::{Seconds, Time};

/// The most volumes of one `CreateSnapshots` (EC2 user guide, "Create multi-volume snapshots").
const MAX_PER_SET: usize = 128;

/// The deadline that has passed, if one has.
pub(super) fn overdue(
    backup: &Backup,
    limits: &Limits,
    now: Time,
) -> Option<(FailureCode, String)> {
    let age = limits.passed(backup.created_at, now);
    let since = backup.throttled_since;
    let lost = backup.throttled + since.map_or(Seconds(0), |since| limits.passed(since, now));
    let said = match &backup.trouble {
        Some(trouble) => {
            format!(" The last answer from AWS was: {}.", trouble.trim_end_matches('.'))
        }
        None => " No call of AWS failed: the worker did not get to it. Look at its dead-letter queue, its errors, and its concurrency.".to_owned(),
    };
    if age >= limits.pending_total {
        let within = limits.pending_total;
        let reason = format!(
            "The snapshots could not be started within {within} in all.{said} Try again when AWS answers; if it throttles for long, spread the backups."
        );
        return Some((FailureCode::DeadlineExceeded, reason));
    }
    if age.0 - lost.0 >= limits.pending.0 {
        let within = limits.pending;
        let reason = format!(
            "The snapshots could not be started within {within}.{said} Mend what stands in the way, then create the backup again."
        );
        return Some((FailureCode::DeadlineExceeded, reason));
    }
    None
}

/// The next step of a pending backup.
pub(super) fn advance(backup: &Backup, seen: &Seen, limits: &Limits, now: Time) -> Step {
    let mut next = backup.clone();
    let pausing = |node: &super::NodeRun| matches!(node.take, Take::Open { not_before: Some(at), .. } if at > now);
    if !next.nodes.iter().any(pausing) {
        // The pause that AWS made us take is over, and counts to here.
        next.count_throttled(&limits.hold, now);
    }
    let looked = next.clone();
    resolve_called(&mut next, seen, now);
    if start_if_taken(&mut next, now) || next != looked {
        // What is free for another attempt now was not looked at yet.
        return Step::Record(next);
    }
    if let Some((code, reason)) = overdue(&next, limits, now) {
        next.fail(code, reason, now);
        return Step::Record(next);
    }
    let mut intent = next.clone();
    let mut actions = match plan(&mut intent, seen, now) {
        Ok(actions) => actions,
        Err((code, reason)) => {
            // Not the intent: none of its calls was made.
            next.fail(code, reason, now);
            return Step::Record(next);
        }
    };
    let next = intent;
    actions.extend(removal::strays_due(&next, seen, &limits.hold, now));
    if !actions.is_empty() {
        return Step::Act { intent: next, actions };
    }
    let until = next
        .nodes
        .iter()
        .filter_map(|node| match &node.take {
            Take::Open { not_before, .. } => *not_before,
            Take::Called { at, .. } => Some(*at + SETTLE),
            Take::Taken { .. } => None,
        })
        .min()
        .unwrap_or(now + LOOKS.least);
    let note = (next != *backup).then_some(next);
    Step::Wait { until: until.max(now + Seconds(1)), note }
}

/// Every node has its set: the backup is in progress.
pub(super) fn start_if_taken(backup: &mut Backup, now: Time) -> bool {
    let all = backup.nodes.iter().all(|node| matches!(node.take, Take::Taken { .. }));
    if backup.status != Status::Pending || !all {
        return false;
    }
    backup.status = Status::InProgress;
    // By two clocks: never before it was asked for.
    backup.started_at = Some(now.max(backup.created_at));
    backup.moved_at = Some(now);
    backup.size_bytes = Some(backup.snapshots().map(|taken| taken.size_gib << 30).sum());
    backup.owners = backup
        .nodes
        .iter()
        .filter_map(|node| match &node.take {
            Take::Taken { set, .. } => set.iter().map(|taken| taken.snapshot_id.clone()).min(),
            Take::Open { .. } | Take::Called { .. } => None,
        })
        .collect();
    backup.troubles = 0;
    backup.trouble = None;
    backup.throttled_since = None;
    backup.announce(Kind::BackupStarted, now);
    true
}

/// Looks for what calls with an unknown outcome made: the whole set is adopted;
/// when the time to show has passed without it, the node is free for another
/// attempt, and what there is of this one is a stray.
fn resolve_called(backup: &mut Backup, seen: &Seen, now: Time) {
    let token = backup.token.clone();
    let mut sweep = backup.sweep_until;
    let mut taken_at = backup.taken_at;
    for node in &mut backup.nodes {
        let Take::Called { attempt, at, volumes } = &node.take else { continue };
        let (attempt, at) = (*attempt, *at);
        let made: Vec<&Snapshot> = seen
            .tagged
            .iter()
            .filter(|snapshot| {
                snapshot.node_id == Some(node.node_id)
                    && snapshot.attempt == Some(attempt)
                    && snapshot.description.ends_with(token.as_str())
            })
            .collect();
        if let Some(set) = whole_set(volumes, &made) {
            node.take = Take::Taken { attempt, set };
            taken_at = Some(now);
        } else if now >= at + SETTLE {
            node.failed_calls = node.failed_calls.saturating_add(1);
            node.take = Take::Open { attempt, not_before: None };
            sweep = sweep.max(Some(at + super::SWEEP));
        }
    }
    backup.sweep_until = sweep;
    backup.taken_at = taken_at;
}

/// The set in the order of `volumes`, if `made` is exactly one usable snapshot of each.
fn whole_set(volumes: &[VolumeId], made: &[&Snapshot]) -> Option<Vec<Taken>> {
    if made.len() != volumes.len() || made.iter().any(|snapshot| snapshot.state == "error") {
        return None;
    }
    let made: Vec<_> = made
        .iter()
        .map(|snapshot| Taken {
            snapshot_id: snapshot.snapshot_id.clone(),
            volume_id: snapshot.volume_id.clone(),
            size_gib: snapshot.size_gib,
            progress: snapshot.progress,
            asked: false,
        })
        .collect();
    in_order(volumes, &made)
}

/// `made` in the order of `volumes`; None unless it has each volume exactly once.
pub(super) fn in_order(volumes: &[VolumeId], made: &[Taken]) -> Option<Vec<Taken>> {
    if made.len() != volumes.len() {
        return None;
    }
    volumes
        .iter()
        .map(|volume| made.iter().find(|taken| taken.volume_id == *volume).cloned())
        .collect()
}

/// The calls for every node that is free for one, with their numbers stored in `backup`.
fn plan(backup: &mut Backup, seen: &Seen, now: Time) -> Result<Vec<Action>, (FailureCode, String)> {
    let descriptions: Vec<_> =
        backup.nodes.iter().map(|node| backup.description(node.node_id)).collect();
    let trouble = backup.trouble.clone().unwrap_or_else(|| "unknown".to_owned());
    let not_missing_before = backup.created_at + VISIBLE;
    let mut actions = Vec::new();
    let mut volumes_in_all: usize = backup.nodes.iter().map(|node| node.take.volumes()).sum();
    for (node, description) in backup.nodes.iter_mut().zip(descriptions) {
        let Take::Open { attempt, not_before } = node.take else { continue };
        if not_before.is_some_and(|at| at > now) {
            continue;
        }
        let name = format!("Node {} ({})", node.node_id, node.instance_id);
        if node.failed_calls >= MAX_ATTEMPTS {
            return Err((
                FailureCode::SnapshotFailed,
                format!(
                    "{name}: {MAX_ATTEMPTS} attempts to start its snapshots failed. The last answer from AWS was: {trouble}"
                ),
            ));
        }
        let instance = seen.instances.get(&node.instance_id);
        if instance.is_none() && now < not_missing_before {
            // A node that was just registered may not be listed yet (EC2 API
            // reference, "Eventual consistency").
            node.take = Take::Open { attempt, not_before: Some(now + Seconds(20)) };
            continue;
        }
        let volumes = data_volumes(&name, instance)?;
        volumes_in_all += volumes.len();
        if volumes_in_all > MAX_VOLUMES || volumes.len() > MAX_PER_SET {
            return Err((
                FailureCode::TooManyVolumes,
                format!(
                    "{name}: a backup may have {MAX_VOLUMES} data volumes, and {MAX_PER_SET} of one node; there are more. Back up single nodes by `node_id`, or detach what is not used."
                ),
            ));
        }
        let attempt = attempt + 1;
        node.take = Take::Called {
            attempt,
            at: now,
            volumes: volumes.iter().map(|volume| volume.volume_id.clone()).collect(),
        };
        actions.push(Action::CreateSnapshots {
            node_id: node.node_id,
            instance_id: node.instance_id.clone(),
            attempt,
            description,
            volumes,
        });
    }
    Ok(actions)
}

/// The node's data volumes, or why it cannot be backed up.
fn data_volumes(
    name: &str,
    instance: Option<&Instance>,
) -> Result<Vec<super::Volume>, (FailureCode, String)> {
    let gone = ["terminated", "shutting-down"];
    let Some(instance) = instance.filter(|instance| !gone.contains(&instance.state.as_str()))
    else {
        return Err((
            FailureCode::NodeMissing,
            format!(
                "{name}: EC2 has no such instance. When the deployment has its node back, create the backup again."
            ),
        ));
    };
    if instance.data_volumes.is_empty() {
        return Err((
            FailureCode::NoVolumes,
            format!(
                "{name} has no data volume: nothing to back up. Attach its volumes, or back up another node by `node_id`."
            ),
        ));
    }
    if let Some(shared) = instance.data_volumes.iter().find(|volume| volume.multi_attach) {
        return Err((
            FailureCode::MultiAttach,
            format!(
                "{name}: volume {} is enabled for Multi-Attach; a snapshot of it is not consistent at one instant.",
                shared.volume_id
            ),
        ));
    }
    Ok(instance.data_volumes.clone())
}

/// How long to keep away after `code`, when AWS throttles.
pub(super) fn throttle_pause(code: &str, troubles: u32) -> Seconds {
    match code {
        // "Wait at least 15 seconds" (EC2 API reference, error codes).
        "SnapshotCreationPerVolumeRateExceeded" => Seconds(15).max(backoff(troubles)),
        // These end when other snapshots complete: minutes.
        "ConcurrentSnapshotLimitExceeded" | "PendingSnapshotLimitExceeded" => Seconds(60),
        _ => backoff(troubles),
    }
}
