//! The log: one line a request, event, call and status change, on standard error.

use backups_aws::clock::Clock;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Crates of this project; others speak up from `warn` on.
const OURS: [&str; 7] =
    ["local", "api", "worker", "scheduler", "backups_aws", "backups_core", "cloud"];

/// Sets the log up for the process.
///
/// # Errors
/// It is set up already.
pub fn init(level: Level, json: bool) -> Result<(), String> {
    let others = level.min(Level::WARN);
    let filter =
        OURS.iter().fold(others.to_string(), |filter, name| format!("{filter},{name}={level}"));
    let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_timer(SystemTime(Clock::system()));
    let done = if json {
        log.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    } else {
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
        log.compact().with_target(false).with_ansi(colours).try_init()
    };
    done.map_err(|error| error.to_string())
}

/// The machine's time: what one compares with a watch. The simulated time of
/// what happened stands in `/_local/calls` and `/_local/state`.
struct SystemTime(Clock);

impl FormatTime for SystemTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{}", self.0.timestamp().strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))
    }
}
