//! `bondmcp-server completions`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, printer::Printer};

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
    pub fn run(self, printer: &Printer) {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), env!("CARGO_PKG_NAME"), &mut script);
        // clap_complete 4.6 takes the hyphen in this program's name for a subcommand in half of its script for bash.
        let script = String::from_utf8_lossy(&script).replace("bondmcp__subcmd__server", "bondmcp__server");
        printer.print_text(&script);
    }
}
