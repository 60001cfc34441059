//! What happened, as lines of text with simulated times: the proof that a seed
//! replays to the byte, and what a person reads when one fails.

use std::fmt::Write as _;

use jiff::Timestamp;

/// The lines, if anybody wants them: most runs do without.
#[derive(Debug, Default)]
pub(crate) struct Trace(Option<String>);

impl Trace {
    pub(crate) fn new(kept: bool) -> Self {
        Self(kept.then(String::new))
    }

    /// Whether lines are kept: what makes them may be costly.
    pub(crate) fn kept(&self) -> bool {
        self.0.is_some()
    }

    /// Adds a line; `text` is asked only if it is kept.
    pub(crate) fn line(&mut self, at: Timestamp, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.0 {
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "{at:.3} {}", text());
        }
    }

    pub(crate) fn take(&mut self) -> String {
        self.0.take().unwrap_or_default()
    }
}
