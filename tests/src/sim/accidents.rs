//! What people and machines do to AWS behind the service's back.

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};

use super::drive;
use super::plan::Kind;
use super::scene;
use super::strays;
use super::world::World;

/// An accident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accident {
    SnapshotFails,
    SnapshotStalls,
    SnapshotDeleted,
    NodeStopped,
    NodeStarted,
    NodeTerminated,
    NodeReplaced,
    VolumeAttached,
    VolumeDetached,
    MultiAttach,
    TagsCopied,
    /// A tool takes a snapshot with our tags, of a backup that never was.
    Rowless,
    /// The same of a volume.
    VolumeLeft,
    /// Something looks to the letter like what one of our calls has made.
    Forged,
    /// A hundred of these and more, a few at a time.
    Flood,
    /// A key is disabled for a while: what is made with it vanishes, what is started with
    /// it does not start.
    KeyDisabled,
}

impl Accident {
    const ALL: [Self; 11] = [
        Self::SnapshotFails,
        Self::SnapshotStalls,
        Self::SnapshotDeleted,
        Self::NodeStopped,
        Self::NodeStarted,
        Self::NodeTerminated,
        Self::NodeReplaced,
        Self::VolumeAttached,
        Self::VolumeDetached,
        Self::MultiAttach,
        Self::TagsCopied,
    ];

    /// What makes work for the reconciliation.
    const LONG: [Self; 8] = [
        Self::Rowless,
        Self::VolumeLeft,
        Self::Forged,
        Self::Forged,
        Self::Forged,
        Self::SnapshotDeleted,
        Self::SnapshotDeleted,
        Self::Flood,
    ];

    pub(crate) fn draw(rng: &mut Rng, kind: Kind) -> Self {
        if kind.has_restores() && rng.u8(0..3) == 0 {
            return Self::KeyDisabled;
        }
        if kind.is_long() && rng.bool() {
            let drawn = Self::LONG[rng.usize(0..Self::LONG.len())];
            // As long as it takes it is drawn seldom.
            return if drawn == Self::Flood && rng.u8(0..3) > 0 { Self::Forged } else { drawn };
        }
        Self::ALL[rng.usize(0..Self::ALL.len())]
    }

    const fn line(self) -> &'static str {
        match self {
            Self::SnapshotFails => "accident snapshot_fails",
            Self::SnapshotStalls => "accident snapshot_stalls",
            Self::SnapshotDeleted => "accident snapshot_deleted",
            Self::NodeStopped => "accident node_stopped",
            Self::NodeStarted => "accident node_started",
            Self::NodeTerminated => "accident node_terminated",
            Self::NodeReplaced => "accident node_replaced",
            Self::VolumeAttached => "accident volume_attached",
            Self::VolumeDetached => "accident volume_detached",
            Self::MultiAttach => "accident multi_attach",
            Self::TagsCopied => "accident tags_copied",
            Self::Rowless => "accident rowless",
            Self::VolumeLeft => "accident volume_left",
            Self::Forged => "accident forged",
            Self::Flood => "accident flood",
            Self::KeyDisabled => "accident key_disabled",
        }
    }

    /// Whether it waits for something that it can happen to.
    pub(crate) const fn waits(self) -> bool {
        matches!(
            self,
            Self::SnapshotFails
                | Self::SnapshotStalls
                | Self::SnapshotDeleted
                | Self::NodeStarted
                | Self::Forged
                | Self::Flood
        )
    }

    /// Happens. False: there is nothing that it could happen to now.
    pub(crate) fn happens(self, world: &mut World, rng: &mut Rng) -> bool {
        let now = world.now();
        let done = self.to(world, rng, now);
        if let Some(what) = done {
            world.reach.hit(self.line());
            world.trace.line(now, || format!("{}: {what}", self.line()));
            world.wake_if_sooner();
            true
        } else {
            false
        }
    }

    fn to(self, world: &mut World, rng: &mut Rng, now: Timestamp) -> Option<String> {
        let ours = |world: &World, pending: bool| -> Vec<String> {
            let all = world.cloud.snapshots().filter(|one| one.exists);
            let all = all.filter(|one| !pending || one.state == "pending");
            all.filter(|one| world.oracle.is_ours(one.snapshot_id))
                .map(|one| one.snapshot_id.to_owned())
                .collect()
        };
        let nodes: Vec<(u64, u64, String)> = world
            .scene
            .deployments
            .iter()
            .flat_map(|one| one.nodes.iter().map(|(node, id)| (one.id, *node, id.clone())))
            .collect();
        match self {
            Self::SnapshotFails => {
                let id = rng.choice(ours(world, true))?;
                world.cloud.doom(now, &id).ok()?;
                world.oracle.doomed(&id);
                Some(id)
            }
            Self::SnapshotStalls => {
                let id = rng.choice(ours(world, true))?;
                let long = usize::from(rng.u8(0..3) == 0);
                let minutes = rng.i64(world.profile.stalls[long].clone());
                let until = now + SignedDuration::from_mins(minutes);
                world.cloud.stall(now, &id, until).ok()?;
                world.oracle.stalled(until);
                Some(format!("{id} until {until}"))
            }
            Self::SnapshotDeleted => {
                let running = rng.bool();
                let id = rng.choice(ours(world, running))?;
                world.cloud.delete(now, &id).ok()?;
                world.oracle.deleted_by_hand(now, &id);
                Some(id)
            }
            Self::NodeStopped => {
                let (_, _, id) = rng.choice(nodes)?;
                world.cloud.stop(now, &id).ok()?;
                world.oracle.meddled(now, &id);
                Some(id)
            }
            Self::NodeStarted => starts(world, rng, now, &nodes),
            Self::NodeTerminated => {
                let (_, _, id) = rng.choice(nodes)?;
                world.cloud.terminate(now, &id).ok()?;
                world.oracle.touched(now, &id);
                Some(id)
            }
            Self::NodeReplaced => {
                let (deployment, node, old) = rng.choice(nodes)?;
                let volumes = rng.usize(1..=3);
                let new = scene::launch(&mut world.cloud, now, rng, volumes);
                world.cloud.terminate(now, &old).ok()?;
                world.oracle.touched(now, &old);
                let scene = &mut world.scene;
                let one = scene.deployments.iter_mut().find(|one| one.id == deployment)?;
                one.version += 1;
                let at = one.nodes.iter_mut().find(|(id, _)| *id == node)?;
                at.1.clone_from(&new);
                let detail = one.changed(&scene.tenants[one.tenant].id);
                let kind = "Deployment Changed";
                drive::control_plane(&mut world.cloud, &mut world.oracle, now, kind, &detail);
                Some(format!("{old} by {new}"))
            }
            Self::VolumeAttached | Self::MultiAttach => {
                let (_, _, id) = rng.choice(nodes)?;
                let mut spec = scene::volume(rng);
                spec.multi_attach = self == Self::MultiAttach;
                let volume = world.cloud.attach(now, &id, spec).ok()?;
                world.oracle.touched(now, &id);
                if self == Self::MultiAttach {
                    world.oracle.shared(&id);
                }
                Some(volume)
            }
            Self::VolumeDetached => {
                let (_, _, id) = rng.choice(nodes)?;
                let volumes: Vec<String> = {
                    let instance = world.cloud.instance(&id)?;
                    instance.data_volumes.iter().map(|(volume, _)| (*volume).to_owned()).collect()
                };
                let volume = rng.choice(volumes)?;
                world.cloud.detach(now, &volume).ok()?;
                world.oracle.touched(now, &id);
                Some(volume)
            }
            Self::KeyDisabled => turns_key(world, rng, now),
            Self::Rowless => strays::rowless(world, rng, now),
            Self::VolumeLeft => strays::volume(world, rng, now),
            Self::Forged => strays::forge(world, rng, now),
            Self::Flood => strays::flood(world, rng, now),
            Self::TagsCopied => {
                // A tool that takes snapshots of its own and copies the tags of ours.
                // Any, and the next one whose maker does not hear of it.
                world.copies += 2;
                let id = rng.choice(ours(world, false))?;
                copy(world, now, &id)
            }
        }
    }
}

