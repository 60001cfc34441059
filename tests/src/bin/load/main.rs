//! `cargo run --release -p tests --bin load`: so many requests a second for a minute, and every
//! answer judged.
//!
//! Requests are sent when they are due, whether the ones before are answered or not, and their
//! time counts from then. Beside them go requests to a handler that does nothing, and to the
//! api's own 404, which passes the gateway and the Lambda adapter and asks for nothing: times are
//! told as ratios to these, because the machine is whatever it is.

mod model;
mod seen;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backups_aws::table::keys::Secret;
use clap::Parser;
use serde_json::json;
use tests::http::{Call, Reply};
use tests::openapi::Document;
use tests::{Cloud, Failed, Here, Result, Setup, drawn, fail};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::model::{Before, Model};
use crate::seen::Seen;

#[derive(Parser)]
#[command(about = "Requests to the local cloud at a fixed rate, every answer judged")]
struct Options {
    /// Requests a second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// For how many seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Keys that the requests come from, in turn
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
    /// Deployments that they are about
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    deployments: u32,
    /// What is asked for next comes from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// How often each kind of request comes, of a hundred.
const MIX: [(Kind, u32); 9] = [
    (Kind::Create, 28),
    (Kind::List, 35),
    (Kind::Show, 20),
    (Kind::Patch, 5),
    (Kind::Delete, 3),
    (Kind::Restores, 3),
    (Kind::Schedule, 3),
    (Kind::Foreign, 2),
    (Kind::Stranger, 1),
];

/// One in so many requests is followed by one to each of those that times are compared with.
const COMPARED: u32 = 5;

/// After a create its deployment gets no other one for so long: most backups have completed
/// by then.
const BUSY: Duration = Duration::from_secs(7);

/// The last request leaves so late at most: else the rate was not kept.
const LATE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Create,
    List,
    Show,
    Patch,
    Delete,
    Restores,
    Schedule,
    /// Of another tenant.
    Foreign,
    /// With a key that is none.
    Stranger,
    /// A handler that does nothing.
    Empty,
    /// The api's own 404.
    NoRoute,
}

struct Load {
    here: Here,
    gateway: SocketAddr,
    empty: SocketAddr,
    keys: Vec<String>,
    deployments: Vec<u64>,
    models: Vec<Mutex<Model>>,
    seen: Mutex<Seen>,
}

/// A thread that panicked has failed the run already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(why)) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    let parameters = [("ProBackupLimit", "100"), ("WorkerConcurrency", "200")];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    // Workers that wait for EC2 hold their place: 20 places are room for some 30 backups a
    // second, and it is not the workers that are measured.
    let here = Here::start(Setup {
        speed: 300.0,
        tick: 5,
        deployments: options.deployments,
        parameters,
        ..Setup::default()
    })
    .await?;
    let keys = keys(&here, options.keys).await?;
    let deployments: Vec<u64> = std::iter::once(&here.demo.deployment_id)
        .chain(&here.demo.more_deployment_ids)
        .copied()
        .collect();
    let gateway = address(&here.demo.supervisor_url)?;
    let load = Arc::new(Load {
        gateway,
        empty: nothing().await?,
        keys,
        models: deployments.iter().map(|_| Mutex::default()).collect(),
        deployments,
        seen: Mutex::default(),
        here,
    });
    let took = drive(&load, options).await?;
    load.verify().await?;
    let seen = std::mem::take(&mut *lock(&load.seen));
    if let Some(load) = Arc::into_inner(load) {
        load.here.stop().await;
    }
    seen.show(took);
    seen.demand()?;
    let planned = Duration::from_secs(options.seconds.into());
    if took > planned + LATE {
        return fail(format!("what was to leave within {planned:?} left within {took:?}"));
    }
    Ok(())
}

fn address(url: &str) -> Result<SocketAddr> {
    url.trim_start_matches("http://").parse().map_err(|_| Failed(format!("no address: {url}")))
}

/// A server that answers 204 and does nothing else.
async fn nothing() -> Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = axum::Router::new().fallback(async || http::StatusCode::NO_CONTENT);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

/// Keys of the demo's tenant, by the control plane's event.
async fn keys(here: &Here, count: u32) -> Result<Vec<String>> {
    let mut secrets = Vec::new();
    for number in 0..count {
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let secret = Secret::from_bytes(bytes);
        here.change_key(&format!("load-{number}"), &secret, 1, &json!({})).await?;
        secrets.push(secret.expose().to_owned());
    }
    Ok(secrets)
}

