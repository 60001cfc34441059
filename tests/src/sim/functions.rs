//! The functions as Lambda runs them: instances that are made, kept warm and
//! die, one invocation each at a time, with the time-outs of template.yaml.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::Api;
use axum::Router;
use axum::body::Body;
use backups_aws::clock::{Clock, ClockControl};
use backups_aws::sdk::{self, SdkConfig};
use backups_aws::settings::Settings;
use backups_aws::table::Table;
use http::Request;
use http_body_util::BodyExt as _;
use local::{Name, REGION};
use scheduler::Scheduler;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use worker::Worker;

use super::life::Life;
use super::oracle::Violation;
use super::reply::Reply;
use super::wire;
use super::world::Shared;
use crate::{Failed, Result};

/// The functions of the stack.
#[derive(Debug)]
pub(crate) struct Functions {
    world: Shared,
    idle: Mutex<Idle>,
}

/// Instances that wait for their next invocation.
#[derive(Debug, Default)]
struct Idle {
    made: u32,
    api: Vec<Instance<Router>>,
    worker: Vec<Instance<Arc<Worker>>>,
    scheduler: Vec<Instance<Arc<Scheduler>>>,
}

#[derive(Debug)]
struct Instance<H> {
    handler: H,
    life: Arc<Life>,
    clock: ClockControl,
}

/// What a new instance is made of.
struct Environment {
    settings: Settings,
    sdk: SdkConfig,
    life: Arc<Life>,
    clock: Clock,
    control: ClockControl,
}

/// How an invocation ended.
#[derive(Debug)]
enum End<T> {
    Done(T),
    Crashed,
    TimedOut,
}

impl Functions {
    pub(crate) fn new(world: Shared) -> Self {
        Self { world, idle: Mutex::default() }
    }

    /// The table as an operator's command has it, whose calls meet no fault.
    pub(crate) fn operator(&self) -> Result<Table> {
        let Environment { settings, sdk, .. } = self.environment(Name::Api)?;
        Ok(Table::new(&settings, &sdk))
    }

