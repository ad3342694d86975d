//! Connections that are opened and then stay silent do not block `http`, although each uses a file descriptor.

use std::process::Stdio;

use crate::common::{Place, like_the_seed, sandbox, within};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::Command,
};

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_half_open_connections_do_not_block_http() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let template = place.command(&["http", "--listen", "127.0.0.1:0", "--no-auth"]);
    let template = template.as_std();
    // As many files as a process may open on macOS.
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 256; exec \"$0\" \"$@\""])
        .arg(template.get_program())
        .args(template.get_args());
    command.env_clear().envs(template.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = command.kill_on_drop(true).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = loop {
        let line = within(lines.next_line()).await.unwrap().unwrap();
        if let Some((_, rest)) = line.split_once("http://") {
            break rest.split('/').next().unwrap().to_owned();
        }
    };
    // Reads and discards the log, so that the server never blocks on it.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });

    let mut half_open = vec![];
    for _ in 0..300 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(b"POST /mcp HTTP/1.1\r\nhost:").await.unwrap();
        half_open.push(stream);
    }
    let health = within(reqwest::get(format!("http://{address}/healthz"))).await.unwrap();
    assert!(health.status().is_success());
}
