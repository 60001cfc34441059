//! The shell of the backups service: where the pure rules of `backups-core`
//! meet the clock, randomness, DynamoDB, EC2, and EventBridge.
//!
//! Concrete SDK clients, no port traits: what runs in tests is what runs on AWS,
//! against other endpoints. EC2 stands behind the feature `ec2`, because its
//! SDK costs minutes to build and only the worker may touch it.

pub mod bus;
pub mod clock;
#[cfg(feature = "ec2")]
pub mod ec2;
pub mod error;
pub mod random;
pub mod sdk;
pub mod settings;
pub mod table;
pub mod telemetry;
