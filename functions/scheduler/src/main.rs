//! The scheduler's Lambda: wiring only.

use backups_aws::clock::Clock;
use backups_aws::settings::Settings;
use backups_aws::{sdk, telemetry};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use scheduler::Scheduler;
use serde_json::Value;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let settings = Settings::from_env()?;
    let clock = Clock::system();
    telemetry::init(&settings.stack_name, &clock);
    let sdk = sdk::config(&clock).await;
    let scheduler = Scheduler::new(&settings, &sdk, clock);
    let scheduler = &scheduler;
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Value>| async move {
        Ok::<_, Error>(scheduler::handle(scheduler, event.payload, scheduler::TIMEOUT).await?)
    }))
    .await
}
