//! Snapshots: made, deleted, ended.
//!
//! ```text
//!  create ─► Pending ─► Completed ─► (deleted) ─► lingers ─► forgotten
//!               └─────► Error ─────────┘
//! ```

use jiff::Timestamp;

use crate::Cloud;
use crate::agenda::Work;
use crate::error::{Ec2Error, Ec2Result, IdKind};
use crate::faults::FaultAction;
use crate::world::{Deletion, InstanceState, Snapshot, SnapshotState, Tags, Volume};

/// "at least 15 seconds" between snapshots of one volume [X,
/// `SnapshotCreationPerVolumeRateExceeded`].
const BETWEEN_SNAPSHOTS_MS: u64 = 15_000;
/// Volumes in one `CreateSnapshots` (E).
const MOST_IN_A_SET: usize = 128;
/// `ExcludeDataVolumeIds` (M).
const MOST_EXCLUDED: usize = 40;
/// How long a snapshot takes (docs/local.md).
const DURATION_MS: std::ops::RangeInclusive<u64> = 120_000..=480_000;
/// How far describes lag behind (docs/local.md, after (C)).
const LAG_MS: std::ops::RangeInclusive<u64> = 0..=5_000;

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
            .map(|id| {
                let volume = self.volumes.get(id).cloned();
                volume.ok_or_else(|| Ec2Error::not_found(IdKind::Volume, id))
            })
            .collect::<Ec2Result<Vec<Volume>>>()?;
        let tags = sources
            .iter()
            .map(|volume| request.tags_for(volume))
            .collect::<Ec2Result<Vec<Tags>>>()?;
        if request.dry_run {
            return Err(Ec2Error::dry_run());
        }
        for volume in &sources {
            self.check_limits(volume)?;
        }
        // Last, so that the fault strikes only a call that is accepted.
        let struck = self.strike(operation, resources, &[FaultAction::FailLater]);
        let fails = struck.map(|fault| {
            let named = fault.resource.and_then(|id| volumes.iter().position(|v| *v == id));
            named.unwrap_or_else(|| self.rng.usize(0..volumes.len()))
        });
        let mut members = Vec::new();
        for (at, (volume, tags)) in sources.iter().zip(tags).enumerate() {
            let id = self.start(volume, tags, request, set, fails == Some(at));
            members.push((id, volume.id.clone()));
        }
        let ids = members.iter().map(|(id, _)| id.clone()).collect();
        if let Some(set) = set {
            self.remember_set(set, members);
        }
        Ok(ids)
    }

    /// Limits per volume (X): five pending snapshots, one on HDD types; and
    /// 15 seconds from one to the next.
    fn check_limits(&self, volume: &Volume) -> Ec2Result<()> {
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
        let pending = self
            .snapshots
            .values()
            .filter(|s| s.volume == volume.id && s.state == SnapshotState::Pending)
            .count();
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

    fn start(
        &mut self,
        volume: &Volume,
        tags: Tags,
        request: &SnapshotRequest,
        set: Option<u64>,
        fails: bool,
    ) -> String {
        let id = self.aws_id("snap");
        let (done_at, visible_at) = (self.later(DURATION_MS), self.later(LAG_MS));
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
        let until = self.later(LAG_MS).max(visible_at);
        self.plan(until, Work::ForgetSnapshot(id.to_owned()));
    }

    /// Its copying ends.
    pub(crate) fn finish_snapshot(&mut self, id: &str) {
        let Some(snapshot) = self.snapshots.get(id) else { return };
        if snapshot.state != SnapshotState::Pending {
            return; // its set failed before
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

    /// Snapshots that describes show: known by now, deleted ones as long as
    /// they linger.
    pub(crate) fn shown_snapshots(&self, now: Timestamp) -> impl Iterator<Item = &Snapshot> {
        self.snapshots.values().filter(move |s| s.visible_at <= now)
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
