//! `bondmcp-server completions`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Error, printer::Printer};

pub(super) const EXAMPLES: &str = "Examples:
  bondmcp-server completions bash > ~/.local/share/bash-completion/completions/bondmcp-server
  bondmcp-server completions zsh > ~/.zfunc/_bondmcp-server
  bondmcp-server completions fish > ~/.config/fish/completions/bondmcp-server.fish";

/// Prints a script that completes commands and flags. Put it where your shell reads such scripts.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell that reads the script
    shell: Shell,
}

impl Args {
    pub fn run(self, printer: &Printer) -> Result<(), Error> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), env!("CARGO_PKG_NAME"), &mut script);
        printer.print_text(&String::from_utf8_lossy(&script));
        Ok(())
    }
}
