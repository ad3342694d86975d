//! The person of the demo, with an e-mail address, a password and a terminal with a separate vault.

use anyhow::anyhow;
use std::{path::PathBuf, process::Stdio};

use tokio::{io::AsyncWriteExt as _, process::Command};
use uuid::Uuid;

use super::super::{Error, Printer};
use crate::{
    config,
    secret::{self, ExposeSecret as _, SecretString},
};

pub struct Person {
    pub email: String,
    pub password: SecretString,
    base_url: String,
    data_dir: PathBuf,
    sealing_key: SecretString,
    printer: Printer,
}

impl Person {
    pub fn new(base_url: &str, printer: Printer) -> Self {
        Self {
            email: format!("ada-{}@example.com", &Uuid::new_v4().simple().to_string()[..8]),
            password: format!("Pw1-{}", secret::random().expose_secret()).into(),
            base_url: base_url.to_owned(),
            data_dir: std::env::temp_dir().join(format!("bondmcp-demo-{}", Uuid::new_v4().simple())),
            sealing_key: secret::random(),
            printer,
        }
    }

    /// Returns the command that runs this program with `verb` as a separate process; only the configuration is passed
    /// to it.
    pub fn command(&self, verb: &str) -> Result<Command, Error> {
        let program = std::env::current_exe()
            .map_err(|error| Error::Failed(anyhow!("This program cannot find itself: {error}.")))?;
        let mut command = Command::new(program);
        config::remove_variables(command.as_std_mut());
        command
            .arg(verb)
            .env("BONDMCP_BASE_URL", &self.base_url)
            .env("BONDMCP_DATA_DIR", &self.data_dir)
            .env("BONDMCP_SEALING_KEY", self.sealing_key.expose_secret())
            .kill_on_drop(true);
        Ok(command)
    }

    /// Runs `verb` with the password on stdin.
    pub async fn run(&self, verb: &str) -> Result<(), Error> {
        self.printer.print_out(format_args!("  person  bondmcp-server {verb} {}", self.email));
        let broken = |error: std::io::Error| Error::Failed(anyhow!("`{verb}` failed: {error}."));
        let mut child = self
            .command(verb)?
            .args([&self.email, "--password-stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(broken)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(self.password.expose_secret().as_bytes()).await.map_err(broken)?;
        }
        if child.wait().await.map_err(broken)?.success() {
            Ok(())
        } else {
            Err(Error::Failed(anyhow!("`bondmcp-server {verb}` failed.")))
        }
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        // The demo's vault is temporary.
        let _ = std::fs::remove_dir_all(&self.data_dir);
    }
}
