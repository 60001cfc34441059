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
use aws_smithy_runtime_api::client::stalled_stream_protection::StalledStreamProtectionConfig;

use crate::clock::Clock;

/// The longest that one attempt of one call may take. `CreateSnapshots` is
/// given up after it with its outcome unknown (`backups_core::limits::SETTLE`
/// is longer).
pub const ATTEMPT: Duration = Duration::from_secs(15);

/// The longest that one call may take with all its retries.
pub const OPERATION: Duration = Duration::from_secs(20);

/// The same two of `DynamoDB` and `EventBridge`, which answer within milliseconds or
/// not at all: a lost packet costs a request of the API 3 s, not its whole time
/// (AWS database blog, "Tuning AWS Java SDK HTTP request settings for
/// latency-aware Amazon DynamoDB applications").
pub const QUICK_ATTEMPT: Duration = Duration::from_secs(3);

/// See [`QUICK_ATTEMPT`].
pub const QUICK_OPERATION: Duration = Duration::from_secs(8);

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
        let mut config = aws_sdk_dynamodb::config::Builder::from(&self.shared)
            .timeout_config(timeouts(QUICK_ATTEMPT, QUICK_OPERATION));
        if let Some(retries) = &self.simulated {
            config.set_retry_partition(Some(retries.clone()));
            config.set_allow_no_auth();
        }
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    pub(crate) fn eventbridge(&self) -> aws_sdk_eventbridge::Client {
        let mut config = aws_sdk_eventbridge::config::Builder::from(&self.shared)
            .timeout_config(timeouts(QUICK_ATTEMPT, QUICK_OPERATION));
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
        .timeout_config(timeouts(ATTEMPT, OPERATION))
        .sleep_impl(TokioSleep::new())
        .retry_config(RetryConfig::standard())
        .endpoint_url("http://aws.invalid")
        .region(Region::new(region.to_owned()))
        // It watches a request's body leave, which no network takes here: every call
        // that is slow would be given up after its 5 s.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
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

fn timeouts(attempt: Duration, operation: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .operation_attempt_timeout(attempt)
        .operation_timeout(operation)
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
        .timeout_config(timeouts(ATTEMPT, OPERATION))
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
    use tokio::time::Instant;

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

    /// Never answers.
    #[derive(Debug)]
    struct Silence;

    impl HttpConnector for Silence {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            HttpConnectorFuture::new(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_simulated_call_is_waited_for_as_long_as_a_real_one() {
        let http = http_client_fn(|_, _| SharedHttpConnector::new(Silence));
        let (clock, _) = Clock::counted(jiff::Timestamp::UNIX_EPOCH, Instant::now());
        let sdk = simulated(&clock, http, "us-west-1");
        let begin = Instant::now();
        assert!(sdk.dynamodb().get_item().table_name("t").send().await.is_err());
        assert_eq!(begin.elapsed(), QUICK_OPERATION);
        let begin = Instant::now();
        assert!(sdk.eventbridge().put_events().send().await.is_err());
        assert_eq!(begin.elapsed(), QUICK_OPERATION);
        #[cfg(feature = "ec2")]
        {
            let begin = Instant::now();
            assert!(sdk.ec2().describe_snapshots().send().await.is_err());
            assert_eq!(begin.elapsed(), OPERATION);
        }
    }
}
