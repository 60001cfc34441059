//! What moves by itself: simulated AWS work that falls due, events on their way
//! to functions, and the tick.

use std::sync::Arc;
use std::time::Duration;

use cloud::Delivery;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::dynamo::Dynamo;
use crate::functions::Functions;
use crate::running::Entry;
use crate::serve::stopped;
use crate::tasks::Tasks;
use crate::template::{Name, Template};
use crate::world::{Lost, World};

/// Everything that one run of the process shares.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) world: Arc<World>,
    pub(crate) functions: Arc<Functions>,
    pub(crate) dynamo: Dynamo,
    pub(crate) template: Template,
    /// Deliveries under way. They end before the functions do: one that is
    /// dropped is not answered, and is due again at the next start.
    pub(crate) deliveries: Tasks,
}

impl App {
    /// Starts the delivery of every event that is due, and says when the next
    /// thing happens by itself.
    pub(crate) fn dispatch(self: &Arc<Self>) -> Result<Option<Timestamp>, Lost> {
        let running = &self.functions.running;
        let (due, next) = self.world.quietly(
            |cloud, now| {
                cloud.advance(now);
                // Entered under the lock: nobody sees an event neither waiting nor running.
                let due: Vec<(Delivery, Option<(Name, Entry)>)> = cloud
                    .deliveries(now)
                    .into_iter()
                    .map(|delivery| {
                        let function = Name::from_binary(&delivery.function);
                        let entry =
                            function.map(|name| (name, running.enter(name, &title(&delivery))));
                        (delivery, entry)
                    })
                    .collect();
                (due, cloud.next_due())
            },
            &[],
        )?;
        for (delivery, entry) in due {
            let app = Arc::clone(self);
            self.deliveries.spawn(async move { app.deliver(delivery, entry).await });
        }
        Ok(next)
    }

    async fn deliver(&self, delivery: Delivery, entry: Option<(Name, Entry)>) {
        let payload = delivery.payload();
        let Delivery { id, function, rule, attempt, event, .. } = &delivery;
        let what = event["detail-type"].as_str().unwrap_or_default().to_owned();
        let event_id = event["id"].as_str().unwrap_or_default().to_owned();
        let outcome = match entry {
            None => Err(format!("there is no function {function}")),
            Some((name, entry)) => {
                let answer = self.functions.event(entry, name, payload).await;
                let answer = answer.map_err(|failed| failed.to_string());
                answer.and_then(|answer| delivery.outcome(&answer))
            }
        };
        match &outcome {
            Ok(()) => tracing::info!(%what, %function, attempt, event = %event_id, "event"),
            Err(error) => {
                tracing::warn!(%what, %function, rule, attempt, event = %event_id, error, "event failed");
            }
        }
        // A state that cannot be written ends the process.
        let _ = self.world.with(|cloud, now| cloud.delivered(now, *id, outcome));
    }
}

fn title(delivery: &Delivery) -> String {
    let detail_type = delivery.event["detail-type"].as_str().unwrap_or("an event");
    format!("{detail_type} ({})", delivery.event["id"].as_str().unwrap_or_default())
}

/// Lets simulated time pass until the stop.
pub(crate) async fn drive(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    loop {
        let Ok(next) = app.dispatch() else { return };
        let wait = async {
            match next {
                None => std::future::pending().await,
                Some(at) => {
                    let left = at.duration_since(app.world.clock.timestamp());
                    let left = Duration::try_from(left).unwrap_or_default();
                    // Timers are exact to the millisecond, and none is shorter.
                    tokio::time::sleep(left.max(Duration::from_millis(1))).await;
                }
            }
        };
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            () = app.world.touched.notified() => {}
            () = wait => {}
        }
    }
}

/// Runs the scheduler every `every` until the stop. A run that takes longer
/// than that delays the next one; none is made up for.
pub(crate) async fn tick(app: Arc<App>, every: Duration, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(every) => {}
        }
        match app.functions.tick().await {
            Ok(()) => tracing::debug!("tick"),
            Err(failed) => tracing::warn!(%failed, "tick failed"),
        }
    }
}
