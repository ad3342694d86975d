//! What the tests of clients stand on: clients over a vault of their own, and a server that publishes documents.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::{Clients, Network};
use crate::{
    clock::Clock,
    config::VaultLocation,
    oauth::{Endpoints, form::Form, server_keys::ServerKeys},
    vault::{Keyring, Records, Vault},
};

pub const ISSUER: &str = "https://bond.example.com";

pub struct World {
    pub clients: Clients,
    pub clock: Clock,
    pub network: Network,
    _directory: TempDir,
    location: VaultLocation,
}

impl World {
    pub async fn new(network: Network) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let location = VaultLocation::Sqlite(directory.path().join("data/vault.db"));
        let clock = Clock::manual("2026-11-29T10:00:00Z".parse().unwrap());
        let clients = Self::open(&location, &network, &clock).await;
        Self { clients, clock, network, _directory: directory, location }
    }

    pub fn records(&self) -> &Records {
        &self.clients.records
    }

    /// Another process on the same vault.
    pub async fn replica(&self) -> Clients {
        Self::open(&self.location, &self.network, &self.clock).await
    }

    async fn open(location: &VaultLocation, network: &Network, clock: &Clock) -> Clients {
        let vault = Vault::open(location, Keyring::of(&[1])).await.unwrap();
        let records = Records::new(vault, ISSUER.to_owned());
        let endpoints = Endpoints::new(&ISSUER.parse().unwrap());
        let keys = ServerKeys::open(&records).await.unwrap();
        Clients::new(records, &keys, &endpoints, network.clone(), clock.clone())
    }
}

/// The form of a request with these parameters.
pub fn form(parameters: &[(&str, &str)]) -> Form {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    Form::parse(body.as_bytes()).unwrap()
}

/// A key that a client signs assertions with.
pub struct SigningKey {
    pub kid: String,
    algorithm: Algorithm,
    key: EncodingKey,
    /// The public key, as in a JWK set.
    pub jwk: Value,
}

impl SigningKey {
    pub fn new(kid: &str, algorithm: Algorithm) -> Self {
        let made_for = match algorithm {
            Algorithm::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Algorithm::EdDSA => &rcgen::PKCS_ED25519,
            _ => &rcgen::PKCS_RSA_SHA256,
        };
        let pair = rcgen::KeyPair::generate_for(made_for).unwrap();
        let (private, public) = (pair.serialize_der(), pair.public_key_raw());
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (key, mut jwk) = match algorithm {
            Algorithm::ES256 => {
                let jwk = json!({"kty": "EC", "crv": "P-256", "x": encoded(&public[1..33]), "y": encoded(&public[33..])});
                (EncodingKey::from_ec_der(&private), jwk)
            }
            Algorithm::EdDSA => (
                EncodingKey::from_ed_der(&private),
                json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(public)}),
            ),
            _ => {
                // PKCS #8 has 26 bytes before a key of 2048 bits in PKCS #1.
                let key = EncodingKey::from_rsa_der(&private[26..]);
                let jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).unwrap();
                let jwk = serde_json::to_value(jwk.algorithm).unwrap();
                (key, jwk)
            }
        };
        (jwk["kid"], jwk["use"]) = (kid.into(), "sig".into());
        Self { kid: kid.to_owned(), algorithm, key, jwk }
    }

    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(self.algorithm) };
        self.sign_with(&header, claims)
    }

    pub fn sign_with(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &self.key).unwrap()
    }
}

/// A server on loopback with TLS, for `localhost`, `127.0.0.1` and `client.example`.
pub struct Server {
    pub address: SocketAddr,
    /// Its certificate, in DER.
    pub certificate: Vec<u8>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The answers by path. Where there is none, there is no answer at all, and the connection stays open.
    answers: Mutex<HashMap<String, Answer>>,
    connections: AtomicUsize,
    requests: AtomicUsize,
    dripped: AtomicUsize,
}

#[derive(Clone)]
struct Answer {
    /// What is sent at once.
    head: Vec<u8>,
    /// What is sent byte by byte, with a pause before each.
    dripping: Vec<u8>,
    pause: Duration,
}

impl Server {
    pub async fn start() -> Self {
        let names = ["localhost", "127.0.0.1", "client.example"].map(str::to_owned);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared: Arc<Shared> = Arc::default();
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), shared.clone()));
        Self { address, certificate: certificate.der().to_vec(), shared }
    }

    pub fn network(&self) -> Network {
        Network::loopback(&self.certificate)
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    /// Publishes JSON.
    pub fn publish(&self, path: &str, headers: &str, body: &Value) {
        self.answer(
            path,
            &format!("200 OK\r\ncontent-type: application/json\r\n{headers}"),
            &body.to_string(),
        );
    }

    /// Answers with a status, headers and a body.
    pub fn answer(&self, path: &str, head: &str, body: &str) {
        let head = head.trim_end();
        let answer =
            format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        self.insert(path, Answer { head: answer.into_bytes(), dripping: Vec::new(), pause: Duration::ZERO });
    }

    /// Publishes JSON that arrives byte by byte.
    pub fn drip(&self, path: &str, body: &str, pause: Duration) {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.insert(path, Answer { head: head.into_bytes(), dripping: body.into(), pause });
    }

    fn insert(&self, path: &str, answer: Answer) {
        self.shared.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    pub fn withdraw(&self, path: &str) {
        self.answer(path, "503 Service Unavailable", "");
    }

    /// Answers no longer, and leaves the connections open.
    pub fn hang(&self, path: &str) {
        self.shared.answers.lock().unwrap().remove(path);
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// The number of bytes that were sent one by one.
    pub fn dripped(&self) -> usize {
        self.shared.dripped.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    loop {
        let (connection, _) = listener.accept().await.unwrap();
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        tokio::spawn(async move {
            let Ok(connection) = acceptor.accept(connection).await else { return };
            let mut connection = BufReader::new(connection);
            let (mut head, mut line) = (String::new(), String::new());
            while line != "\r\n" {
                line.clear();
                if connection.read_line(&mut line).await.unwrap_or(0) == 0 {
                    return;
                }
                head.push_str(&line);
            }
            shared.requests.fetch_add(1, Ordering::SeqCst);
            let path = head.split(' ').nth(1).unwrap_or_default();
            let answer = shared.answers.lock().unwrap().get(path).cloned();
            match answer {
                Some(answer) => {
                    let _ = connection.write_all(&answer.head).await;
                    for byte in answer.dripping {
                        tokio::time::sleep(answer.pause).await;
                        if connection.write_all(&[byte]).await.is_err() || connection.flush().await.is_err() {
                            return;
                        }
                        shared.dripped.fetch_add(1, Ordering::SeqCst);
                    }
                    let _ = connection.shutdown().await;
                }
                None => std::future::pending().await,
            }
        });
    }
}
