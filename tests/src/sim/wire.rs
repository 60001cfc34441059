//! The fake `HttpClient`: every call of the SDK ends here, waits as on a network,
//! meets its fault, and is carried out by the world.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use cloud::Reply;
use http::StatusCode;
use jiff::SignedDuration;

use super::call::{Call, Service};
use super::life::Life;
use super::plan::Fault;
use super::world::Shared;

/// When a call of EC2 that was given up may still be carried out, in milliseconds:
/// soon, or just before its caller looks for the last time.
const LATE: [RangeInclusive<u64>; 2] = [15_500..=40_000, 61_000..=540_000];

/// And one of another service: while its caller tries again, and a little later.
const LATE_QUICK: [RangeInclusive<u64>; 2] = [3_100..=8_000, 8_000..=20_000];

/// The way from one instance to AWS.
#[derive(Debug, Clone)]
struct Wire {
    world: Shared,
    life: Arc<Life>,
}

/// The client of one instance.
pub(crate) fn client(world: Shared, life: Arc<Life>) -> SharedHttpClient {
    let connector = SharedHttpConnector::new(Wire { world, life });
    http_client_fn(move |_, _| connector.clone())
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let wire = self.clone();
        let call = Call::read(&request);
        HttpConnectorFuture::new(async move { wire.answer(call).await })
    }
}

impl Wire {
    async fn answer(self, mut call: Call) -> Result<HttpResponse, ConnectorError> {
        if self.life.is_doomed() {
            return self.die().await;
        }
        let verdict = self.world.lock().send(&self.life, &mut call);
        let fault = verdict.fault;
        match fault {
            Some(Fault::CrashBefore) => return self.die().await,
            Some(Fault::Refused) => {
                let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
                return Err(ConnectorError::io(refused.into()));
            }
            Some(Fault::TimedOut) => return forever().await,
            Some(Fault::AppliedLate) => {
                self.late(call);
                return forever().await;
            }
            Some(Fault::ShortPage) => call.shorten_page(),
            _ => {}
        }
        wait(verdict.there).await;
        let reply = self.world.lock().carry_out(&self.life, &mut call, fault);
        match fault {
            Some(Fault::CrashAfter) => return self.die().await,
            Some(Fault::TimedOutApplied) => return forever().await,
            _ => {}
        }
        wait(verdict.back).await;
        match fault {
            Some(Fault::ReplyLost) => {
                let reset = io::Error::from(io::ErrorKind::ConnectionReset);
                return Err(ConnectorError::io(reset.into()));
            }
            Some(Fault::Error5xxApplied) => {
                return Ok(response(500, "text/plain", Vec::new()));
            }
            Some(Fault::CrashAfterReply) => self.life.doom(),
            _ => {}
        }
        match reply {
            Reply::Answer { status, content_type, body, .. } => {
                Ok(response(status, content_type, body))
            }
            Reply::LoseReply | Reply::Hang => forever().await,
        }
    }

    /// It is carried out when nobody waits for it any more.
    fn late(&self, call: Call) {
        let mut world = self.world.lock();
        let spans = if call.service == Service::Ec2 { LATE } else { LATE_QUICK };
        // Of a node that is stopped or a volume that is taken off minutes later nobody
        // would know any more; AWS does not promise that it cannot be, and refuses what
        // was signed five minutes ago.
        let minutes = matches!(call.operation.as_str(), "CreateSnapshots" | "DeleteSnapshot")
            || call.service != Service::Ec2;
        let spans = if minutes { &spans[..] } else { &spans[..1] };
        let span = spans[world.dice.rng().usize(0..spans.len())].clone();
        let after = world.dice.millis(span);
        let at = world.now() + SignedDuration::try_from(after).unwrap_or_default();
        world.late.push((at, Arc::clone(&self.life), call));
        if at < world.asleep_until {
            world.wake.notify_one();
        }
    }

    /// Nothing more is heard of this instance.
    async fn die<T>(&self) -> T {
        self.life.kill();
        forever().await
    }
}

async fn forever<T>() -> T {
    std::future::pending().await
}

async fn wait(span: Duration) {
    if !span.is_zero() {
        tokio::time::sleep(span).await;
    }
}

fn response(status: u16, content_type: &'static str, body: Vec<u8>) -> HttpResponse {
    // The simulated services answer with statuses that exist.
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::new(status.into(), SdkBody::from(body));
    response.headers_mut().insert("content-type", content_type);
    response
}
