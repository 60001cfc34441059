//! An operator pulls the brake, and lets it go.

use backups_core::brake::Brake;
pub(crate) use backups_core::brake::Switch;
use backups_core::time::Time;
use fastrand::Rng;
use jiff::SignedDuration;
use serde_dynamo::Item;
use serde_json::{Value, json};

use super::doing::Doing;
use super::plan::{Kind, Plan, Profile};
use super::world::{Shared, World};
use super::{Result, happenings::Happens};
use crate::Failed;
use crate::rows::{items, text};

/// The row's key.
const KEY: (&str, &str) = ("STACK", "BRAKE");

/// A pause that somebody will order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pull {
    pub(crate) switch: Switch,
    pub(crate) even_restores: bool,
    /// So many seconds after what it is to stand in the way of.
    pub(crate) after: u64,
    pub(crate) minutes: i64,
}

impl Pull {
    /// What somebody does in the middle of it.
    pub(crate) const fn invites(self, restores: bool) -> Doing {
        match (self.switch, self.even_restores) {
            (Switch::Writes, true) if restores => Doing::Restore,
            (Switch::Deletions, _) => Doing::Delete,
            (Switch::Writes | Switch::Schedules, _) => Doing::Create,
        }
    }
}

/// How many pauses a seed has.
pub(crate) fn how_many(plan: &Plan, kind: Kind) -> u32 {
    if matches!(kind, Kind::Quiet | Kind::Herd(_) | Kind::Sweep(_)) {
        return 0;
    }
    let mut rng = Rng::with_seed(plan.seed ^ 0x0062_7261_6b65);
    // What it does to a restore takes a restore to be seen.
    let one_in = if kind.has_restores() { 2 } else { 4 };
    if rng.u8(0..one_in) == 0 { rng.u32(1..=3) } else { 0 }
}

/// The pauses of a seed, and when they are.
pub(crate) fn draw(plan: &Plan, profile: &Profile) -> Vec<(i64, Happens)> {
    let mut rng = Rng::with_seed(plan.seed ^ 0x7061_7573_6564);
    let span = profile.span.as_secs();
    (0..profile.brakes)
        .map(|_| {
            let of_restores = profile.kind.has_restores() && rng.bool();
            let drawn = Switch::ALL[rng.usize(0..Switch::ALL.len())];
            let switch = if of_restores { Switch::Writes } else { drawn };
            // Longer than any deadline but a snapshot's, at times.
            let minutes = if rng.u8(0..4) == 0 { rng.i64(60..=400) } else { rng.i64(5..=60) };
            let even_restores = switch == Switch::Writes && rng.bool();
            // A downtime lasts for minutes, and begins minutes after its restore.
            let late = even_restores && profile.kind.has_restores() && rng.u8(0..4) > 0;
            let after = if late { rng.u64(60..=240) } else { 0 };
            (rng.i64(0..span), Happens::Brake(Pull { switch, even_restores, after, minutes }))
        })
        .collect()
}

impl World {
    /// The row as it is.
    fn brake(&self) -> Result<Brake> {
        let key = (KEY.0.to_owned(), KEY.1.to_owned());
        let Some(row) = self.table.rows().get(&key) else { return Ok(Brake::default()) };
        serde_json::from_value(Value::clone(row)).map_err(|error| Failed(error.to_string()))
    }

    /// As the operator's command does it, in one write that no function's meets.
    fn change_brake(&mut self, change: impl FnOnce(&mut Brake, Time)) -> Result<()> {
        let mut brake = self.brake()?;
        change(&mut brake, Time::from_unix(self.now().as_second()));
        brake.revision += 1;
        let item = serde_dynamo::to_item::<_, Item>(brake).map_err(|error| error.to_string());
        let mut item = json!(item.map_err(Failed)?);
        item["pk"] = json!({"S": KEY.0});
        item["sk"] = json!({"S": KEY.1});
        self.table.plant(item)
    }

    /// Pauses.
    fn pull(&mut self, pull: Pull) -> Result<()> {
        let Pull { switch, even_restores, minutes, .. } = pull;
        let now = self.now();
        let even = if even_restores { " even restores" } else { "" };
        self.trace.line(now, || format!("paused for {minutes} min: {switch}{even}"));
        self.reach.hit(&format!("paused {switch}{even}"));
        self.change_brake(|brake, at| brake.pause(switch, even_restores, None, at))?;
        self.oracle.paused(switch, even_restores, now);
        Ok(())
    }

    /// Lets it go on, if it has not.
    fn let_go(&mut self, switch: Switch) -> Result<()> {
        let Some(on) = self.brake()?.on(switch).cloned() else { return Ok(()) };
        let now = self.now();
        self.trace.line(now, || format!("resumed: {switch}"));
        for what in self.held(switch, on.even_restores_since.is_some()) {
            self.reach.hit(what);
        }
        self.change_brake(|brake, at| brake.resume(switch, at))?;
        self.oracle.resumed(switch, now);
        Ok(())
    }

    /// What waits for the pause to end.
    fn held(&self, switch: Switch, even_restores: bool) -> Vec<&'static str> {
        let rows = self.table.rows().iter();
        rows.filter_map(|((_, sk), row)| {
            let status = text(row, "status");
            let down = !row["touched_at"].is_null();
            let uncalled =
                || items(&row["nodes"]).all(|node| node["attempt"].as_u64().unwrap_or(0) == 0);
            match (switch, status) {
                (Switch::Writes, "pending") if sk.starts_with("BACKUP#") && uncalled() => {
                    Some("turn create was paused")
                }
                (Switch::Writes, "in_progress") if sk.starts_with("RESTORE#") && !down => {
                    Some("turn restore was paused")
                }
                (Switch::Writes, "in_progress" | "rolling_back")
                    if sk.starts_with("RESTORE#") && even_restores =>
                {
                    Some("turn downtime was paused")
                }
                (Switch::Deletions, "deleting") if sk.starts_with("BACKUP#") => {
                    Some("turn delete was paused")
                }
                _ => None,
            }
        })
        .collect()
    }
}

/// Pauses when it is time, and lets go when the pause is over, or all is calm.
pub(crate) async fn pulled(world: Shared, pull: Pull) -> Result<()> {
    tokio::time::sleep(std::time::Duration::from_secs(pull.after)).await;
    let end = {
        let mut world = world.lock();
        if world.dice.is_calm() {
            return Ok(());
        }
        world.pull(pull)?;
        world.now() + SignedDuration::from_mins(pull.minutes)
    };
    loop {
        {
            let mut world = world.lock();
            if world.now() >= end || world.dice.is_calm() {
                return world.let_go(pull.switch);
            }
        }
        tokio::time::sleep(std::time::Duration::from_mins(1)).await;
    }
}