/// A key is disabled, or one that is so is enabled again; so are all when nothing goes
/// wrong any more.
fn turns_key(world: &mut World, rng: &mut Rng, now: Timestamp) -> Option<String> {
    let disabled = world.cloud.disabled_keys().map(|(arn, _)| arn.to_owned()).next();
    if let Some(arn) = disabled {
        world.cloud.enable_key(now, &arn);
        return Some(format!("{arn} is enabled again"));
    }
    let keys = world.cloud.volumes().filter_map(|one| one.kms_key_id);
    let keys: Vec<String> = keys.map(str::to_owned).collect();
    let arn = rng.choice(keys)?;
    world.cloud.disable_key(now, &arn);
    Some(arn)
}

/// A stopped node is started, or one is stopped that can be, in a while.
fn starts(
    world: &mut World,
    rng: &mut Rng,
    now: Timestamp,
    nodes: &[(u64, u64, String)],
) -> Option<String> {
    let state = |id: &str| world.cloud.instance(id).map_or("none", |one| one.state);
    if let Some((_, _, id)) = nodes.iter().find(|(_, _, id)| state(id) == "stopped") {
        world.cloud.start(now, id).ok()?;
        world.oracle.meddled(now, id);
        return Some(id.clone());
    }
    if !nodes.iter().any(|(_, _, id)| state(id) == "stopping") {
        Accident::NodeStopped.happens(world, rng);
    }
    None
}

/// A `CreateSnapshot` by somebody else, of another volume (EC2 lets nobody take a
/// second one of the same within 15 s) and with the same tags.
pub(crate) fn copy(world: &mut World, now: Timestamp, id: &str) -> Option<String> {
    let (volume, tags) = {
        let ours = world.cloud.snapshot(id)?;
        let mut volumes = world.cloud.instances().flat_map(|one| one.data_volumes.clone());
        let other = volumes.find(|(volume, _)| *volume != ours.volume_id);
        (other.map_or(ours.volume_id, |(volume, _)| volume).to_owned(), ours.tags.clone())
    };
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("Action", "CreateSnapshot").append_pair("Version", "2016-11-15");
    form.append_pair("VolumeId", &volume).append_pair("Description", "nightly, by a tool");
    form.append_pair("TagSpecification.1.ResourceType", "snapshot");
    for (number, (key, value)) in (1..).zip(&tags) {
        form.append_pair(&format!("TagSpecification.1.Tag.{number}.Key"), key);
        form.append_pair(&format!("TagSpecification.1.Tag.{number}.Value"), value);
    }
    let reply = world.cloud.ec2(now, form.finish().as_bytes());
    match reply {
        cloud::Reply::Answer { status: 200, .. } => Some(volume),
        _ => None,
    }
}
