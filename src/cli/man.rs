//! `bondmcp-server man`: the man pages, from the definition of the command line. For packages, so it is not listed.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::CommandFactory as _;

use super::{Cli, Error};

pub(super) const EXAMPLES: &str = "Examples:
  bondmcp-server man /usr/local/share/man/man1";

/// Writes the man pages, one for each command.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The directory to write them to; it is created
    directory: PathBuf,
}

impl Args {
    pub fn run(self) -> Result<(), Error> {
        let write = || {
            std::fs::create_dir_all(&self.directory)?;
            clap_mangen::generate_to(Cli::command(), &self.directory)
        };
        write().map_err(|error| {
            Error::Failed(anyhow!("{} cannot be written to: {error}.", self.directory.display()))
        })
    }
}
