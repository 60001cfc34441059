//! What the functions count, for whoever is to be woken.

use std::sync::{Arc, Mutex, PoisonError};

use tests::http::Call;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use super::*;

/// What was counted on this thread: the metric's name and its value.
#[derive(Debug, Clone, Default)]
struct Counted(Arc<Mutex<Vec<(String, i64)>>>);

impl Counted {
    /// The values of one metric since this was asked last.
    fn take(&self, metric: &str) -> Vec<i64> {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        all.into_iter().filter(|(name, _)| name == metric).map(|(_, value)| value).collect()
    }
}

impl<S: Subscriber> Layer<S> for Counted {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        if let Line { metric: Some(metric), value: Some(value) } = line {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((metric, value));
        }
    }
}

/// The fields of a line that counts.
#[derive(Debug, Default)]
struct Line {
    metric: Option<String>,
    value: Option<i64>,
}

impl Visit for Line {
    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "metric" {
            self.metric = Some(value.to_owned());
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "value" {
            self.value = Some(value);
        }
    }
}

#[tokio::test]
async fn a_schedule_that_does_not_get_its_turn_is_told_by_each_tick() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let functions = Functions::of(&here).await?;
    let counted = Counted::default();
    let _on_this_thread =
        tracing::subscriber::set_default(tracing_subscriber::registry().with(counted.clone()));
    let tick = async || {
        let ended = scheduler::handle(&functions.scheduler, Value::Null, TIMEOUT).await;
        ended.map_err(Failed::from).map(|()| counted.take("SchedulesBehindSeconds"))
    };
    assert_eq!(tick().await?, [0], "none is due");
    let setting = json!({"cron": "0 * * * *", "timezone": "UTC"}).to_string();
    let set = Call::new("PUT", format!("{}/schedule", here.backups()));
    let set = set.key(here.manager_of(here.demo.deployment_id)).json(setting);
    assert_eq!(here.send(set).await?.status, 204);
    functions.time.advance(Duration::from_hours(3));
    let code = "InternalServerError";
    here.arm(&json!({"on": "TransactWriteItems", "do": "error", "code": code, "times": MANY}))
        .await?;
    let told = tick().await?;
    assert!(told.len() == 1 && (7_200..=10_800).contains(&told[0]), "{told:?}");
    here.admin(&["pause", "schedules"]).await?;
    assert_eq!(tick().await?, Vec::<i64>::new(), "an operator waits for it");
    here.admin(&["resume", "schedules"]).await?;
    here.disarm().await?;
    assert!(tick().await?[0] >= 7_200, "the slot begins in this tick");
    assert_eq!(tick().await?, [0]);
    here.stop().await;
    Ok(())
}
