//! The simulated AWS behind local mode and the simulation: EC2/EBS and
//! EventBridge as one deterministic state machine with their wire protocols.
//!
//! It is handed the time and a seed and bytes, and gives bytes back. It never
//! reads a clock, never does I/O, starts no task and iterates no hash map: the
//! same seed, configuration and calls give the same bytes.
//!
//! ```text
//!   ec2(bytes) ──┐            ┌── agenda: snapshot ends, event arrives, ...
//!   events(bytes)┼─► advance ─┤        (all that fell due, in time order)
//!   write, ...  ─┘            └─► world: instances, volumes, snapshots
//!                                   │
//!                 bus: rules ◄──────┘ EBS events (late, doubled, unordered)
//!                  │
//!                  └─► deliveries() ─► the driver runs the function ─► delivered()
//! ```
//!
//! A driver's loop: take the time, make a call ([`Cloud::ec2`],
//! [`Cloud::events`], ...), commit [`Cloud::take_dirty`] in one transaction,
//! answer; then run what [`Cloud::deliveries`] gives and sleep until
//! [`Cloud::next_due`]. After a crash [`Cloud::restore`] goes on from the
//! committed rows; deliveries that were in flight are due again, as Lambda's
//! asynchronous invocation is at least once.
//!
//! `DynamoDB` is elsewhere (an embedded database), but shares the call log and
//! the faults: [`Cloud::admit`] before a call, [`Cloud::record`] after it.
//!
//! Where a behaviour is AWS's, its source stands beside it: (M) botocore
//! service model, (E) EBS user guide, `EventBridge` events page, (T) EC2
//! developer guide, API throttling page, (X) EC2 API error codes page,
//! (C) EC2 developer guide, eventual consistency page, (EB) `EventBridge` user
//! guide, (L) Lambda developer guide, asynchronous invocation page; (inf)
//! is inferred.

mod agenda;
mod attachments;
mod bus;
mod calls;
mod config;
mod creation;
mod error;
mod faults;
mod instances;
mod keys;
mod pattern;
mod persist;
mod power;
mod report;
mod sets;
mod snapshots;
mod table;
mod tags;
mod throttle;
mod traits;
mod view;
mod volumes;
mod wire;
mod world;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

pub use crate::bus::Delivery;
pub use crate::config::{Config, Pace, Rule, Target};
pub use crate::faults::{Admission, FaultAction, FaultSpec};
pub use crate::instances::{InstanceSpec, Launched, ROOT_DEVICE, VolumeSpec};
pub use crate::persist::RestoreError;
pub use crate::traits::{InstanceTraits, SpotRequest};
pub use crate::view::{InstanceView, SnapshotView, VolumeView};
pub use crate::wire::Reply;

use crate::agenda::{Agenda, Work};
use crate::bus::{BusEvent, CompiledRule, DeadLetter, Pending};
use crate::calls::{Call, Capacity};
use crate::faults::Fault;
use crate::persist::Meta;
use crate::table::{Log, Table};
use crate::throttle::Bucket;
use crate::world::{DisabledKey, Instance, Snapshot, SnapshotSet, Token, Volume};

/// The simulated cloud: one account in one Region.
#[derive(Debug)]
pub struct Cloud {
    config: Config,
    rules: Vec<CompiledRule>,
    /// The latest moment it was told; while due work is done, that work's own.
    now: Timestamp,
    rng: fastrand::Rng,
    /// The next number for what has no AWS id: deliveries, sets, faults, work.
    next: u64,
    saved: Option<Meta>,
    /// Neither logs nor changed rows are kept: see [`Cloud::quiet`].
    quiet: bool,
    short_pages: Option<usize>,
    instances: Table<String, Instance>,
    volumes: Table<String, Volume>,
    snapshots: Table<String, Snapshot>,
    sets: Table<u64, SnapshotSet>,
    /// By client token; they are kept for good.
    tokens: Table<String, Token>,
    /// By ARN.
    disabled_keys: Table<String, DisabledKey>,
    agenda: Agenda,
    deliveries: Table<u64, Pending>,
    /// Given out and not yet answered; in memory only, so a restart forgets it.
    in_flight: BTreeSet<u64>,
    buckets: Table<String, Bucket>,
    faults: Table<u64, Fault>,
    counts: Table<String, u64>,
    capacity: Table<String, Capacity>,
    calls: Log<Call>,
    events: Log<BusEvent>,
    dead: Log<DeadLetter>,
}

