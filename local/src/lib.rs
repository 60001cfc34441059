//! The whole service on one machine, in one process.
//!
//! ```text
//!  curl, console ──▶ gateway ──▶ api ──┐
//!                                      ├─▶ SDK ─▶ AWS port ─▶ DynamoDB (dynoxide, a file)
//!        tick ──▶ scheduler ───────────┤   (HTTP)    │
//!  events ──▶ worker ──────────────────┘             └─▶ simulated EC2, EBS, EventBridge
//!    ▲                                                        │ (`cloud`, rows in SQLite)
//!    └──────────────────── driver ◀───────────────────────────┘
//! ```
//!
//! The functions are the ones that deploy; between them and the simulated AWS is
//! real HTTP, and between the gateway and them API Gateway's real JSON. Routes,
//! event rules, time-outs, environment and the table come from template.yaml.
//!
//! Never: anything that AWS does not have. What only a test or a person needs
//! stands under `/_local` on the AWS port.

mod args;
mod aws_port;
mod control;
mod demo;
mod driver;
mod dynamo;
mod functions;
mod gateway;
pub mod log;
mod payload;
mod route;
mod running;
mod serve;
mod stack;
mod store;
mod tasks;
mod template;
mod world;
mod yaml;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use args::Options;
pub use demo::{Demo, Keys, Node};
// What the simulation runs on as well.
pub use dynamo::{Answer, Dynamo};
pub use stack::{ACCOUNT, REGION, ZONES};
pub use template::{Function, Name, Template};

use aws_port::AwsPort;
use demo::Urls;
use driver::App;
use functions::Functions;
use gateway::Gateway;
use store::{Folder, FolderError};
use tasks::Tasks;
use world::{Origin, World};

/// How long running invocations may take to end at a stop, their waits cut
/// short. What still runs is dropped, as by a crash.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How long the demo's deployments may take to be registered before `ready`.
const REGISTRATION: Duration = Duration::from_secs(20);

/// How much longer for each of them.
const EACH: Duration = Duration::from_millis(50);

/// A running local cloud.
#[derive(Debug)]
pub struct Running {
    /// Where the gateway listens.
    pub gateway: SocketAddr,
    /// Where the AWS port listens.
    pub aws: SocketAddr,
    /// The demo, unless there is to be none.
    pub demo: Option<Demo>,
    /// The seed of the simulated AWS.
    pub seed: u64,
    demo_file: PathBuf,
    app: Arc<App>,
    front: watch::Sender<bool>,
    back: watch::Sender<bool>,
    front_tasks: Vec<JoinHandle<()>>,
    back_task: JoinHandle<()>,
    /// Held until everything else is gone.
    _folder: Folder,
}

