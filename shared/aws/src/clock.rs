//! The one clock, and the one way to wait.
//!
//! On AWS it is the system's. The local mode can push it forward and cut waits
//! short; the simulation has one that counts as tokio does, so that it stands
//! still while something is computed. Everything that asks for the time asks
//! here, the SDK's signer too.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_smithy_async::time::TimeSource;
use backups_core::time::Time;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::random;

/// Tells the time and waits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// None: the system's clock.
    counted: Option<Counted>,
    /// Milliseconds that an adjustable clock is ahead of what it counts by.
    ahead: AtomicI64,
    /// Counts the cuts of waits.
    cuts: watch::Sender<u64>,
}

/// A time that tokio's clock counts on from.
#[derive(Debug, Clone, Copy)]
struct Counted {
    from: SystemTime,
    since: Instant,
}

/// Moves an adjustable clock.
#[derive(Debug, Clone)]
pub struct ClockControl(Clock);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::new(None)
    }

    fn new(counted: Option<Counted>) -> Self {
        let (ahead, cuts) = (AtomicI64::new(0), watch::Sender::new(0));
        Self(Arc::new(Inner { counted, ahead, cuts }))
    }

    /// A clock that starts as the system's and can be pushed forward.
    pub fn adjustable() -> (Self, ClockControl) {
        let clock = Self::system();
        (clock.clone(), ClockControl(clock))
    }

    /// A clock that showed `from` at tokio's instant `since` and goes with tokio's
    /// time: on a paused runtime it moves only when all wait.
    pub fn counted(from: jiff::Timestamp, since: Instant) -> (Self, ClockControl) {
        let clock = Self::new(Some(Counted { from: from.into(), since }));
        (clock.clone(), ClockControl(clock))
    }

    /// The time in whole seconds.
    pub fn now(&self) -> Time {
        Time::from_unix(self.timestamp().as_second())
    }

    /// The time to the nanosecond.
    pub fn timestamp(&self) -> jiff::Timestamp {
        jiff::Timestamp::try_from(TimeSource::now(self)).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// Waits for `span`. False: the wait was cut short, and the caller should end
    /// rather than wait again.
    pub async fn sleep(&self, span: Duration) -> bool {
        let mut cuts = self.0.cuts.subscribe();
        tokio::select! {
            biased;
            _ = cuts.changed() => false,
            () = tokio::time::sleep(span) => true,
        }
    }

    /// Before another try of a write that met somebody else's: whoever that was finishes first.
    /// Before the first one, `attempt` 0, there is no pause.
    pub async fn others_first(&self, attempt: u32) {
        if attempt > 0 {
            self.give_way().await;
        }
    }

    /// Lets somebody finish who writes the same.
    pub async fn give_way(&self) {
        self.sleep(random::jitter(Duration::from_millis(200))).await;
    }
}

/// What is kept of an invocation's time to say that it is over.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Does the work of an invocation that Lambda ends after `remaining`. None: it was
/// stopped just before that, so that somebody hears of it.
///
/// The work comes boxed and without its type: the SDK's futures are deep, callers'
/// own go on top of them, and the compiler looks through no more than 128.
pub async fn in_time<T>(remaining: Duration, work: BoxFuture<'_, T>) -> Option<T> {
    tokio::time::timeout(remaining.saturating_sub(LAST_WORD), work).await.ok()
}

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that reads the system's clock"
        )]
        let time = match self.0.counted {
            None => SystemTime::now(),
            Some(Counted { from, since }) => from + since.elapsed(),
        };
        let ahead = self.0.ahead.load(Ordering::Relaxed);
        let by = Duration::from_millis(ahead.unsigned_abs());
        if ahead < 0 { time - by } else { time + by }
    }
}

impl ClockControl {
    /// Pushes the clock forward.
    pub fn advance(&self, span: Duration) {
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        self.0.0.ahead.fetch_add(millis, Ordering::Relaxed);
    }

    /// How far the clock is ahead of the system's.
    pub fn offset(&self) -> Duration {
        Duration::from_millis(self.0.0.ahead.load(Ordering::Relaxed).unsigned_abs())
    }

    /// Sets how far the clock is ahead of the system's.
    pub fn set_offset(&self, offset: Duration) {
        let millis = i64::try_from(offset.as_millis()).unwrap_or(i64::MAX);
        self.0.0.ahead.store(millis, Ordering::Relaxed);
    }

    /// Sets how far the clock is ahead, in milliseconds, or behind if negative:
    /// no two machines have quite the same time.
    pub fn set_skew(&self, millis: i64) {
        self.0.0.ahead.store(millis, Ordering::Relaxed);
    }

    /// Ends every wait that is under way.
    pub fn cut_waits(&self) {
        self.0.0.cuts.send_modify(|cuts| *cuts += 1);
    }
}
