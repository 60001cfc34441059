//! The worker's Lambda: wiring only.

use backups_aws::clock::Clock;
use backups_aws::settings::Settings;
use backups_aws::{sdk, telemetry};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use worker::Worker;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let settings = Settings::from_env()?;
    let clock = Clock::system();
    telemetry::init(&settings.stack_name, &clock);
    let sdk = sdk::config(&clock).await;
    let worker = Worker::new(&settings, &sdk, clock);
    let worker = &worker;
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Value>| async move {
        Ok::<_, Error>(worker::invoke(worker, event.payload, worker::TIMEOUT).await?)
    }))
    .await
}