    /// One request through the gateway. None: nobody answered.
    pub(crate) async fn http(&self, request: Request<Body>) -> Result<(Option<Reply>, bool)> {
        let instance = self.instance(
            Name::Api,
            |idle| &mut idle.api,
            |settings, sdk, clock| api::service(Arc::new(Api::new(settings, sdk, clock))),
        )?;
        let router = instance.handler.clone();
        let work = Box::pin(async move {
            let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes);
            Reply::new(&parts, &body.unwrap_or_default())
        });
        let end = self.run(&instance.life, &instance.clock, work).await?;
        let disturbed = instance.life.take_disturbed();
        match end {
            End::Done(reply) => {
                self.idle().api.push(instance);
                Ok((Some(reply), disturbed))
            }
            End::Crashed | End::TimedOut => Ok((None, true)),
        }
    }

    /// One invocation of the worker, and what it answers.
    pub(crate) async fn worker(&self, event: Value) -> Result<Result<Value, String>> {
        let instance = self.instance(
            Name::Worker,
            |idle| &mut idle.worker,
            |settings, sdk, clock| Arc::new(Worker::new(&settings, sdk, clock)),
        )?;
        let handler = Arc::clone(&instance.handler);
        let work = async move { worker::invoke(&handler, event, worker::TIMEOUT).await };
        match self.run(&instance.life, &instance.clock, work).await? {
            End::Done(result) => {
                if matches!(result, Err(worker::Error::OutOfTime)) {
                    self.ran_out_of_time(&instance.life);
                }
                self.idle().worker.push(instance);
                Ok(result.map_err(|error| error.to_string()))
            }
            End::Crashed => Ok(Err("the invocation crashed".to_owned())),
            End::TimedOut => Ok(Err("Task timed out".to_owned())),
        }
    }

    /// One tick.
    pub(crate) async fn tick(&self) -> Result<()> {
        let instance = self.instance(
            Name::Scheduler,
            |idle| &mut idle.scheduler,
            |settings, sdk, clock| Arc::new(Scheduler::new(&settings, sdk, clock)),
        )?;
        let handler = Arc::clone(&instance.handler);
        let tick = async move { scheduler::handle(&handler, json!({}), scheduler::TIMEOUT).await };
        let work = Box::pin(tick);
        if let End::Done(done) = self.run(&instance.life, &instance.clock, work).await? {
            // A tick that fails is told by its metric; the next one comes.
            if matches!(done, Err(scheduler::Error::OutOfTime)) {
                self.ran_out_of_time(&instance.life);
            }
            self.idle().scheduler.push(instance);
        }
        Ok(())
    }

    /// An instance that is warm, if Lambda has kept one, or a new one.
    fn instance<H>(
        &self,
        function: Name,
        pool: impl FnOnce(&mut Idle) -> &mut Vec<Instance<H>>,
        make: impl FnOnce(Settings, &SdkConfig, Clock) -> H,
    ) -> Result<Instance<H>> {
        let kept = pool(&mut self.idle()).pop();
        if let Some(instance) = kept.filter(|_| self.kept_warm()) {
            return Ok(instance);
        }
        let Environment { settings, sdk, life, clock, control } = self.environment(function)?;
        Ok(Instance { handler: make(settings, &sdk, clock), life, clock: control })
    }

    fn environment(&self, function: Name) -> Result<Environment> {
        let id = {
            let mut idle = self.idle();
            idle.made += 1;
            idle.made
        };
        let life = Arc::new(Life::new(id, function));
        let (epoch, start, template) = {
            let world = self.world.lock();
            (world.epoch(), world.start(), Arc::clone(&world.template))
        };
        let environment = &template.function(function).map_err(Failed)?.environment;
        let settings = Settings::from_lookup(&|name| environment.get(name).cloned())?;
        let (clock, control) = Clock::counted(epoch, start);
        let http = wire::client(self.world.clone(), Arc::clone(&life));
        let sdk = sdk::simulated(&clock, http, REGION);
        Ok(Environment { settings, sdk, life, clock, control })
    }

    /// Whether Lambda has kept the instance; it throws some away.
    fn kept_warm(&self) -> bool {
        self.world.lock().dice.rng().u8(0..32) > 0
    }

    async fn run<T>(
        &self,
        life: &Arc<Life>,
        clock: &ClockControl,
        work: impl Future<Output = T>,
    ) -> Result<End<T>> {
        let timeout = {
            let mut world = self.world.lock();
            let world = &mut *world;
            world.running += 1;
            world.reach.hit(match life.function {
                Name::Api => "invoked api",
                Name::Worker => "invoked worker",
                Name::Scheduler => "invoked scheduler",
            });
            if life.function == Name::Worker {
                world.workers += 1;
                if world.workers > 1 {
                    world.reach.hit("invoked side by side");
                }
            }
            let now = world.now();
            if let Some(ledger) = &mut world.herd {
                ledger.invoked(now, world.workers);
            }
            let most = world.profile.skew;
            let skew = if most > 0 && world.dice.happens(3_000) {
                world.reach.hit("fault clock_skew");
                world.dice.rng().i64(-most..=most)
            } else {
                0
            };
            clock.set_skew(skew);
            world.oracle.began(life, now);
            world.trace.line(now, || format!("{life} invoked, {skew} ms off"));
            world.template.function(life.function).map_err(Failed)?.timeout
        };
        let end = tokio::select! {
            biased;
            () = life.died() => End::Crashed,
            done = tokio::time::timeout(timeout, work) => match done {
                Ok(_) if life.is_doomed() => End::Crashed,
                Ok(done) => End::Done(done),
                Err(_) => End::TimedOut,
            },
        };
        if !matches!(end, End::Done(_)) {
            life.kill();
        }
        let mut world = self.world.lock();
        let world = &mut *world;
        world.running -= 1;
        world.workers -= u32::from(life.function == Name::Worker);
        let now = world.now();
        let verdict = world.oracle.ended(now, life, matches!(end, End::Done(_)));
        world.judge(verdict);
        let how = match end {
            End::Done(_) => "done",
            End::Crashed => "crashed",
            End::TimedOut => {
                let what = format!("{life} was ended by its time-out");
                world.judge(Err(Violation::new("overrun", what)));
                "timed out"
            }
        };
        world.trace.line(now, || format!("{life} {how}"));
        world.wake.notify_one();
        Ok(end)
    }

    /// An invocation has ended itself, for want of time.
    fn ran_out_of_time(&self, life: &Life) {
        let mut world = self.world.lock();
        let now = world.now();
        world.trace.line(now, || format!("{life} ran out of time"));
        let verdict = world.oracle.out_of_time(life);
        world.judge(verdict);
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
