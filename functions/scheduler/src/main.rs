//! The scheduler's Lambda: wiring only.

use std::time::Duration;

use backups_aws::clock::Clock;
use backups_aws::settings::Settings;
use backups_aws::{sdk, telemetry};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use scheduler::Scheduler;
use serde_json::Value;

/// The function's `Timeout` in template.yaml.
const TIMEOUT: Duration = Duration::from_secs(50);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let settings = Settings::from_env()?;
    telemetry::init(&settings.stack_name);
    let clock = Clock::system();
    let sdk = sdk::config(&clock).await;
    let scheduler = Scheduler::new(&settings, &sdk, clock);
    let scheduler = &scheduler;
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Value>| async move {
        Ok::<_, Error>(scheduler::handle(scheduler, event.payload, TIMEOUT).await?)
    }))
    .await
}
