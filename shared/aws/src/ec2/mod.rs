//! EC2: what is, seen in pages, and the calls that change it.
//!
//! Only the worker has this. A look fails as a whole or is whole: a page that
//! did not come is never taken for an empty one.

mod act;
mod look;
mod reconcile;
mod restore_act;
mod restore_look;
pub mod tags;

pub use reconcile::{Deleted, Page};

use backups_core::id::SnapshotId;

use crate::sdk::SdkConfig;
use crate::settings::Settings;

/// The most ids of one filter (EC2 API reference, "Filter": 200 values; half of it).
const CHUNK: usize = 100;

/// The size of a page. Without one EC2 answers in a single page, and "unpaginated
/// requests are susceptible to throttling and timeouts" (EC2 API reference).
const PAGE: i32 = 1000;

/// How many calls of one kind one invocation makes side by side. With 20 workers
/// that can be more than a token bucket of the account holds (100, EC2 developer
/// guide, "Request throttling"): what is throttled comes back later.
const SIDE_BY_SIDE: usize = 10;

/// EC2 as one stack uses it.
#[derive(Debug, Clone)]
pub struct Ec2 {
    client: aws_sdk_ec2::Client,
    stack: String,
}

impl Ec2 {
    /// A client for the stack's Region.
    pub fn new(settings: &Settings, sdk: &SdkConfig) -> Self {
        Self::of(&settings.stack_name, sdk)
    }

    /// The same for a stack of this name.
    pub fn of(stack: &str, sdk: &SdkConfig) -> Self {
        Self { client: sdk.ec2(), stack: stack.to_owned() }
    }
}

/// A snapshot's id out of a reply.
fn snapshot_id(id: Option<&str>) -> Option<SnapshotId> {
    id.map(SnapshotId::from)
}
