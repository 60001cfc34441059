//! A crowd: the control plane tells of many deployments at one moment, some of it more than
//! once and in no order; their schedules are due in one minute; and then it takes them all
//! back at once. While things go wrong as in any seed.

use std::time::Duration;

use fastrand::Rng;
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};

use super::doing::Doing;
use super::drive::control_plane;
use super::happenings::Happens;
use super::oracle::DELETED;
use super::oracle::slots::OFTEN;
use super::people::Person;
use super::plan::{Kind, Plan, Profile};
use super::scene::{self, Deployment};
use crate::Result;

/// How many people set its schedules at a time.
const SIDE_BY_SIDE: usize = 8;

/// How many crowds a seed has.
pub(crate) fn how_many(plan: &Plan, kind: Kind) -> u32 {
    if kind != Kind::Schedules {
        return 0;
    }
    let mut rng = Rng::with_seed(plan.seed ^ 0x0063_726f_7764);
    u32::from(rng.u8(0..6) == 0)
}

/// The crowd of a seed, and when it comes: early, so that there is time for it.
pub(crate) fn draw(plan: &Plan, profile: &Profile) -> Vec<(i64, Happens)> {
    let mut rng = Rng::with_seed(plan.seed ^ 0x6d61_6e79);
    let all = 0..how_many(plan, profile.kind);
    let early = profile.span.as_secs() / 4;
    all.map(|_| (rng.i64(0..early), Happens::Doing(Doing::Crowd))).collect()
}

impl Person {
    /// From its arrival to its end.
    pub(super) async fn crowd(&mut self) -> Result<()> {
        let all = self.arrive();
        for _ in 0..400 {
            let known = {
                let world = self.world.lock();
                all.iter().all(|one| world.oracle.knows(one.id) >= one.version)
            };
            if known {
                self.world.lock().reach.hit("crowd known");
                break;
            }
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        let each: Vec<_> = all.iter().map(|one| Ok((self.fork(), one.id, one.tenant))).collect();
        let set = |(mut person, id, tenant): (Self, u64, usize)| async move {
            let body = json!({ "cron": OFTEN[1] });
            person.set_schedule(id, tenant, &body).await.map(drop)
        };
        futures_util::stream::iter(each).try_for_each_concurrent(SIDE_BY_SIDE, set).await?;
        tokio::time::sleep(Duration::from_secs(self.rng.u64(1_200..2_400))).await;
        self.leave(&all);
        Ok(())
    }

    /// The control plane tells of them: of each its last version, and some that came before.
    fn arrive(&mut self) -> Vec<Deployment> {
        let mut world = self.world.lock();
        let world = &mut *world;
        let now = world.now();
        let (mut arrived, mut said) = (Vec::new(), Vec::new());
        let first = (1 << 59) + (self.rng.u64(1..1 << 40) << 8);
        for number in 0..self.rng.u64(20..=50) {
            let volumes = self.rng.usize(1..=2);
            let id = first + 2 * number;
            let node = (id + 1, scene::launch(&mut world.cloud, now, &mut self.rng, volumes));
            let mut one = Deployment {
                id,
                tenant: self.rng.usize(0..world.scene.tenants.len()),
                version: 1,
                nodes: vec![node],
                status: "initialized",
                plan: "pro",
                limit: None,
                odd: None,
            };
            let tenant = world.scene.tenants[one.tenant].id.clone();
            for version in 1..=self.rng.u64(1..=3) {
                one.version = version;
                one.plan = if version % 2 == 1 { "pro" } else { "enterprise" };
                said.push(one.changed(&tenant));
            }
            arrived.push(one);
        }
        world.scene.deployments.extend(arrived.iter().cloned());
        self.rng.shuffle(&mut said);
        for detail in said {
            let kind = "Deployment Changed";
            control_plane(&mut world.cloud, &mut world.oracle, now, kind, &detail);
        }
        world.reach.hit("crowd told of");
        world.wake_if_sooner();
        arrived
    }

    /// They are all deleted at once; some are back at once.
    fn leave(&mut self, all: &[Deployment]) {
        let mut world = self.world.lock();
        let world = &mut *world;
        let now = world.now();
        let mut said: Vec<(&str, Value)> = Vec::new();
        for one in all {
            let mut deployments = world.scene.deployments.iter_mut();
            let Some(one) = deployments.find(|known| known.id == one.id) else { continue };
            one.version += 1;
            said.push((DELETED, json!({"version": one.version, "deployment_id": one.id})));
            if self.rng.u8(0..4) == 0 {
                one.version += 1;
                let tenant = &world.scene.tenants[one.tenant].id;
                said.push(("Deployment Changed", one.changed(tenant)));
            }
        }
        self.rng.shuffle(&mut said);
        for (kind, detail) in said {
            control_plane(&mut world.cloud, &mut world.oracle, now, kind, &detail);
        }
        world.reach.hit("crowd taken back");
        world.wake_if_sooner();
    }
}
