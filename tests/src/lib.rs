//! What the tests from outside are made of: a running local cloud, an HTTP
//! client, and the question whether everything is at rest and as it should be.
//!
//! ```text
//!   Here      local in this process, in a folder that goes with it
//!   Process   the real binary, to be killed
//!     └▶ Cloud    how to call either: the API, the AWS port, /_local
//!          └▶ rest    pushes the clock until nothing moves
//!               └▶ audit   what must hold then, else a sentence for each fault
//! ```
//!
//! Nothing here looks inside: all it knows came over HTTP, but for
//! [`database`], which reads the file of a killed process, and for [`sim`] and
//! [`idle`], which have the functions and their table in this process.

pub mod audit;
pub mod aws_cli;
mod cloud;
pub mod crash;
pub mod database;
mod here;
pub mod http;
pub mod idle;
pub mod openapi;
mod process;
mod rest;
pub mod rows;
pub mod schemas;
pub mod sim;

pub use self::cloud::{Cloud, MANY};
pub use here::{Here, Setup};
pub use process::{Process, binary};

/// Why a test cannot go on.
pub struct Failed(pub String);

/// What may fail.
pub type Result<T, E = Failed> = std::result::Result<T, E>;

impl std::fmt::Debug for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// A failure in words.
///
/// # Errors
/// Always.
pub fn fail<T>(why: impl Into<String>) -> Result<T> {
    Err(Failed(why.into()))
}

/// One of several things, as often as the number beside it says.
#[expect(clippy::missing_panics_doc, reason = "a number below a sum is below one of its parts")]
#[expect(clippy::expect_used, reason = "the same")]
pub fn drawn<T: Copy>(dice: &mut fastrand::Rng, all: &[(T, u32)]) -> T {
    let weights: u32 = all.iter().map(|(_, weight)| weight).sum();
    let mut at = dice.u32(..weights);
    let found = all.iter().find(|(_, weight)| {
        let here = at < *weight;
        at = at.saturating_sub(*weight);
        here
    });
    found.map(|(thing, _)| *thing).expect("a number below the sum of the weights")
}

/// The repository's root.
pub fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
