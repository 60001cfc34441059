//! Snapshots: made, deleted, ended.
//!
//! ```text
//!  create ─► Pending ─► Completed ─► (deleted) ─► lingers ─► forgotten
//!               └─────► Error ─────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::Cloud;
use crate::agenda::Work;
use crate::error::{Ec2Error, Ec2Result, IdKind};
use crate::faults::FaultAction;
use crate::world::{
    Deletion, InstanceState, Snapshot, SnapshotState, Stall, Tags, Volume, VolumeState,
};

/// "at least 15 seconds" between snapshots of one volume [X,
/// `SnapshotCreationPerVolumeRateExceeded`].
const BETWEEN_SNAPSHOTS_MS: u64 = 15_000;
/// Volumes in one `CreateSnapshots` (E).
const MOST_IN_A_SET: usize = 128;
/// `ExcludeDataVolumeIds` (M).
const MOST_EXCLUDED: usize = 40;

/// What `CreateSnapshots` and `CreateSnapshot` have in common.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotRequest {
    pub(crate) description: String,
    /// The call's tags, on every snapshot of it alike.
    pub(crate) tags: Tags,
    pub(crate) copy_tags: bool,
    pub(crate) dry_run: bool,
}

/// Which volumes of an instance.
#[derive(Debug, Clone)]
pub(crate) struct InstanceVolumes {
    pub(crate) instance: String,
    pub(crate) exclude_boot: bool,
    pub(crate) exclude_data: Vec<String>,
}

impl Cloud {
    /// The volumes that a `CreateSnapshots` is about.
    pub(crate) fn volumes_of(&self, which: &InstanceVolumes) -> Ec2Result<Vec<String>> {
        IdKind::Instance.check(&which.instance)?;
        let instance = self
            .instances
            .get(&which.instance)
            .ok_or_else(|| Ec2Error::not_found(IdKind::Instance, &which.instance))?;
        // Of a stopped instance too, where AWS recommends it (E).
        if instance.state == InstanceState::Terminated {
            // (inf) Nothing is attached any more.
            return Err(Ec2Error::new(
                "IncorrectInstanceState",
                format!("The instance '{}' is not in a state to take snapshots of.", instance.id),
            ));
        }
        if which.exclude_data.len() > MOST_EXCLUDED {
            return Err(Ec2Error::invalid(format!(
                "At most {MOST_EXCLUDED} volumes can be excluded."
            )));
        }
        for volume in &which.exclude_data {
            IdKind::Volume.check(volume)?;
            let attachment = instance.attachments.iter().find(|a| a.volume == *volume);
            // "If you specify the ID of the root volume, the request fails" [M].
            if attachment.is_none_or(|a| a.device == instance.root_device) {
                return Err(Ec2Error::invalid(format!(
                    "Value ({volume}) for parameter ExcludeDataVolumeId is invalid. \
                     It is not a data volume of instance '{}'.",
                    instance.id
                )));
            }
        }
        let volumes: Vec<String> = instance
            .attachments
            .iter()
            .filter(|a| !(which.exclude_boot && a.device == instance.root_device))
            .filter(|a| !which.exclude_data.contains(&a.volume))
            .map(|a| a.volume.clone())
            .collect();
        match volumes.len() {
            0 => Err(Ec2Error::combination("No volumes are left to take snapshots of.")),
            1..=MOST_IN_A_SET => Ok(volumes),
            _ => Err(Ec2Error::invalid(format!(
                "Instance '{}' has more than {MOST_IN_A_SET} volumes.",
                instance.id
            ))),
        }
    }

    /// `CreateSnapshots`: all volumes of one instance, crash-consistent; a set
    /// fails whole (E).
    pub(crate) fn create_snapshots(
        &mut self,
        which: &InstanceVolumes,
        request: &SnapshotRequest,
    ) -> Ec2Result<Vec<String>> {
        let volumes = self.volumes_of(which)?;
        let mut resources = volumes.clone();
        resources.push(which.instance.clone());
        let set = self.number();
        self.begin("CreateSnapshots", &volumes, &resources, request, Some(set))
    }

    /// `CreateSnapshot`: one volume.
    pub(crate) fn create_snapshot(
        &mut self,
        volume: &str,
        request: &SnapshotRequest,
    ) -> Ec2Result<Vec<String>> {
        IdKind::Volume.check(volume)?;
        let volumes = [volume.to_owned()];
        self.begin("CreateSnapshot", &volumes, &volumes, request, None)
    }

