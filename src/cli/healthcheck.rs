//! `bondmcp-server healthcheck`: for containers, whose image has no other program.

use std::{net::SocketAddr, time::Duration};

use anyhow::anyhow;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::Error;

pub(super) const EXAMPLES: &str = "Examples:
  bondmcp-server healthcheck
  bondmcp-server healthcheck 127.0.0.1:9000";

/// Longest wait for the answer.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Asks the hosted server in this container whether it is ready; exit code 1 if it is not.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The address that the server listens on
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:8787")]
    address: SocketAddr,
}

impl Args {
    pub async fn run(self) -> Result<(), Error> {
        let ready = timeout(TIMEOUT, self.is_ready()).await.is_ok_and(|answer| answer.unwrap_or(false));
        if ready {
            Ok(())
        } else {
            Err(Error::Failed(anyhow!("The server at {} is not ready.", self.address)))
        }
    }

    async fn is_ready(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(self.address).await?;
        let request = format!("GET /readyz HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        Ok(&status == b"HTTP/1.1 200")
    }
}
