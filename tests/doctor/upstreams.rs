//! Upstreams that are not as they should be: behind TLS with any certificate, silent, or something else than BondMCP.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use axum::{Router, http::header::DATE, routing::get};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use crate::common::tls;

/// TLS in front of a server.
pub struct Front {
    pub address: SocketAddr,
    /// `None` accepts connections and says nothing.
    identity: Arc<Mutex<Option<Arc<ServerConfig>>>>,
    directory: PathBuf,
}

impl Front {
    /// Starts one that is silent.
    pub async fn start(upstream: SocketAddr, directory: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let identity: Arc<Mutex<Option<Arc<ServerConfig>>>> = Arc::default();
        let current = Arc::clone(&identity);
        tokio::spawn(async move {
            let mut silent = Vec::new();
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                let Some(identity) = current.lock().unwrap().clone() else {
                    silent.push(connection);
                    continue;
                };
                tokio::spawn(async move {
                    // The client may refuse the certificate.
                    let Ok(mut secure) = TlsAcceptor::from(identity).accept(connection).await else { return };
                    let mut plain = TcpStream::connect(upstream).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut secure, &mut plain).await;
                });
            }
        });
        Self { address, identity, directory: directory.to_owned() }
    }

    pub fn base_url(&self) -> String {
        format!("https://{}/mcp", self.address)
    }

    /// Presents a new certificate for 127.0.0.1 from now on; returns it as a file.
    pub fn present(&self, is_expired: bool) -> PathBuf {
        let mut parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "Test Authority");
        (parameters.not_before, parameters.not_after) = if is_expired {
            (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 2, 3))
        } else {
            (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2090, 4, 5))
        };
        let (tls, certificate) = tls::identity(&parameters);
        let pem = self.directory.join("certificate.pem");
        std::fs::write(&pem, certificate.pem()).unwrap();
        *self.identity.lock().unwrap() = Some(Arc::new(tls));
        pem
    }
}

/// Serves `router`; returns its URL.
pub async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// A BondMCP that answers nothing but who it is, with a clock that is off by `seconds`.
pub async fn with_clock_off_by(seconds: Arc<Mutex<i64>>) -> String {
    let answer = move |status: u16, body: &'static str| {
        let seconds = Arc::clone(&seconds);
        get(async move || {
            let now = chrono::Utc::now() + chrono::TimeDelta::seconds(*seconds.lock().unwrap());
            let date = httpdate::fmt_http_date(now.into());
            (axum::http::StatusCode::from_u16(status).unwrap(), [(DATE, date)], body)
        })
    };
    let router = Router::new()
        .route("/health", answer(200, r#"{"status":"healthy","version":"9"}"#))
        .route("/auth/me", answer(401, r#"{"detail":"Not authenticated"}"#));
    serve(router).await
}

/// An HTTP proxy that answers every `CONNECT` with `status`, and connects if that is 200.
pub async fn proxy(status: &'static str) -> SocketAddr {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = BufReader::new(connection);
                let mut head = Vec::new();
                loop {
                    let mut line = String::new();
                    connection.read_line(&mut line).await.unwrap();
                    if line.trim().is_empty() {
                        break;
                    }
                    head.push(line);
                }
                let target = head[0].split(' ').nth(1).unwrap().to_owned();
                let answer = format!("HTTP/1.1 {status}\r\n\r\n");
                connection.write_all(answer.as_bytes()).await.unwrap();
                if status.starts_with("200") {
                    let mut upstream = TcpStream::connect(target).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut connection, &mut upstream).await;
                }
            });
        }
    });
    address
}
