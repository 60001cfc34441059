//! The functions as Lambda would run them: the same handlers with the same SDK
//! clients, against the AWS port of this process.
//!
//! An invocation is a task of its own. At its time-out the future is dropped, as
//! Lambda freezes and then kills what runs too long; a panic fails the invocation
//! alone. Nothing here retries: that is the bus's business.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use api::Api;
use backups_aws::clock::Clock;
use backups_aws::sdk;
use backups_aws::settings::Settings;
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, Context, LambdaEvent, Service as _};
use scheduler::Scheduler;
use serde_json::Value;
use tokio::sync::{RwLock, Semaphore, oneshot};
use worker::Worker;

use crate::running::{Entry, Running};
use crate::stack::{ACCOUNT, REGION, STACK};
use crate::tasks::Tasks;
use crate::template::{Function, Name, Template};

/// The longest response that Lambda hands back, in bytes of its JSON. More ends in an error in
/// the function's stead, whatever it was that the function did.
/// Source: AWS Lambda developer guide, "Lambda quotas", "Invocation payload": 6 MB. To the byte
/// as the error says it.
const LARGEST_RESPONSE: usize = 6_291_556;

/// The functions of the stack, ready to be invoked.
#[derive(Debug)]
pub(crate) struct Functions {
    api: Lambda<axum::Router>,
    worker: Lambda<Arc<Worker>>,
    scheduler: Lambda<Arc<Scheduler>>,
    /// What is running.
    pub(crate) running: Running,
    /// Held for reading by each invocation; for writing while the clock jumps.
    gate: Arc<RwLock<()>>,
    tasks: Tasks,
    clock: Clock,
}

/// One function: its handler and what Lambda is told of it.
#[derive(Debug)]
struct Lambda<H> {
    handler: H,
    timeout: Duration,
    slots: Arc<Semaphore>,
}

/// Why an invocation has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failed {
    /// Killed at its time-out.
    TimedOut(Duration),
    /// The handler panicked, or the process ends.
    Crashed,
    /// The handler's own error.
    Error(String),
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // As Lambda words it.
            Self::TimedOut(after) => {
                write!(f, "Task timed out after {:.2} seconds", after.as_secs_f64())
            }
            Self::Crashed => f.write_str("the invocation crashed"),
            Self::Error(error) => f.write_str(error),
        }
    }
}

impl Functions {
    /// Initialises every function with its environment of the template.
    pub(crate) async fn start(
        template: &Template,
        clock: &Clock,
        aws: &str,
    ) -> Result<Self, String> {
        let settings = |function: &Function| {
            Settings::from_lookup(&|name| function.environment.get(name).cloned())
                .map_err(|missing| format!("function {}: {missing}", function.name.as_str()))
        };
        let (api, worker, scheduler) = (
            template.function(Name::Api)?,
            template.function(Name::Worker)?,
            template.function(Name::Scheduler)?,
        );
        // A configuration each: on AWS they are processes of their own.
        let config = || sdk::local_config(clock, aws, REGION);
        let api_handler =
            api::service(Arc::new(Api::new(settings(api)?, &config().await, clock.clone())));
        let worker_handler =
            Arc::new(Worker::new(&settings(worker)?, &config().await, clock.clone()));
        let scheduler_handler =
            Arc::new(Scheduler::new(&settings(scheduler)?, &config().await, clock.clone()));
        Ok(Self {
            api: Lambda::new(api_handler, api),
            worker: Lambda::new(worker_handler, worker),
            scheduler: Lambda::new(scheduler_handler, scheduler),
            running: Running::new(),
            gate: Arc::default(),
            tasks: Tasks::default(),
            clock: clock.clone(),
        })
    }

    /// Invokes the function behind the gateway with an API Gateway payload, and
    /// gives what Lambda would hand back: the response as JSON.
    pub(crate) async fn http(
        &self,
        request: LambdaRequest,
        context: Context,
        what: &str,
    ) -> Result<Value, Failed> {
        let entry = self.running.enter(Name::Api, what);
        let router = self.api.handler.clone();
        // As main.rs does before the same adapter.
        let event = LambdaEvent::new(api::tame(request), context);
        self.invoke(&self.api, entry, move || async move {
            let response = Adapter::from(router).call(event);
            let response =
                response.await.map_err(|never: std::convert::Infallible| never.to_string())?;
            handed_back(&serde_json::to_string(&response).map_err(|error| error.to_string())?)
        })
        .await
    }

