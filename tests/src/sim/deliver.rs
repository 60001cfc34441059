//! What becomes of an event on its way: handed over once, not at all, twice, or late.

use std::sync::Arc;
use std::time::Duration;

use cloud::Delivery;
use jiff::Timestamp;

use super::drive::Drive;
use super::logs::has_secret;
use super::oracle::Violation;
use super::plan::Plan;

impl Drive {
    /// Hands events over, or does not.
    pub(super) fn deliver(&self, now: Timestamp, plan: &Plan) {
        let due = {
            let mut world = self.world.lock();
            world.cloud.deliveries(now)
        };
        for delivery in due {
            for after in self.fate(&delivery, plan) {
                let (world, functions) = (self.world.clone(), Arc::clone(&self.functions));
                let (id, payload, delivery) = (delivery.id, delivery.payload(), delivery.clone());
                // The control plane's word is not the tick's to repair.
                let registry = is_registry(&delivery);
                let tried_again = plan.crash.is_none() || registry;
                if delivery.attempt > 1 && after.is_zero() {
                    world.lock().reach.hit("delivery tried again");
                }
                // Lambda would have given it up by now.
                if delivery.attempt > 3 && registry {
                    world.lock().reach.hit("control plane tried a fourth time");
                }
                self.spawn(async move {
                    tokio::time::sleep(after).await;
                    world.lock().hand_over(id);
                    let answer = functions.worker(payload).await?;
                    let outcome = answer.and_then(|answer| delivery.outcome(&answer));
                    let mut world = world.lock();
                    let now = world.now();
                    if let Err(why) = &outcome {
                        world.trace.line(now, || format!("event {id} failed: {why}"));
                        if has_secret(why.as_bytes()) {
                            world.judge(Err(Violation::new("secret", why)));
                        }
                    }
                    // Of a doubled event the first answer counts.
                    let outcome = if tried_again { outcome } else { Ok(()) };
                    world.cloud.delivered(now, id, outcome);
                    Ok(())
                });
            }
        }
    }

    /// After which spans the event is handed over: once, not at all, twice, late.
    fn fate(&self, delivery: &Delivery, plan: &Plan) -> Vec<Duration> {
        let mut world = self.world.lock();
        let world = &mut *world;
        let now = world.now();
        let detail_type = delivery.event["detail-type"].as_str().unwrap_or_default().to_owned();
        let registry = is_registry(delivery);
        let (lost, doubled, late) =
            (world.profile.events_lost, world.profile.events_doubled, world.profile.events_late);
        // After the crash of a sweep the ticks alone mend what is broken.
        let crashed = plan.crash.is_some() && world.crashed;
        // EBS promises nothing; the stack's own bus nearly does.
        let lost = if delivery.event["source"] == "aws.ec2" { lost } else { lost.min(2_000) };
        // What the tick sends it sends over the bus.
        let spared = registry || (crashed && detail_type == "Operation Due");
        if !spared && (crashed || world.dice.happens(lost)) {
            world.reach.hit("fault event_lost");
            world.trace.line(now, || format!("event lost: {detail_type}"));
            if detail_type == "Operation Due" {
                world.oracle.nudge_lost(now, &delivery.event["detail"]);
            }
            world.cloud.delivered(now, delivery.id, Ok(()));
            return Vec::new();
        }
        let mut spans = vec![Duration::ZERO];
        if world.dice.happens(doubled) {
            world.reach.hit("fault event_doubled");
            let soon = world.dice.rng().bool();
            let after = world.dice.millis(0..=if soon { 3_000 } else { 40_000 });
            spans.push(after);
        }
        if world.dice.happens(late) {
            world.reach.hit("fault event_late");
            let after = world.dice.millis(1_000..=300_000);
            spans = spans.into_iter().map(|span| span + after).collect();
        }
        world.trace.line(now, || format!("event {detail_type} after {spans:?}"));
        spans
    }
}

/// Whether the control plane sent it.
fn is_registry(delivery: &Delivery) -> bool {
    delivery.event["source"] == "supervisor.control-plane"
}