/// Sends what is due when it is due. Gives how long it took until the last had left.
async fn drive(load: &Arc<Load>, options: &Options) -> Result<Duration> {
    let mut dice = fastrand::Rng::with_seed(options.seed);
    let mut free: VecDeque<(Instant, usize)> = VecDeque::new();
    let began = Instant::now();
    free.extend((0..load.deployments.len()).map(|index| (began, index)));
    let every = Duration::from_secs(1) / options.rate;
    let mut tasks = JoinSet::new();
    for number in 0..options.rate * options.seconds {
        let due = began + every * number;
        sleep_until(due).await;
        let key = usize::try_from(number % options.keys).unwrap_or_default();
        let mut kind = drawn(&mut dice, &MIX);
        let mut index = dice.usize(..load.deployments.len());
        if kind == Kind::Create {
            // The one that has rested longest; if it has not rested enough, a list instead.
            match free.front() {
                Some((at, first)) if *at <= due => {
                    index = *first;
                    free.pop_front();
                    free.push_back((due + BUSY, index));
                }
                _ => kind = Kind::List,
            }
        }
        tasks.spawn(Arc::clone(load).ask(kind, index, key, due));
        if number % COMPARED == 0 {
            tasks.spawn(Arc::clone(load).ask(Kind::Empty, index, key, due));
            tasks.spawn(Arc::clone(load).ask(Kind::NoRoute, index, key, due));
        }
        while let Some(ended) = tasks.try_join_next() {
            ended?;
        }
    }
    let took = began.elapsed();
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(took)
}

impl Load {
    /// Asks, and judges the answer.
    async fn ask(self: Arc<Self>, kind: Kind, index: usize, key: usize, due: Instant) {
        let (kind, call, before) = self.call(kind, index, &self.keys[key]);
        let to = if kind == Kind::Empty { self.empty } else { self.gateway };
        let reply = call.send(to).await;
        let took = due.elapsed().as_secs_f64() * 1000.0;
        let judged = match &reply {
            Ok(reply) => self.judge(kind, index, &before, reply),
            Err(Failed(why)) => Err(Failed(why.clone())),
        };
        let mut seen = lock(&self.seen);
        seen.times.entry(kind).or_default().push(took);
        let status = reply.map(|reply| reply.status).unwrap_or_default();
        *seen.statuses.entry((kind, status)).or_default() += 1;
        if let Err(Failed(why)) = judged {
            seen.wrong.push(why);
        }
    }

    /// The request, and what must be true of its answer. Where there is nothing to show, to
    /// change or to delete yet, a list.
    fn call(&self, kind: Kind, index: usize, key: &str) -> (Kind, Call, Before) {
        let deployment = self.deployments[index];
        let path = Cloud::backups_of(deployment);
        let mut model = lock(&self.models[index]);
        let newest = model.live.keys().next_back().copied();
        // A newer one was taken on: it is over.
        let oldest = model.live.keys().next().copied().filter(|id| *id < model.last);
        let mut before = Before {
            id: 0,
            name: String::new(),
            live: BTreeMap::new(),
            rested: model.rested,
            rests: model.rested == model.last && !model.creating,
        };
        let (kind, call) = match (kind, newest, oldest) {
            (Kind::Create, ..) if !model.creating => {
                model.creating = true;
                before.name = format!("load {}", model.last + 1);
                let body = json!({"name": before.name}).to_string();
                (kind, Call::new("POST", path.as_str()).key(key).json(body))
            }
            (Kind::Show, Some(id), _) => {
                before.id = id;
                before.live = model.live.clone();
                (kind, Call::new("GET", format!("{path}/{id}")).key(key))
            }
            (Kind::Patch, Some(id), _) => {
                before.id = id;
                let names = model.live.entry(id).or_default();
                before.name = format!("patched {id} {}", names.ever.len());
                names.asked(&before.name);
                let body = json!({"name": before.name}).to_string();
                (kind, Call::new("PATCH", format!("{path}/{id}")).key(key).json(body))
            }
            (Kind::Delete, _, Some(id)) => {
                model.live.remove(&id);
                model.leaving.insert(id);
                (kind, Call::new("DELETE", format!("{path}/{id}")).key(key))
            }
            (Kind::Restores, ..) => {
                (kind, Call::new("GET", format!("/deployments/{deployment}/restores")).key(key))
            }
            (Kind::Schedule, ..) => (kind, Call::new("GET", format!("{path}/schedule")).key(key)),
            (Kind::Foreign, ..) => {
                let other = Cloud::backups_of(self.here.demo.other_deployment_id);
                (kind, Call::new("GET", other).key(key))
            }
            (Kind::Stranger, ..) => {
                let nobodys = format!("ld_{}", "B".repeat(43));
                (kind, Call::new("GET", path.as_str()).key(&nobodys))
            }
            (Kind::Empty, ..) => (kind, Call::new("GET", "/")),
            (Kind::NoRoute, ..) => (kind, Call::new("GET", "/nothing").key(key)),
            _ => {
                before.live = model.live.clone();
                (Kind::List, Call::new("GET", path.as_str()).key(key))
            }
        };
        (kind, call, before)
    }

    /// # Errors
    /// The answer is wrong, or not as the document says.
    fn judge(&self, kind: Kind, index: usize, before: &Before, reply: &Reply) -> Result<()> {
        lock(&self.models[index]).judge(kind, before, reply)?;
        if kind == Kind::Empty { Ok(()) } else { Document::shared()?.check(reply) }
    }

    /// Holds what is there in the end against what was answered.
    async fn verify(&self) -> Result<()> {
        self.here.settle(120).await?;
        for (deployment, model) in self.deployments.iter().zip(&self.models) {
            let listed = self.here.list_of(*deployment).await?;
            let held = lock(model).holds(&listed);
            held.map_err(|Failed(why)| Failed(format!("deployment {deployment}: {why}")))?;
        }
        Ok(())
    }
}
