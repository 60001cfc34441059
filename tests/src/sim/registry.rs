//! What the control plane says of deployments: changes, and events that are late,
//! of somebody else, or none at all.

use std::time::Duration;

use serde_json::json;

use super::oracle::DELETED;
use super::people::Person;
use super::plan::Kind;
use super::{drive, scene};
use crate::Result;

impl Person {
    /// How many kinds of change the control plane has.
    pub(crate) const CHANGES: u8 = 11;

    /// The first so many are what a slot or an upgrade waits for, or fails on.
    const HINDERING: u8 = 4;

    /// The one that begins an upgrade.
    pub(crate) const STATUS: u8 = 0;

    /// The one that sets a limit.
    pub(crate) const LIMIT: u8 = 3;

    /// It changes something, this if it is named, and mends it later.
    pub(crate) async fn registry(
        &mut self,
        deployment: u64,
        tenant: usize,
        change: Option<u8>,
    ) -> Result<()> {
        let scheduled = self.world.lock().profile.kind.has_schedules() && self.rng.bool();
        let drawn = self.rng.u8(0..if scheduled { Self::HINDERING } else { Self::CHANGES });
        self.change(deployment, change.unwrap_or(drawn));
        self.schedules_meanwhile(deployment, tenant).await?;
        // Half of the time somebody makes a backup all the same.
        let known = Duration::from_secs(self.rng.u64(10..60));
        tokio::time::sleep(known).await;
        if self.rng.bool() {
            self.create(deployment, tenant).await?;
        }
        let pause = self.lasts();
        tokio::time::sleep(pause).await;
        // And it is mended: a deleted deployment may come back.
        let mut world = self.world.lock();
        let world = &mut *world;
        let now = world.now();
        let scene = &mut world.scene;
        if let Some(one) = scene.deployments.iter_mut().find(|one| one.id == deployment) {
            one.version += 1;
            (one.status, one.plan) = ("initialized", "pro");
            (one.limit, one.odd) = (None, None);
            let detail = one.changed(&scene.tenants[one.tenant].id);
            let kind = "Deployment Changed";
            drive::control_plane(&mut world.cloud, &mut world.oracle, now, kind, &detail);
            world.wake_if_sooner();
        }
        Ok(())
    }

    /// While what the control plane said is on its way somebody sets a schedule, again and
    /// again: at the moment when it arrives one is being written.
    async fn schedules_meanwhile(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        if !self.world.lock().profile.kind.has_schedules() || self.rng.bool() {
            return Ok(());
        }
        for _ in 0..100 {
            {
                let world = self.world.lock();
                let mut all = world.scene.deployments.iter();
                let said = all.find(|one| one.id == deployment).map(|one| one.version);
                if said.is_none_or(|version| world.oracle.knows(deployment) >= version) {
                    break;
                }
            }
            self.schedule(deployment, tenant).await?;
        }
        Ok(())
    }

    /// How long it is so: in weeks of schedules for days, as long as anything happens.
    fn lasts(&mut self) -> Duration {
        let (kind, left) = {
            let world = self.world.lock();
            let end = world.epoch() + world.profile.span;
            (world.profile.kind, end.duration_since(world.now()))
        };
        let left = u64::try_from(left.as_secs()).unwrap_or(0).max(3_600);
        let most = if kind == Kind::ScheduledWeeks { 3 * 86_400 } else { 3_600 };
        Duration::from_secs(self.rng.u64(60..most.min(left)))
    }

    /// The control plane says that something is so.
    fn change(&mut self, deployment: u64, change: u8) {
        let mut world = self.world.lock();
        let now = world.now();
        let world = &mut *world;
        let scene = &mut world.scene;
        let Some(one) = scene.deployments.iter_mut().find(|one| one.id == deployment) else {
            return;
        };
        let owner = scene.tenants[one.tenant].id.clone();
        let mut older = one.changed(&owner);
        one.version += 1;
        match change {
            10 => {
                let node = one.nodes.iter().map(|(node, _)| *node).max().unwrap_or(one.id) + 16;
                let new = scene::launch(&mut world.cloud, now, &mut self.rng, 1);
                one.nodes.push((node, new));
            }
            Self::STATUS => one.status = "upgrading",
            1 => one.plan = "basic",
            2 => {
                one.odd = self.rng.choice([
                    ("storage_type", json!("local_ssd")),
                    ("cloud", json!("gcp")),
                    ("variant", json!("byoc")),
                    ("shared", json!(true)),
                ]);
            }
            Self::LIMIT => one.limit = Some(self.rng.u64(0..6)),
            4 => one.nodes = one.nodes.split_off(one.nodes.len() / 2),
            _ => {}
        }
        let mut detail = one.changed(&owner);
        let mut kind = "Deployment Changed";
        match change {
            5 => {
                kind = DELETED;
                detail = json!({"version": one.version, "deployment_id": one.id});
            }
            6 => {
                // The last word once more, or one before it, which was another.
                // Only if it is known: else it would be the newest.
                let known = world.oracle.knows(one.id);
                if self.rng.bool() && one.version > 2 && known >= one.version - 1 {
                    older["version"] = json!(one.version - 2);
                    older["nodes"] = json!([]);
                }
                detail = older;
                world.reach.hit("registry older event");
            }
            7 => {
                detail["tenant_id"] = json!("somebody else");
                world.reach.hit("registry other tenant");
            }
            8 => {
                let (name, odd) = self
                    .rng
                    .choice([("nodes", json!("none")), ("region", json!("eu-central-1"))])
                    .unwrap_or_default();
                detail[name] = odd;
                world.reach.hit(if name == "nodes" {
                    "registry malformed"
                } else {
                    "registry other region"
                });
            }
            _ => {}
        }
        if kind == DELETED && self.rng.bool() {
            // And it is back at once, in whatever order that comes.
            one.version += 1;
            let back = one.changed(&owner);
            let kind = "Deployment Changed";
            drive::control_plane(&mut world.cloud, &mut world.oracle, now, kind, &back);
            world.reach.hit("registry back at once");
        }
        if change == 9 {
            // Of one that lived so shortly that its end comes first.
            let mut short = one.clone();
            (short.id, short.version) = ((1 << 60) + one.id + one.version, 1);
            detail = short.changed(&owner);
            let gone = json!({"version": 2, "deployment_id": short.id});
            let kind = DELETED;
            drive::control_plane(&mut world.cloud, &mut world.oracle, now, kind, &gone);
            world.reach.hit("registry deleted first");
        }
        drive::control_plane(&mut world.cloud, &mut world.oracle, now, kind, &detail);
        world.wake_if_sooner();
    }
}
