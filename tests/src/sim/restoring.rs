//! What people do about restores, and what the operator orders.

use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use serde_json::json;

use super::doing::Doing;
use super::happenings::Happens;
use super::oracle::What;
use super::people::Person;
use super::plan::{Kind, Plan, Profile};
use super::scene::Key;
use super::world::World;
use crate::Result;

/// What an operator may order.
pub(crate) const ORDERS: [&str; 4] = ["retry", "roll_back", "roll_forward", "release"];

/// Whether somebody restores a backup in its last minutes. Its time is a day at least: so
/// long does such a seed last.
pub(crate) fn at_the_last_moment(plan: &Plan, kind: Kind) -> bool {
    kind == Kind::Restores && Rng::with_seed(plan.seed ^ 0x6c61_7374).u8(0..6) == 0
}

/// When that person begins.
pub(crate) fn draw(plan: &Plan, profile: &Profile) -> Option<(i64, Happens)> {
    let mut rng = Rng::with_seed(plan.seed ^ 0x6c61_7465);
    let at = rng.i64(0..profile.span.as_secs() / 24);
    at_the_last_moment(plan, profile.kind).then_some((at, Happens::Doing(Doing::RestoreLate)))
}

impl Person {
    /// Makes a backup for a day, and restores it in its last minutes: the restore needs it when
    /// its time is over.
    pub(super) async fn restore_late(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        let body = json!({"name": self.world.lock().scene.name(), "expires_in_days": 1});
        let name = body["name"].as_str().unwrap_or_default().to_owned();
        self.post(deployment, tenant, Key::Manage, &name, &body).await?;
        tokio::time::sleep(Duration::from_hours(1)).await;
        let (now, last) = {
            let world = self.world.lock();
            let all = world.oracle.backups_of(deployment);
            let of = |row: &serde_json::Value| row["expires_at"].as_str()?.parse().ok();
            let last: Option<(u64, Timestamp)> = all
                .filter(|(_, row)| row["status"] == "completed" && row["name"] == name.as_str())
                .find_map(|(id, row)| Some((id, of(row)?)));
            (world.now(), last)
        };
        let Some((backup, ends)) = last else { return Ok(()) };
        let before = Duration::from_secs(self.rng.u64(5..240));
        let wait = Duration::try_from(ends.duration_since(now)).unwrap_or_default();
        tokio::time::sleep(wait.saturating_sub(before)).await;
        let path = format!("/deployments/{deployment}/backups/{backup}/restore");
        let what = What::Restore { backup, body: json!({}) };
        let sent = ("", String::new());
        self.send((deployment, tenant, Key::Manage), what, ("POST", &path), sent).await?;
        tokio::time::sleep(before).await;
        let world = &mut *self.world.lock();
        let mut all = world.oracle.backups_of(deployment);
        if all.any(|(id, row)| id == backup && !row["pinned_by"].is_null()) {
            world.reach.hit("expiry under a restore");
        }
        Ok(())
    }

    /// A completed backup of some deployment, if there is any.
    fn restorable(&mut self) -> Option<(u64, usize, u64)> {
        let world = self.world.lock();
        let all = world.scene.deployments.iter().flat_map(|one| {
            let done = world.oracle.backups_of(one.id);
            let done = done.filter(|(_, row)| row["status"] == "completed");
            done.map(move |(id, _)| (one.id, one.tenant, id))
        });
        let all: Vec<_> = all.collect();
        drop(world);
        self.rng.choice(all)
    }

    pub(super) async fn restore(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        let (deployment, tenant, backup) = match self.restorable() {
            Some(one) if self.rng.u8(0..12) > 0 => one,
            _ => (deployment, tenant, self.some_backup(deployment)),
        };
        let mut body = json!({});
        if self.rng.u8(0..4) == 0 {
            body["safety_backup"] = json!(self.rng.bool());
        }
        if self.rng.bool() {
            body["allow_partial"] = json!(true);
        }
        let path = format!("/deployments/{deployment}/backups/{backup}/restore");
        let what = What::Restore { backup, body: body.clone() };
        let empty = body.as_object().is_none_or(serde_json::Map::is_empty);
        let (kind, body) =
            if empty { ("", String::new()) } else { ("application/json", body.to_string()) };
        self.send((deployment, tenant, Key::Manage), what, ("POST", &path), (kind, body)).await?;
        if self.rng.u8(0..5) == 0 {
            // While its volumes are being made.
            tokio::time::sleep(Duration::from_secs(self.rng.u64(15..90))).await;
            return self.registry(deployment, tenant, None).await;
        }
        Ok(())
    }

    pub(super) async fn restores(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        let known: Vec<u64> =
            self.world.lock().oracle.restores_of(deployment).map(|(id, _)| id).collect();
        let none = self.rng.u64(1..=4);
        let one = if self.rng.u8(0..4) == 0 { None } else { self.rng.choice(known) };
        let id = self.rng.bool().then(|| one.unwrap_or(none));
        let Some(id) = id else {
            return self.read_restores(deployment, tenant).await;
        };
        let path = format!("/deployments/{deployment}/restores/{id}");
        let asked = self.asked(deployment, tenant, Key::Read, What::ShowRestore(id));
        self.ask(asked, "GET", &path, "", String::new()).await.map(|_| ())
    }
}

/// An operator's order, as the command puts it on the bus.
pub(crate) fn order_restore(world: &mut World, (deployment, restore): (u64, u64), order: &str) {
    let now = world.now();
    world.reach.hit(&format!("order {order}"));
    let id = world.dice.rng().u64(..);
    let detail = json!({
        "version": 1,
        "order_id": format!("{id:016x}"),
        "deployment_id": deployment,
        "restore_id": restore,
        "order": order,
    });
    let entry = json!({
        "EventBusName": world.oracle.bus(),
        "Source": "supervisor.backups",
        "DetailType": "Restore Ordered",
        "Detail": detail.to_string(),
    });
    let body = json!({ "Entries": [entry] }).to_string();
    world.trace.line(now, || format!("order {order} of restore {restore} of {deployment}"));
    world.cloud.events(now, "AWSEvents.PutEvents", body.as_bytes());
    world.wake.notify_one();
}
