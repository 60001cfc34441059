//! Which call meets which fault, by the profile's rates and the seed.

use std::collections::BTreeSet;
use std::time::Duration;

use fastrand::Rng;

use super::crash_point::CrashPoint;
use super::plan::{Fault, Profile};

/// Draws faults as calls come.
#[derive(Debug)]
pub(crate) struct Dice {
    rng: Rng,
    rate: u32,
    changes: u32,
    tells: u32,
    transactions: u32,
    faults: Vec<Fault>,
    crash: Option<CrashPoint>,
    /// How many faults were drawn: each has a number by which it can be left out.
    drawn: u32,
    unstruck: BTreeSet<u32>,
    /// No call meets a fault before.
    begun: bool,
    /// No faults any more.
    calm: bool,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict {
    pub(crate) fault: Option<Fault>,
    /// From its sending until AWS carries it out.
    pub(crate) there: Duration,
    /// From then until the reply is here.
    pub(crate) back: Duration,
}

/// What a call is, as far as faults care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ec2Write,
    DynamoWrite,
    Transaction,
    /// Its answer comes in pages.
    Paged,
    PutEvents,
    /// Made seldom.
    Rare,
    /// Made once a day.
    Daily,
    Other,
}

impl Dice {
    pub(crate) fn new(
        seed: u64,
        profile: &Profile,
        crash: Option<CrashPoint>,
        unstruck: BTreeSet<u32>,
    ) -> Self {
        Self {
            rng: Rng::with_seed(seed ^ 0x6469_6365),
            rate: profile.calls,
            changes: profile.changes,
            tells: profile.tells,
            transactions: profile.transactions,
            faults: profile.faults.clone(),
            crash,
            drawn: 0,
            unstruck,
            begun: false,
            calm: false,
        }
    }

    /// The scene is set: from now on calls meet their faults, and crashes.
    pub(crate) fn begin(&mut self) {
        self.begun = true;
    }

    /// From now on nothing goes wrong.
    pub(crate) fn calm(&mut self) {
        self.calm = true;
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm
    }

    pub(crate) fn drawn(&self) -> u32 {
        self.drawn
    }

    /// Whether something that goes wrong `rate` times in ten thousand does.
    pub(crate) fn happens(&mut self, rate: u32) -> bool {
        if self.calm || rate == 0 || self.rng.u32(0..10_000) >= rate {
            return false;
        }
        let number = self.drawn;
        self.drawn += 1;
        !self.unstruck.contains(&number)
    }

    /// A span drawn between two, in milliseconds.
    pub(crate) fn millis(&mut self, span: std::ops::RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.rng.u64(span))
    }

    pub(crate) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// What becomes of the call with this number. `quick`: its caller waits for 3 s
    /// and not for 15.
    pub(crate) fn cast(&mut self, number: u64, kind: Kind, quick: bool) -> Verdict {
        // As long as such calls take: what overlaps must be able to.
        let there = self.millis(if kind == Kind::Ec2Write { 50..=2_000 } else { 1..=20 });
        // Mostly nothing happens between AWS's answer and its arrival.
        let back = if self.rng.u8(0..8) == 0 { self.millis(1..=200) } else { Duration::ZERO };
        let plain = Verdict { fault: None, there, back };
        if !self.begun {
            return plain;
        }
        if let Some(crash) = self.crash {
            let here = crash.is_at(number);
            return Verdict { fault: here.then_some(crash.side.fault()), ..plain };
        }
        let rate = match kind {
            Kind::Ec2Write | Kind::Rare => self.rate.max(self.changes),
            Kind::Daily => (4 * self.rate.max(self.changes)).min(4_000),
            Kind::PutEvents => self.rate.max(self.tells),
            Kind::Transaction => self.rate.max(self.transactions),
            _ => self.rate,
        };
        if !self.happens(rate) {
            return plain;
        }
        let fits = |fault: &Fault| match fault {
            Fault::Conflict => matches!(kind, Kind::DynamoWrite | Kind::Transaction),
            Fault::AppliedLate => {
                !matches!(kind, Kind::Paged | Kind::Rare | Kind::Daily | Kind::Other)
            }
            Fault::ShortPage => kind == Kind::Paged,
            Fault::EntriesRefused => kind == Kind::PutEvents,
            _ => true,
        };
        let fitting: Vec<Fault> = self.faults.iter().copied().filter(fits).collect();
        let fault = self.rng.choice(fitting);
        let slow = if quick { 500..=2_900 } else { 2_000..=14_000 };
        match fault {
            // Also slow to refuse.
            Some(Fault::Slow | Fault::EntriesRefused) if self.rng.bool() => {
                Verdict { fault, there: self.millis(slow), back }
            }
            Some(Fault::Slow) => Verdict { fault, there, back: self.millis(slow) },
            fault => Verdict { fault, there, back },
        }
    }
}
