//! The worker's Lambda: wiring only.

use std::time::Duration;

use backups_aws::clock::Clock;
use backups_aws::settings::Settings;
use backups_aws::{sdk, telemetry};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use worker::Worker;

/// The function's `Timeout` in template.yaml. Time left is counted from the
/// invocation's start: the context's deadline is not an epoch time everywhere
/// (`cargo lambda watch` sends a constant).
const TIMEOUT: Duration = Duration::from_secs(45);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let settings = Settings::from_env()?;
    telemetry::init(&settings.stack_name);
    let clock = Clock::system();
    let sdk = sdk::config(&clock).await;
    let worker = Worker::new(&settings, &sdk, clock);
    let worker = &worker;
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Value>| async move {
        Ok::<_, Error>(worker::handle(worker, event.payload, TIMEOUT).await?)
    }))
    .await
}
