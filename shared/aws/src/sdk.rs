//! How the SDK's clients are made: one TLS stack, our clock, and time-outs on
//! everything, since a call without one outlives the function.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig as Shared};
use aws_credential_types::Credentials;
use aws_sdk_dynamodb::config::retry::RetryPartition;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::HttpClient;

use crate::clock::Clock;

/// The longest that one attempt of one call may take. `CreateSnapshots` is
/// given up after it with its outcome unknown (`backups_core::limits::SETTLE`
/// is longer).
pub const ATTEMPT: Duration = Duration::from_secs(15);

/// The longest that one call may take with all its retries.
pub const OPERATION: Duration = Duration::from_secs(20);

/// What the service's clients are made of. One per process on AWS.
#[derive(Debug, Clone)]
pub struct SdkConfig {
    shared: Shared,
    /// Whose retries share one budget, in a simulation, whose calls nobody signs.
    /// None: the SDK's own budget, which is the process.
    simulated: Option<RetryPartition>,
}

impl SdkConfig {
    /// The Region's name; empty if none is configured.
    pub fn region(&self) -> &str {
        self.shared.region().map_or("", Region::as_ref)
    }

    pub(crate) fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let mut config = aws_sdk_dynamodb::config::Builder::from(&self.shared);
        if let Some(retries) = &self.simulated {
            config.set_retry_partition(Some(retries.clone()));
            config.set_allow_no_auth();
        }
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    pub(crate) fn eventbridge(&self) -> aws_sdk_eventbridge::Client {
        let mut config = aws_sdk_eventbridge::config::Builder::from(&self.shared);
        if let Some(retries) = &self.simulated {
            config.set_retry_partition(Some(retries.clone()));
            config.set_allow_no_auth();
        }
        aws_sdk_eventbridge::Client::from_conf(config.build())
    }

    #[cfg(feature = "ec2")]
    pub(crate) fn ec2(&self) -> aws_sdk_ec2::Client {
        let mut config = aws_sdk_ec2::config::Builder::from(&self.shared);
        if let Some(retries) = &self.simulated {
            config.set_retry_partition(Some(retries.clone()));
            config.set_allow_no_auth();
        }
        aws_sdk_ec2::Client::from_conf(config.build())
    }
}

/// The configuration on AWS: Region, credentials, and `AWS_ENDPOINT_URL` as
/// every AWS tool reads them.
pub async fn config(clock: &Clock) -> SdkConfig {
    SdkConfig { shared: loader(clock).load().await, simulated: None }
}

/// The configuration for an AWS that is simulated at `endpoint`, which checks
/// no credentials.
pub async fn local_config(clock: &Clock, endpoint: &str, region: &str) -> SdkConfig {
    let loader = loader(clock)
        .endpoint_url(endpoint)
        .region(Region::new(region.to_owned()))
        .credentials_provider(local_credentials());
    SdkConfig { shared: loader.load().await, simulated: None }
}

/// The configuration for one instance of a function whose calls all end in
/// `http`: nothing of the machine goes in (environment, profiles, real time),
/// and its budget of retries is its own, as that of a process on AWS is.
pub fn simulated(clock: &Clock, http: impl HttpClient + 'static, region: &str) -> SdkConfig {
    let shared = Shared::builder()
        .behavior_version(behavior())
        .http_client(http)
        .time_source(clock.clone())
        .timeout_config(timeouts())
        .sleep_impl(TokioSleep::new())
        .retry_config(RetryConfig::standard())
        .endpoint_url("http://aws.invalid")
        .region(Region::new(region.to_owned()))
        // A `date` of the simulation would shift the signatures that follow.
        .disable_clock_skew_correction(true);
    let retries = RetryPartition::custom("simulated").build();
    SdkConfig { shared: shared.build(), simulated: Some(retries) }
}

/// How the SDK behaves where a release of it may change its mind.
fn behavior() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

fn local_credentials() -> Credentials {
    Credentials::new("local", "local", None, None, "local")
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(OPERATION)
        .build()
}

/// What AWS and the local cloud have in common. Retries are the SDK's standard
/// ones (3 attempts, exponential backoff with full jitter); `CreateSnapshots`
/// turns them off.
fn loader(clock: &Clock) -> aws_config::ConfigLoader {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .build_https();
    aws_config::defaults(behavior())
        .http_client(http)
        .time_source(clock.clone())
        .timeout_config(timeouts())
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::client::http::http_client_fn;

    use super::*;

    #[tokio::test]
    async fn what_is_simulated_retries_and_waits_as_what_is_real() {
        let clock = Clock::system();
        let real = local_config(&clock, "http://aws.invalid", "us-west-1").await;
        let http = http_client_fn(|_, _| unreachable!("no call is made"));
        let simulated = simulated(&clock, http, "us-west-1");
        assert_eq!(simulated.region(), real.region());
        assert_eq!(simulated.shared.retry_config(), real.shared.retry_config());
        assert_eq!(simulated.shared.timeout_config(), real.shared.timeout_config());
        assert_eq!(simulated.shared.behavior_version(), real.shared.behavior_version());
    }
}