/// Why it does not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartError {
    /// Another process holds the data folder.
    FolderHeld(PathBuf),
    /// An address is taken.
    AddressInUse {
        /// Which.
        address: SocketAddr,
        /// What to change.
        flag: &'static str,
    },
    /// Anything else, in words.
    Other(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FolderHeld(path) => write!(
                f,
                "the data folder {} is in use by another process: stop that one, or choose another folder with --data DIR",
                path.display()
            ),
            Self::AddressInUse { address, flag } => {
                write!(f, "the address {address} is in use: choose another with {flag} ADDR")
            }
            Self::Other(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for StartError {}

impl From<String> for StartError {
    fn from(why: String) -> Self {
        Self::Other(why)
    }
}

/// Starts everything, and returns when both addresses accept calls and the
/// demo's deployments are registered.
///
/// # Errors
/// What stands in the way, and which flag helps.
pub async fn start(options: Options) -> Result<Running, StartError> {
    let template = Template::load(&options.parameters)?;
    let folder = Folder::take(&options.data).map_err(|error| match error {
        FolderError::Held => StartError::FolderHeld(options.data.clone()),
        FolderError::Io(error) => StartError::Other(format!("{}: {error}", options.data.display())),
    })?;
    let gateway_listener = bind(options.gateway, "--gateway").await?;
    let aws_listener = bind(options.aws, "--aws").await?;
    let gateway = local_address(&gateway_listener)?;
    let aws = local_address(&aws_listener)?;
    let urls = Urls { supervisor: url(gateway), aws: url(aws) };

    let dynamo = Dynamo::open(&folder.file("dynamodb.sqlite"))?;
    dynamo.create_table(&template.create_table, template.time_to_live.as_ref())?;
    let origin = Origin { seed: options.seed, start: options.start };
    let config = config(&template, options.speed);
    let world = Arc::new(World::open(&folder.file("aws.sqlite"), config, &origin)?);
    let functions = Arc::new(Functions::start(&template, &world.clock, &urls.aws).await?);
    let routes = template.routes.clone();
    let app = Arc::new(App {
        world: Arc::clone(&world),
        functions: Arc::clone(&functions),
        dynamo,
        template,
        deliveries: Tasks::default(),
    });

    let (front, back) = (watch::Sender::new(false), watch::Sender::new(false));
    let port =
        Arc::new(AwsPort { app: Arc::clone(&app), control: control::router(Arc::clone(&app)) });
    let back_task =
        tokio::spawn(serve::serve(aws_listener, back.subscribe(), move |request, peer| {
            let port = Arc::clone(&port);
            async move { port.handle(request, peer).await }
        }));
    let door = Gateway { routes, functions, clock: world.clock.clone(), port: gateway.port() };
    let door = Arc::new(door);
    let front_tasks = vec![
        tokio::spawn(serve::serve(gateway_listener, front.subscribe(), move |request, peer| {
            let door = Arc::clone(&door);
            async move { door.handle(request, peer).await }
        })),
        tokio::spawn(driver::tick(
            Arc::clone(&app),
            Duration::from_secs(options.tick),
            front.subscribe(),
        )),
    ];
    let mut running = Running {
        gateway,
        aws,
        demo: None,
        seed: world.seed,
        demo_file: folder.file("demo.json"),
        app,
        front,
        back,
        front_tasks,
        back_task,
        _folder: folder,
    };
    if let Err(error) = running.open(&options, &urls).await {
        running.stop().await;
        return Err(error.into());
    }
    Ok(running)
}

impl Running {
    /// The demo, and the first events to be delivered.
    async fn open(&mut self, options: &Options, urls: &Urls) -> Result<(), String> {
        let app = &self.app;
        let fresh = !options.no_demo && !demo::is_done(&app.world)?;
        if !options.no_demo {
            let demo = demo::plant(&app.world, &app.template, urls, options.deployments)?;
            if fresh {
                let table = demo::table(&app.template, &app.world, &urls.aws).await?;
                demo::put_keys(&demo, &app.world, &table).await?;
            }
            demo::write(&demo, &self.demo_file)?;
            self.demo = Some(demo);
        }
        app.dispatch().map_err(|lost| lost.to_string())?;
        self.front_tasks.push(tokio::spawn(driver::drive(Arc::clone(app), self.front.subscribe())));
        if fresh {
            // The lines to paste are to work at once.
            let registered = app.functions.running.drained();
            let patience = REGISTRATION + EACH * options.deployments;
            if tokio::time::timeout(patience, registered).await.is_ok() {
                demo::done(&app.world)?;
            } else {
                tracing::warn!("the demo's deployments are still being registered");
            }
        }
        Ok(())
    }

    /// What to print when it is ready.
    pub fn ready(&self) -> String {
        let mut text = format!(
            "ready: gateway {}, AWS {} (seed {})\n",
            url(self.gateway),
            url(self.aws),
            self.seed
        );
        if let Some(demo) = &self.demo {
            text.push_str(&demo::lines(demo, &self.demo_file));
        }
        text
    }

    /// Resolves with the reason when it cannot go on.
    pub async fn failed(&self) -> String {
        self.app.world.failed().await
    }

    /// Ends everything within a few seconds. What is cut off goes on at the next
    /// start, as after a crash.
    pub async fn stop(self) {
        self.front.send_replace(true);
        for task in self.front_tasks {
            let _ = task.await;
        }
        let functions = &self.app.functions;
        // The AWS port answers until the functions are gone.
        let _ =
            tokio::time::timeout(PATIENCE, functions.pause(|| self.app.world.cut_waits())).await;
        self.app.deliveries.kill().await;
        functions.kill().await;
        self.back.send_replace(true);
        let _ = self.back_task.await;
    }
}

/// The simulated AWS as this stack needs it.
pub fn config(template: &Template, speed: f64) -> cloud::Config {
    cloud::Config {
        account: ACCOUNT.to_owned(),
        region: REGION.to_owned(),
        zones: ZONES.map(str::to_owned).to_vec(),
        speed,
        stack_bus: template.bus.clone(),
        rules: template.rules.clone(),
        pace: cloud::Pace::default(),
    }
}

async fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => StartError::AddressInUse { address, flag },
        _ => StartError::Other(format!("{flag} {address}: {error}")),
    })
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|error| StartError::Other(error.to_string()))
}

/// How to reach an address from this machine.
fn url(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
}
