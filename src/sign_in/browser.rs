//! Opening the person's browser. The link is not passed as an argument, where other users of the machine could read it:
//! the browser opens a private file that redirects to it. It inherits none of the `BONDMCP_*` variables.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use crate::{config, vault::files};

/// A private file that sends a browser to the sign-in page; removed when dropped.
#[derive(Debug)]
pub struct RedirectFile(PathBuf);

impl RedirectFile {
    /// Writes the file for the page at `url` into `directory`.
    pub fn write(directory: &Path, name: &str, url: &str) -> Result<Self, crate::vault::Error> {
        files::prepare_directory(directory)?;
        let file = Self(directory.join(format!("sign-in-{name}.html")));
        let page = format!(
            "<!doctype html>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"refresh\" content=\"0; url={url}\">\n<title>BondMCP</title>\n<p><a href=\"{url}\">Sign in to BondMCP</a></p>\n"
        );
        files::write_private(&file.0, page.as_bytes())?;
        Ok(file)
    }

    /// Opens the file in the person's browser.
    pub fn open(&self) -> io::Result<()> {
        let mut outcome = Err(io::ErrorKind::NotFound.into());
        for mut launcher in open::commands(&self.0) {
            config::remove_variables(&mut launcher);
            launcher.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            // A signal to this process group must not reach the browser.
            #[cfg(unix)]
            std::os::unix::process::CommandExt::process_group(&mut launcher, 0);
            outcome = Command::from(launcher).spawn().map(|mut child| {
                tokio::spawn(async move { child.wait().await });
            });
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

impl Drop for RedirectFile {
    fn drop(&mut self) {
        // The file may have been removed already, with its directory.
        let _ = std::fs::remove_file(&self.0);
    }
}
