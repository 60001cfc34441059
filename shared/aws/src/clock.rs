//! The one clock, and the one way to wait.
//!
//! On AWS it is the system's. The local mode can push it forward and cut waits
//! short; everything that asks for the time asks here, the SDK's signer too.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_smithy_async::time::TimeSource;
use backups_core::time::Time;
use tokio::sync::watch;

/// Tells the time and waits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Milliseconds that an adjustable clock is ahead of the system's.
    ahead: AtomicI64,
    /// Counts the cuts of waits.
    cuts: watch::Sender<u64>,
}

/// Moves an adjustable clock.
#[derive(Debug, Clone)]
pub struct ClockControl(Clock);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Arc::new(Inner { ahead: AtomicI64::new(0), cuts: watch::Sender::new(0) }))
    }

    /// A clock that starts as the system's and can be pushed forward.
    pub fn adjustable() -> (Self, ClockControl) {
        let clock = Self::system();
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
}

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that reads the system's clock"
        )]
        let system = SystemTime::now();
        let ahead = self.0.ahead.load(Ordering::Relaxed);
        system + Duration::from_millis(ahead.unsigned_abs())
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

    /// Ends every wait that is under way.
    pub fn cut_waits(&self) {
        self.0.0.cuts.send_modify(|cuts| *cuts += 1);
    }
}
