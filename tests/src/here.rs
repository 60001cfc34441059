//! A local cloud in this process, in a folder of its own.

use std::net::{Ipv4Addr, SocketAddr};

use local::{Options, Running};
use tempfile::TempDir;

use crate::{Cloud, Failed, Result, fail};

/// What differs from test to test.
#[derive(Debug, Clone)]
pub struct Setup {
    /// How many times as fast as AWS.
    pub speed: f64,
    /// Every choice of the simulated AWS.
    pub seed: u64,
    /// Seconds between ticks.
    pub tick: u64,
    /// How many deployments the demo's tenant has.
    pub deployments: u32,
    /// Stack parameters.
    pub parameters: Vec<(String, String)>,
}

impl Default for Setup {
    /// Snapshots take AWS's own time, but the clock is pushed; no tick runs but
    /// those that a test asks for.
    fn default() -> Self {
        Self { speed: 100.0, seed: 1, tick: 86_400, deployments: 1, parameters: Vec::new() }
    }
}

/// A running local cloud that ends with this.
#[derive(Debug)]
pub struct Here {
    /// How to call it.
    pub cloud: Cloud,
    running: Running,
    _folder: TempDir,
}

impl std::ops::Deref for Here {
    type Target = Cloud;
    fn deref(&self) -> &Cloud {
        &self.cloud
    }
}

impl Here {
    /// Starts one.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(setup: Setup) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options = Options {
            data: folder.path().to_owned(),
            gateway: any,
            aws: any,
            speed: setup.speed,
            seed: Some(setup.seed),
            start: None,
            tick: setup.tick,
            parameters: setup.parameters,
            deployments: setup.deployments,
            no_demo: false,
            log: tracing::Level::INFO,
            json: false,
        };
        if std::env::var_os("TESTS_LOG").is_some() {
            // The first of the process sets it up; the others meet that.
            let _ = local::log::init(tracing::Level::DEBUG, false);
        }
        let running = local::start(options).await.map_err(Failed::from)?;
        let Some(demo) = running.demo.clone() else { return fail("local made no demo") };
        Ok(Self { cloud: Cloud::of(demo)?, running, _folder: folder })
    }

    /// Ends it, tasks and all.
    pub async fn stop(self) {
        self.running.stop().await;
    }
}