impl Cloud {
    /// An empty account.
    ///
    /// # Panics
    /// When [`Config::check`] refuses the configuration: it is the caller's
    /// source code or template that is wrong, not a user's input.
    pub fn new(config: Config, seed: u64, now: Timestamp) -> Cloud {
        match Cloud::empty(config, seed, now) {
            Ok(cloud) => cloud,
            Err(fault) => panic!("the simulated cloud's configuration: {fault}"),
        }
    }

    fn empty(config: Config, seed: u64, now: Timestamp) -> Result<Cloud, String> {
        let rules = config.compile()?;
        Ok(Cloud {
            config,
            rules,
            now,
            rng: fastrand::Rng::with_seed(seed),
            next: 1,
            saved: None,
            quiet: false,
            short_pages: None,
            instances: Table::new("instance"),
            volumes: Table::new("volume"),
            snapshots: Table::new("snapshot"),
            sets: Table::new("set"),
            tokens: Table::new("token"),
            disabled_keys: Table::new("key"),
            agenda: Agenda::new(),
            deliveries: Table::new("delivery"),
            in_flight: BTreeSet::new(),
            buckets: Table::new("bucket"),
            faults: Table::new("fault"),
            counts: Table::new("count"),
            capacity: Table::new("capacity"),
            calls: Log::new("call", 10_000),
            events: Log::new("event", 1_000),
            dead: Log::new("dead", 1_000),
        })
    }

    /// From now on a page of a describe that asks for pages has at most so many rows:
    /// "the number of items may be less" (EC2 API reference, pagination). None: as many
    /// as are asked for.
    pub fn short_pages(&mut self, rows: Option<usize>) {
        self.short_pages = rows;
    }

    /// Does all work that fell due until `now`, in time order. A clock that
    /// steps back is ignored: AWS's time never does.
    pub fn advance(&mut self, now: Timestamp) {
        while let Some((at, work)) = self.agenda.pop_due(now) {
            self.now = self.now.max(at);
            self.work(work);
        }
        self.now = self.now.max(now);
    }

    /// The next moment at which something happens by itself, a delivery that
    /// is not in flight included.
    pub fn next_due(&self) -> Option<Timestamp> {
        let delivery = self
            .deliveries
            .iter()
            .filter(|(id, _)| !self.in_flight.contains(id))
            .map(|(_, pending)| pending.due)
            .min();
        [self.agenda.next_due(), delivery].into_iter().flatten().min()
    }

    fn work(&mut self, work: Work) {
        match work {
            Work::FinishSnapshot(id) => self.finish_snapshot(&id),
            Work::ForgetSnapshot(id) => {
                self.snapshots.remove(&id);
            }
            Work::FinishStop(id) => self.finish_stop(&id),
            Work::FinishStart(id) => self.finish_start(&id),
            Work::FinishTermination(id) => self.finish_termination(&id),
            Work::ForgetInstance(id) => {
                self.instances.remove(&id);
            }
            Work::FinishVolume(id) => self.finish_volume(&id),
            Work::ForgetVolume(id) => self.remove_volume(&id),
            Work::FinishAttachment { instance, volume } => {
                self.finish_attachment(&instance, &volume);
            }
            Work::Arrive { bus, event } => self.publish(&bus, &event),
        }
    }

    fn plan(&mut self, at: Timestamp, work: Work) {
        let id = self.number();
        self.agenda.insert(id, at, work);
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// A span of AWS's time, in milliseconds, as it passes here.
    fn span(&self, aws_ms: u64) -> SignedDuration {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "spans are minutes to hours; Config::check bounds the speed"
        )]
        let ms = (aws_ms as f64 / self.config.speed) as i64;
        SignedDuration::from_millis(ms)
    }

    /// A moment from now, drawn between two spans of AWS's time.
    fn later(&mut self, aws_ms: std::ops::RangeInclusive<u64>) -> Timestamp {
        let ms = self.rng.u64(aws_ms);
        self.now + self.span(ms)
    }

    /// An id as AWS makes them since 2018: 17 hexadecimal digits.
    fn aws_id(&mut self, kind: &str) -> String {
        format!("{kind}-0{:016x}", self.rng.u64(..))
    }

    fn uuid(&mut self) -> String {
        let (a, b) = (self.rng.u64(..), self.rng.u64(..));
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            0x8000 | (b >> 48 & 0x3fff),
            b & 0xffff_ffff_ffff,
        )
    }
}
