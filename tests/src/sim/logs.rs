//! What the functions log, searched for the secret of a key.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::Plan;

/// Of so many seeds one has its logs searched: it costs a third of its speed.
const SEARCHED: u64 = 16;

/// What was found.
#[derive(Debug, Default)]
struct Found {
    lines: u64,
    secret: Option<String>,
}

/// The logs of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Logs(Arc<Mutex<Found>>);

impl Logs {
    /// Searches what is logged on this thread until the guard is dropped, at the level
    /// that an operator may set; None: not of this seed.
    pub(super) fn search(&self, plan: &Plan) -> Option<tracing::subscriber::DefaultGuard> {
        // Not one of those that are of a kind of their own.
        (plan.seed % SEARCHED == 5).then(|| {
            let subscriber = tracing_subscriber::fmt()
                .json()
                .without_time()
                .with_max_level(LevelFilter::DEBUG)
                .with_writer(self.clone())
                .finish();
            tracing::subscriber::set_default(subscriber)
        })
    }

    /// How many lines were searched, and the first that holds a secret.
    pub(super) fn found(&self) -> (u64, Option<String>) {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (found.lines, found.secret.clone())
    }
}

impl io::Write for Logs {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.lines += 1;
        if found.secret.is_none() && has_secret(line) {
            found.secret = Some(String::from_utf8_lossy(line).into_owned());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Logs {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Whether a text holds the secret of a key: a word that begins with `ld_`.
pub(super) fn has_secret(text: &[u8]) -> bool {
    let within = |part: &[u8]| part.ends_with(b"ld_") && !part[0].is_ascii_alphanumeric();
    text.starts_with(b"ld_") || text.windows(4).any(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_seen_wherever_it_stands() {
        for text in ["ld_x", "\"ld_x", "key: ld_x", "a\nld_x", "/ld_"] {
            assert!(has_secret(text.as_bytes()), "{text}");
        }
        for text in ["", "ld", "field_x", "old_key", "Ld_x"] {
            assert!(!has_secret(text.as_bytes()), "{text}");
        }
    }
}