    /// Invokes a function with an event, and gives what it answers.
    pub(crate) async fn event(
        &self,
        entry: Entry,
        function: Name,
        event: Value,
    ) -> Result<Value, Failed> {
        match function {
            Name::Worker => {
                let (worker, timeout) = (Arc::clone(&self.worker.handler), self.worker.timeout);
                self.invoke(&self.worker, entry, move || async move {
                    Box::pin(worker::invoke(&worker, event, timeout))
                        .await
                        .map_err(|error| error.to_string())
                })
                .await
            }
            Name::Scheduler => {
                let (scheduler, timeout) =
                    (Arc::clone(&self.scheduler.handler), self.scheduler.timeout);
                self.invoke(&self.scheduler, entry, move || async move {
                    scheduler::handle(&scheduler, event, timeout)
                        .await
                        .map(|()| Value::Null)
                        .map_err(|error| error.to_string())
                })
                .await
            }
            Name::Api => Err(Failed::Error("the api takes no events".to_owned())),
        }
    }

    /// One run of the scheduler.
    pub(crate) async fn tick(&self) -> Result<(), Failed> {
        let entry = self.running.enter(Name::Scheduler, "the tick");
        self.event(entry, Name::Scheduler, self.tick_event()).await.map(drop)
    }

    /// What a rule with a schedule sends.
    /// Source: `EventBridge` user guide, "Creating a rule that runs on a schedule".
    fn tick_event(&self) -> Value {
        serde_json::json!({
            "version": "0",
            "id": uuid(),
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": ACCOUNT,
            "time": self.clock.now(),
            "region": REGION,
            "resources": [format!("arn:aws:events:{REGION}:{ACCOUNT}:rule/{STACK}-SchedulerFunctionTick")],
            "detail": {},
        })
    }

    /// Waits until no invocation runs, and keeps new ones from starting for as
    /// long as what it gives is held. Those that wait are cut short.
    pub(crate) async fn pause(
        &self,
        cut_waits: impl Fn(),
    ) -> tokio::sync::OwnedRwLockWriteGuard<()> {
        let closed = Arc::clone(&self.gate).write_owned();
        tokio::pin!(closed);
        loop {
            cut_waits();
            tokio::select! {
                biased;
                guard = &mut closed => return guard,
                // An invocation may begin its next wait at any time.
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    }

    /// Drops what still runs. It begins anew at the next start.
    pub(crate) async fn kill(&self) {
        self.tasks.kill().await;
    }

    async fn invoke<H, F, T>(
        &self,
        lambda: &Lambda<H>,
        entry: Entry,
        begin: impl FnOnce() -> F + Send + 'static,
    ) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, String>> + Send,
        T: Send + 'static,
    {
        let (slots, gate, timeout) =
            (Arc::clone(&lambda.slots), Arc::clone(&self.gate), lambda.timeout);
        let (sender, receiver) = oneshot::channel();
        self.tasks.spawn(async move {
            let _entry = entry;
            // Never closed: waiting for a slot cannot fail.
            let _slot = slots.acquire_owned().await;
            let _open = gate.read_owned().await;
            let result = match tokio::time::timeout(timeout, begin()).await {
                Ok(result) => result.map_err(Failed::Error),
                Err(_) => Err(Failed::TimedOut(timeout)),
            };
            // Whoever asked may have gone.
            let _ = sender.send(result);
        });
        receiver.await.unwrap_or(Err(Failed::Crashed))
    }

    /// What API Gateway and Lambda tell the handler beside the request.
    pub(crate) fn context(&self, request_id: &str, trace_id: &str) -> Context {
        let mut context = Context::default();
        request_id.clone_into(&mut context.request_id);
        context.xray_trace_id = Some(trace_id.to_owned());
        context.invoked_function_arn =
            format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{STACK}-ApiFunction");
        let deadline = self.clock.timestamp().as_millisecond()
            + i64::try_from(self.api.timeout.as_millis()).unwrap_or(0);
        context.deadline = u64::try_from(deadline).unwrap_or(0);
        context
    }
}

impl<H> Lambda<H> {
    fn new(handler: H, function: &Function) -> Self {
        Self {
            handler,
            timeout: function.timeout,
            // Unreserved: as many as a new account has.
            slots: Arc::new(Semaphore::new(function.concurrency.unwrap_or(1000))),
        }
    }
}

/// What Lambda makes of a response.
fn handed_back(response: &str) -> Result<Value, String> {
    if response.len() > LARGEST_RESPONSE {
        return Err(format!(
            "Response payload size exceeded maximum allowed payload size ({LARGEST_RESPONSE} bytes)."
        ));
    }
    serde_json::from_str(response).map_err(|error| error.to_string())
}

/// An id in the shape that AWS gives its requests and events.
pub(crate) fn uuid() -> String {
    let hex = backups_aws::random::nonce().0;
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_handed_back_up_to_what_lambda_takes() {
        let quoted = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
        assert!(handed_back(&quoted(LARGEST_RESPONSE)).is_ok());
        let refused = handed_back(&quoted(LARGEST_RESPONSE + 1)).expect_err("too long");
        assert!(refused.contains("6291556 bytes"), "{refused}");
    }
}
