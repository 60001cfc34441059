//! How the SDK's clients are made: one TLS stack, our clock, and time-outs on
//! everything, since a call without one outlives the function.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use crate::clock::Clock;

pub use aws_config::SdkConfig;

/// The longest that one attempt of one call may take. `CreateSnapshots` is
/// given up after it with its outcome unknown (`backups_core::limits::SETTLE`
/// is longer).
pub const ATTEMPT: Duration = Duration::from_secs(15);

/// The longest that one call may take with all its retries.
pub const OPERATION: Duration = Duration::from_secs(20);

/// The configuration on AWS: Region, credentials, and `AWS_ENDPOINT_URL` as
/// every AWS tool reads them.
pub async fn config(clock: &Clock) -> SdkConfig {
    loader(clock).load().await
}

/// The configuration for an AWS that is simulated at `endpoint`, which checks
/// no credentials.
pub async fn local_config(clock: &Clock, endpoint: &str, region: &str) -> SdkConfig {
    let credentials = aws_credential_types::Credentials::new("local", "local", None, None, "local");
    loader(clock)
        .endpoint_url(endpoint)
        .region(Region::new(region.to_owned()))
        .credentials_provider(credentials)
        .load()
        .await
}

/// What both have in common. Retries are the SDK's standard ones (3 attempts,
/// exponential backoff with full jitter); `CreateSnapshots` turns them off.
fn loader(clock: &Clock) -> aws_config::ConfigLoader {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(OPERATION)
        .build();
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .time_source(clock.clone())
        .timeout_config(timeouts)
}
