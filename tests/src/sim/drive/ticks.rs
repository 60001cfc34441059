//! The ticks: one a minute, without those that could find nothing.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::super::spells::Trouble;
use super::super::world::World;
use super::Drive;

/// One tick a minute.
const TICK: i64 = 60;

/// Of the ticks that find nothing due, one in so many runs all the same.
const SAMPLED: i64 = 240;

impl Drive {
    /// The minute's tick, if it is time, and if it can find anything or is one of
    /// those that run for the sake of it.
    pub(super) fn tick(&mut self, now: Timestamp) {
        if now < self.next_tick {
            return;
        }
        let minute = (now.as_second() - self.tick_second).div_euclid(TICK);
        let next = Timestamp::from_second((minute + 1) * TICK + self.tick_second);
        self.next_tick = next.unwrap_or(now + SignedDuration::from_secs(TICK));
        let mut world = self.world.lock();
        let world = &mut *world;
        // Those that find nothing do not run, and the first that finds something begins when
        // the world moves. A herd is measured from its second on.
        let second = Timestamp::from_second(minute * TICK + self.tick_second).unwrap_or(now);
        let by = if world.herd.is_some() { second } else { now };
        let due = due_at(world).is_some_and(|at| at <= by);
        if !due && minute % SAMPLED != 0 {
            return;
        }
        if world.spells.iter().any(|spell| spell.is_on(Trouble::TicksAway, now)) {
            world.reach.hit(Trouble::TicksAway.line());
            world.oracle.met(Trouble::TicksAway, now);
            return;
        }
        let (skipped, doubled) = (world.profile.ticks_skipped, world.profile.ticks_doubled);
        if world.dice.happens(skipped) {
            world.reach.hit("fault tick_skipped");
            world.trace.line(now, || "tick skipped".to_owned());
            return;
        }
        let times = if world.dice.happens(doubled) {
            world.reach.hit("fault tick_doubled");
            2
        } else {
            1
        };
        for _ in 0..times {
            let functions = Arc::clone(&self.functions);
            self.spawn(async move { functions.tick().await });
        }
    }

    /// When one is to run that could find something, or is of the sample.
    pub(super) fn tick_at(&self, now: Timestamp, world: &World) -> Timestamp {
        let sample = now.as_second().div_euclid(TICK * SAMPLED) + 1;
        let sample = Timestamp::from_second(sample * TICK * SAMPLED).unwrap_or(now);
        let due = due_at(world).map(|at| {
            let minute = -(self.tick_second - at.as_second()).div_euclid(TICK);
            Timestamp::from_second(minute * TICK + self.tick_second).unwrap_or(at)
        });
        due.unwrap_or(sample).min(sample).max(self.next_tick)
    }
}

/// When the first row is due.
fn due_at(world: &World) -> Option<Timestamp> {
    world.table.next_due().and_then(|at| at.parse().ok())
}