    fn begin(
        &mut self,
        operation: &str,
        volumes: &[String],
        resources: &[String],
        request: &SnapshotRequest,
        set: Option<u64>,
    ) -> Ec2Result<Vec<String>> {
        let sources = volumes
            .iter()
            .map(|id| self.known_volume(id).cloned())
            .collect::<Ec2Result<Vec<Volume>>>()?;
        let tags = sources
            .iter()
            .map(|volume| request.tags_for(volume))
            .collect::<Ec2Result<Vec<Tags>>>()?;
        if request.dry_run {
            return Err(Ec2Error::dry_run());
        }
        if let Some(volume) = sources.iter().find(|v| v.state != VolumeState::Ready) {
            return Err(Ec2Error::new(
                "IncorrectState",
                format!("Volume '{}' is in the '{}' state.", volume.id, volume.state.name(false)),
            ));
        }
        let pending = self.pending_snapshots();
        for volume in &sources {
            let pending = pending.get(volume.id.as_str()).copied().unwrap_or_default();
            self.check_limits(volume, pending)?;
        }
        // Last, so that the fault strikes only a call that is accepted.
        let struck = self.strike(operation, resources, &[FaultAction::FailLater]);
        let fails = struck.map(|fault| {
            let named = fault.resource.and_then(|id| volumes.iter().position(|v| *v == id));
            named.unwrap_or_else(|| self.rng.usize(0..volumes.len()))
        });
        let mut members = Vec::new();
        for (at, (volume, tags)) in sources.iter().zip(tags).enumerate() {
            let id = self.start_copying(volume, tags, request, set, fails == Some(at));
            members.push((id, volume.id.clone()));
        }
        let ids = members.iter().map(|(id, _)| id.clone()).collect();
        if let Some(set) = set {
            self.remember_set(set, members);
        }
        Ok(ids)
    }

    /// How many pending snapshots each volume has, where it has any.
    fn pending_snapshots(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for snapshot in self.snapshots.values().filter(|s| s.state == SnapshotState::Pending) {
            *counts.entry(snapshot.volume.as_str()).or_default() += 1;
        }
        counts
    }

    /// Limits per volume (X): five pending snapshots, one on HDD types; and
    /// 15 seconds from one to the next.
    fn check_limits(&self, volume: &Volume, pending: usize) -> Ec2Result<()> {
        if let Some(last) = volume.snapshot_at
            && self.now < last + self.span(BETWEEN_SNAPSHOTS_MS)
        {
            return Err(Ec2Error::new(
                "SnapshotCreationPerVolumeRateExceeded",
                "The maximum per volume CreateSnapshot request rate has been exceeded. \
                 Use an increasing or variable sleep interval between requests.",
            ));
        }
        let most = match volume.kind.as_str() {
            "st1" | "sc1" => 1,
            _ => 5,
        };
        if pending >= most {
            return Err(Ec2Error::new(
                "ConcurrentSnapshotLimitExceeded",
                format!(
                    "Maximum allowed in-progress snapshots for a single volume exceeded: {}",
                    volume.id
                ),
            ));
        }
        Ok(())
    }

    fn start_copying(
        &mut self,
        volume: &Volume,
        tags: Tags,
        request: &SnapshotRequest,
        set: Option<u64>,
        fails: bool,
    ) -> String {
        let id = self.aws_id("snap");
        let done_at = self.later(self.config.pace.snapshot_ms.clone());
        let visible_at = self.later(self.config.pace.describe_lag_ms.clone());
        let snapshot = Snapshot {
            id: id.clone(),
            volume: volume.id.clone(),
            size_gib: volume.size_gib,
            encrypted: volume.encrypted,
            kms_key: volume.kms_key.clone(),
            description: request.description.clone(),
            tags,
            content: volume.content.clone(),
            state: SnapshotState::Pending,
            started_at: self.now,
            done_at,
            ended_at: None,
            visible_at,
            set,
            fails,
            stall: None,
            deletion: Deletion::NotAsked,
        };
        self.snapshots.insert(id.clone(), snapshot);
        if let Some(volume) = self.volumes.get_mut(&volume.id) {
            volume.snapshot_at = Some(self.now);
        }
        self.plan(done_at, Work::FinishSnapshot(id.clone()));
        id
    }

    /// A snapshot by its id, as EC2's front end knows it: in the lag after
    /// its creation not yet, as every call on a new id may find (C).
    pub(crate) fn known_snapshot(&self, id: &str) -> Ec2Result<&Snapshot> {
        IdKind::Snapshot.check(id)?;
        self.snapshots
            .get(id)
            .filter(|s| s.visible_at <= self.now)
            .ok_or_else(|| Ec2Error::not_found(IdKind::Snapshot, id))
    }

    /// `DeleteSnapshot`. Of a pending snapshot it takes effect only when it
    /// completes (E).
    pub(crate) fn delete_snapshot(&mut self, id: &str, dry_run: bool) -> Ec2Result<()> {
        if !self.known_snapshot(id)?.exists() {
            return Err(Ec2Error::not_found(IdKind::Snapshot, id));
        }
        if dry_run {
            return Err(Ec2Error::dry_run());
        }
        self.remove_snapshot(id);
        Ok(())
    }

