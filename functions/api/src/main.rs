//! Wires the API to Lambda and to AWS. Nothing is decided here.

use std::sync::Arc;

use api::Api;
use backups_aws::clock::Clock;
use backups_aws::settings::Settings;
use backups_aws::{sdk, telemetry};
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, LambdaEvent, lambda_runtime};
use tower::ServiceExt as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    let settings = Settings::from_env()?;
    let clock = Clock::system();
    telemetry::init(&settings.stack_name, &clock);
    let sdk = sdk::config(&clock).await;
    let service = api::service(Arc::new(Api::new(settings, &sdk, clock)));
    // What `lambda_http::run` does, with the payload made safe before.
    let tamed = |event: LambdaEvent<LambdaRequest>| {
        LambdaEvent::new(api::tame(event.payload), event.context)
    };
    lambda_runtime::run(Adapter::from(service).map_request(tamed)).await
}
