//! The simulated AWS behind one lock: every use of it ends with its changes on
//! disk, before anybody learns of them.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backups_aws::clock::{Clock, ClockControl};
use backups_core::time::Time;
use cloud::{Cloud, Config};
use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use crate::store::Store;

/// Key of the seed that the world was made from.
const SEED: &str = "seed";
/// Key of how many milliseconds the clock is ahead.
const OFFSET: &str = "clock_offset_ms";

/// Where the clock ends. Beyond the year 9999 no date has the form that HTTP,
/// DynamoDB, and our rows give it.
pub(crate) const LAST: Time = Time::from_unix(250_000_000_000);

/// What a new world is made from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    /// All its choices come from it; None: a random one.
    pub(crate) seed: Option<u64>,
    /// When its clock starts; None: with the machine's.
    pub(crate) start: Option<Timestamp>,
}

/// The simulated AWS, its clock, and its place on disk.
#[derive(Debug)]
pub(crate) struct World {
    inner: Mutex<Inner>,
    /// The one clock of everything.
    pub(crate) clock: Clock,
    control: ClockControl,
    /// Something was done from outside: the driver has to look.
    pub(crate) touched: Notify,
    /// Why the process must end, once it must.
    fatal: watch::Sender<Option<String>>,
    /// The seed that all choices come from.
    pub(crate) seed: u64,
}

#[derive(Debug)]
struct Inner {
    cloud: Cloud,
    store: Store,
}

/// The state cannot be written: nothing may be answered any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost;

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the simulated AWS cannot write its state")
    }
}

impl World {
    /// Opens the world in `file`, or makes one there from `origin`. An existing world keeps
    /// its own seed and its clock.
    pub(crate) fn open(file: &Path, config: Config, origin: &Origin) -> Result<Self, String> {
        let Origin { seed, start } = *origin;
        let fail = |error: rusqlite::Error| format!("{}: {error}", file.display());
        let mut store = Store::open(file).map_err(fail)?;
        let (clock, control) = Clock::adjustable();
        if let Some(ahead) = store.own(OFFSET).map_err(fail)?.and_then(|ms| ms.parse().ok()) {
            control.set_offset(Duration::from_millis(ahead));
        }
        let stored = store.own(SEED).map_err(fail)?.and_then(|seed| seed.parse::<u64>().ok());
        let (cloud, seed) = if let Some(kept) = stored {
            if let Some(given) = seed.filter(|given| *given != kept) {
                tracing::warn!(
                    seed = kept,
                    ignored = given,
                    "the world in this data folder keeps its seed"
                );
            }
            if let Some(ignored) = start {
                tracing::warn!(%ignored, "the clock of this data folder goes on");
            }
            let rows = store.rows().map_err(fail)?;
            let cloud =
                Cloud::restore(config, rows).map_err(|why| format!("{}: {why}", file.display()))?;
            (cloud, kept)
        } else {
            let seed = seed.unwrap_or_else(fresh_seed);
            config.check()?;
            if let Some(start) = start {
                control.set_offset(ahead(start, clock.timestamp())?);
            }
            let mut cloud = Cloud::new(config, seed, clock.timestamp());
            let rows = cloud.take_dirty();
            let ahead = control.offset().as_millis().to_string();
            store.commit(&rows, &[(SEED, &seed.to_string()), (OFFSET, &ahead)]).map_err(fail)?;
            (cloud, seed)
        };
        Ok(Self {
            inner: Mutex::new(Inner { cloud, store }),
            clock,
            control,
            touched: Notify::new(),
            fatal: watch::Sender::new(None),
            seed,
        })
    }

    /// Uses the simulated AWS, and commits what that changed.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Cloud, Timestamp) -> T) -> Result<T, Lost> {
        let done = self.quietly(act, &[]);
        self.touched.notify_one();
        done
    }

    /// As [`World::with`], with values of our own in the same transaction.
    pub(crate) fn with_own<T>(
        &self,
        act: impl FnOnce(&mut Cloud, Timestamp) -> (T, Vec<(&'static str, String)>),
    ) -> Result<T, Lost> {
        let mut inner = self.lock();
        let (done, own) = act(&mut inner.cloud, self.clock.timestamp());
        let own: Vec<_> = own.iter().map(|(key, value)| (*key, value.as_str())).collect();
        self.commit(&mut inner, &own)?;
        self.touched.notify_one();
        Ok(done)
    }

    /// As [`World::with`], without waking the driver: for the driver itself.
    pub(crate) fn quietly<T>(
        &self,
        act: impl FnOnce(&mut Cloud, Timestamp) -> T,
        own: &[(&str, &str)],
    ) -> Result<T, Lost> {
        let mut inner = self.lock();
        let done = act(&mut inner.cloud, self.clock.timestamp());
        self.commit(&mut inner, own)?;
        Ok(done)
    }

    /// A value of our own.
    pub(crate) fn own(&self, key: &str) -> Result<Option<String>, String> {
        self.lock().store.own(key).map_err(|error| error.to_string())
    }

    /// Pushes the clock forward and does all simulated work that falls due.
    /// The new offset is on disk before anybody sees the new time.
    pub(crate) fn advance_clock(&self, span: Duration) -> Result<Timestamp, Lost> {
        let ahead = self.control.offset() + span;
        self.quietly(|_, _| (), &[(OFFSET, &ahead.as_millis().to_string())])?;
        self.control.set_offset(ahead);
        self.with(|cloud, now| {
            cloud.advance(now);
            now
        })
    }

    /// Ends every wait of a running invocation.
    pub(crate) fn cut_waits(&self) {
        self.control.cut_waits();
    }

    /// Resolves with the reason when the process must end.
    pub(crate) async fn failed(&self) -> String {
        let mut fatal = self.fatal.subscribe();
        match fatal.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    fn commit(&self, inner: &mut Inner, own: &[(&str, &str)]) -> Result<(), Lost> {
        let changes = inner.cloud.take_dirty();
        inner.store.commit(&changes, own).map_err(|error| {
            // Memory is ahead of the disk from here on: only a restart mends that.
            tracing::error!(%error, "the simulated AWS cannot write its state");
            self.fatal.send_replace(Some(format!(
                "cannot write the state of the simulated AWS: {error}"
            )));
            Lost
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a clock that starts so is ahead of the machine's. Never behind it: the table's
/// TTL goes by that one, and would take rows away before their time.
fn ahead(start: Timestamp, now: Timestamp) -> Result<Duration, String> {
    if start.as_second() > LAST.unix() {
        return Err(format!("--start {start}: the clock ends at {LAST}"));
    }
    Duration::try_from(start.duration_since(now))
        .map_err(|_| format!("--start {start}: that is over; the clock goes forward from now"))
}

/// A seed that nobody chose. Small enough to be typed.
#[expect(clippy::disallowed_methods, reason = "the one random choice; all others come from it")]
fn fresh_seed() -> u64 {
    fastrand::u64(1..1_000_000_000)
}
