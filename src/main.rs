//! The binary: reads the command line and leaves with the command's exit code.

use std::process::ExitCode;

use bondmcp_server::cli::Cli;
use clap::Parser as _;
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut builder =
        if cli.serves_many() { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the process cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(cli.run());
    // A read of stdin that is still pending must not hold the process up.
    runtime.shutdown_background();
    code
}
