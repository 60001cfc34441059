//! An AWS that never answers: the functions end by themselves before Lambda ends
//! them, so that somebody hears of it.

use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use backups_aws::clock::Clock;
use backups_aws::sdk::{self, SdkConfig};
use backups_aws::settings::Settings;
use local::{Name, REGION, Template};
use scheduler::Scheduler;
use serde_json::json;
use tests::{Failed, Result};
use tokio::time::Instant;
use worker::Worker;

/// Less than what a call of the table may take.
const SHORT: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Silence;

impl HttpConnector for Silence {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(std::future::pending())
    }
}

fn environment(function: Name) -> Result<(Settings, SdkConfig, Clock)> {
    let template = Template::load(&[]).map_err(Failed)?;
    let environment = &template.function(function).map_err(Failed)?.environment;
    let settings = Settings::from_lookup(&|name| environment.get(name).cloned())?;
    let (clock, _) = Clock::counted(jiff::Timestamp::UNIX_EPOCH, Instant::now());
    let http = http_client_fn(|_, _| SharedHttpConnector::new(Silence));
    let sdk = sdk::simulated(&clock, http, REGION);
    Ok((settings, sdk, clock))
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_table_is_silent_ends_itself() -> Result<()> {
    let (settings, sdk, clock) = environment(Name::Worker)?;
    let worker = Worker::new(&settings, &sdk, clock);
    let event = json!({
        "source": "supervisor.backups", "detail-type": "Operation Due",
        "detail": {"version": 1, "deployment_id": 7, "operation": "backup", "id": 1},
    });
    let begin = Instant::now();
    let done = worker::handle(&worker, event, SHORT).await;
    assert!(matches!(done, Err(worker::Error::OutOfTime)), "{done:?}");
    assert!(begin.elapsed() < SHORT, "after {:?}", begin.elapsed());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_tick_whose_table_is_silent_ends_itself() -> Result<()> {
    let (settings, sdk, clock) = environment(Name::Scheduler)?;
    let scheduler = Scheduler::new(&settings, &sdk, clock);
    let begin = Instant::now();
    let done = scheduler::handle(&scheduler, json!({}), SHORT).await;
    assert!(matches!(done, Err(scheduler::Error::OutOfTime)), "{done:?}");
    assert!(begin.elapsed() < SHORT, "after {:?}", begin.elapsed());
    Ok(())
}
