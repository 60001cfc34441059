//! `cargo run -p tests --bin openapi`: writes docs/openapi.json anew.

use std::process::ExitCode;

use tests::{Failed, Result, openapi, root};

fn main() -> ExitCode {
    match write() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(why)) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn write() -> Result<()> {
    let file = root().join("docs/openapi.json");
    std::fs::write(&file, openapi::rendered()?)?;
    println!("wrote {}", file.display());
    Ok(())
}
