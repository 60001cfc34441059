//! The operator's command: what no tenant may do, and what no program should.
//!
//! It has no rights but those of the credentials that it is started with, and changes
//! nothing of an operation itself: an order goes over the stack's bus to the worker, which
//! looks at EC2 before it obeys. The brake and the keys it writes to the table. Of EC2 it
//! describes snapshots and volumes, for the list of orphans.

mod brake;
mod key;
mod orphans;
mod restore;

use std::process::ExitCode;

use backups_aws::clock::Clock;
use backups_aws::sdk;
use clap::Parser;

/// Operates a stack of the backups service. Region, credentials and `AWS_ENDPOINT_URL` are
/// read as by every AWS tool.
#[derive(Debug, Parser)]
#[command(name = "admin", version)]
struct Options {
    #[command(flatten)]
    stack: Stack,
    #[command(subcommand)]
    command: Command,
}

/// Which stack: its outputs `TableName` and `EventBusName`.
#[derive(Debug, clap::Args)]
struct Stack {
    /// The stack's table
    #[arg(long, env = "TABLE_NAME", value_name = "NAME")]
    table: String,
    /// The stack's event bus. Keys and the brake do without
    #[arg(long, env = "EVENT_BUS_NAME", value_name = "NAME")]
    bus: Option<String>,
}

impl Stack {
    /// The bus, for what cannot do without.
    fn bus(&self) -> Result<&str, String> {
        self.bus.as_deref().ok_or_else(|| "--bus NAME, or EVENT_BUS_NAME: which bus?".to_owned())
    }
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Orders what becomes of a restore that is stuck, or of any other
    Restore(restore::Arguments),
    /// Shows, and removes, snapshots and volumes that no row vouches for
    #[command(subcommand)]
    Orphans(orphans::Orphans),
    /// Makes, lists and revokes API keys
    #[command(subcommand)]
    Key(key::Keys),
    /// Pauses deletions, schedules, or every EC2 write of the stack
    Pause(brake::Pause),
    /// Lets what was paused go on
    Resume(brake::Resume),
    /// Shows what is paused
    Brake(brake::Show),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    let clock = Clock::system();
    let sdk = sdk::config(&clock).await;
    let done = match options.command {
        Command::Restore(arguments) => restore::order(&arguments, &options.stack, &sdk).await,
        Command::Orphans(orphans) => orphans::run(&orphans, &options.stack, &sdk, &clock).await,
        Command::Key(keys) => key::run(&keys, &options.stack, &sdk, &clock).await,
        Command::Pause(wanted) => brake::pause(&wanted, &options.stack, &sdk, &clock).await,
        Command::Resume(wanted) => brake::resume(&wanted, &options.stack, &sdk, &clock).await,
        Command::Brake(show) => brake::show(&show, &options.stack, &sdk).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}
