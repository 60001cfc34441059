//! `cargo run -p local`: see the library for what it is, `--help` for how.

use std::process::ExitCode;

use clap::Parser as _;
use local::{Options, Running, log, start};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), String> {
    log::init(options.log, options.json)?;
    // Before the start, so that one that comes during it counts.
    let mut interrupted = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminated = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let stop = async {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    };
    tokio::pin!(stop);
    let running: Running = tokio::select! {
        // A start that is cut off is made up for by the next one, as a crash is.
        () = &mut stop => return Ok(()),
        started = start(options) => started.map_err(|error| error.to_string())?,
    };
    print!("{}", running.ready());
    let failure = tokio::select! {
        () = &mut stop => None,
        reason = running.failed() => Some(reason),
    };
    tracing::info!("stopping");
    running.stop().await;
    failure.map_or(Ok(()), Err)
}