    /// The removal itself, also behind our back.
    pub(crate) fn remove_snapshot(&mut self, id: &str) {
        let Some(snapshot) = self.snapshots.get_mut(&id.to_owned()) else { return };
        if snapshot.state == SnapshotState::Pending {
            snapshot.deletion = Deletion::WhenDone;
            return;
        }
        snapshot.deletion = Deletion::Done;
        let visible_at = snapshot.visible_at;
        // Never before it was shown: then nothing would linger.
        let until = self.later(self.config.pace.describe_lag_ms.clone()).max(visible_at);
        self.plan(until, Work::ForgetSnapshot(id.to_owned()));
    }

    /// A pending snapshot's copying will end in `error`, as after
    /// [`FaultAction::FailLater`]: at the time at which it would have ended
    /// well, and with it its set (E). Err says why not: it is not there or
    /// not pending.
    pub fn doom(&mut self, now: Timestamp, snapshot_id: &str) -> Result<(), String> {
        self.advance(now);
        self.copying(snapshot_id)?.fails = true;
        Ok(())
    }

    /// A pending snapshot's copying stands still from now until `until`, and
    /// so does its progress. Then it ends at once as it would have ended
    /// meanwhile; if it would have ended only later, it does so at that time,
    /// and its progress catches up. Of two stalls at a time the longer holds;
    /// one until a moment in the past is none. If another of its set fails,
    /// it fails all the same (E). Err says why not: it is not there or not
    /// pending.
    pub fn stall(
        &mut self,
        now: Timestamp,
        snapshot_id: &str,
        until: Timestamp,
    ) -> Result<(), String> {
        self.advance(now);
        let now = self.now;
        let snapshot = self.copying(snapshot_id)?;
        let held = snapshot.stall.filter(|stall| stall.holds(now));
        let stall = Stall {
            since: held.map_or(now, |held| held.since),
            until: held.map_or(until, |held| held.until.max(until)),
        };
        let done_at = snapshot.done_at;
        snapshot.stall = Some(stall);
        // An end that stands still is passed over, so there is to be another.
        if stall.until > done_at {
            self.plan(stall.until, Work::FinishSnapshot(snapshot_id.to_owned()));
        }
        Ok(())
    }

    /// A snapshot whose copying has not ended, to change it.
    fn copying(&mut self, id: &str) -> Result<&mut Snapshot, String> {
        let state = self.snapshots.get(id).filter(|s| s.exists()).map(|s| s.state);
        match state {
            Some(SnapshotState::Pending) => {}
            Some(state) => return Err(format!("{id} is not pending: it is {}", state.name())),
            None => return Err(format!("there is no snapshot {id}")),
        }
        self.snapshots.get_mut(&id.to_owned()).ok_or_else(|| format!("there is no snapshot {id}"))
    }

    /// Its copying ends.
    pub(crate) fn finish_snapshot(&mut self, id: &str) {
        let Some(snapshot) = self.snapshots.get(id) else { return };
        if snapshot.state != SnapshotState::Pending {
            return; // its set failed before
        }
        if snapshot.stall.is_some_and(|stall| stall.holds(self.now)) {
            return; // planned before it stood still; its end is planned anew
        }
        let set = snapshot.set;
        if !snapshot.fails {
            self.end_snapshot(id, SnapshotState::Completed);
            self.end_set_if_done(set);
        } else if let Some(set) = set {
            self.fail_set(set, id);
        } else {
            self.end_snapshot(id, SnapshotState::Error);
        }
    }

    /// It ends in that state, and says so on the bus.
    pub(crate) fn end_snapshot(&mut self, id: &str, state: SnapshotState) {
        let now = self.now;
        let Some(snapshot) = self.snapshots.get_mut(&id.to_owned()) else { return };
        snapshot.state = state;
        snapshot.ended_at = snapshot.ended_at.or(Some(now));
        let deleted = snapshot.deletion == Deletion::WhenDone;
        let (volume, started_at) = (snapshot.volume.clone(), snapshot.started_at);
        self.notify_snapshot(id, &volume, state, started_at);
        if deleted {
            self.remove_snapshot(id);
        }
    }

    /// Snapshots that describes show, of these or of all: known by now,
    /// deleted ones as long as they linger.
    pub(crate) fn shown_snapshots<'a>(
        &'a self,
        ids: Option<&'a BTreeSet<String>>,
    ) -> impl Iterator<Item = &'a Snapshot> {
        self.snapshots.pick(ids).filter(|s| s.visible_at <= self.now)
    }
}

impl SnapshotRequest {
    /// The tags of a snapshot of this volume. Where both have a key the
    /// call's tag stands (inf); AWS's own tags are not copied.
    fn tags_for(&self, volume: &Volume) -> Ec2Result<Tags> {
        let mut tags = Tags::new();
        if self.copy_tags {
            let own = volume.tags.iter().filter(|(key, _)| !key.starts_with("aws:"));
            tags.extend(own.map(|(key, value)| (key.clone(), value.clone())));
        }
        tags.extend(self.tags.clone());
        crate::tags::check_count(&tags)?;
        Ok(tags)
    }
}
