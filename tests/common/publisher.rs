//! A publisher of clients' metadata documents, over TLS.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use bondmcp_server::{oauth::Network, secret};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::{hosted_server::HostedServer, secrets, tls};

/// The form of the id of `ChatGPT`'s key (engram-app/Engram, issue 1633).
const KEY_ID: &str = "cimd-20260428030119";

/// A server on loopback that publishes documents as the hosts do, and is known by its certificate.
pub struct Publisher {
    port: u16,
    certificate: Vec<u8>,
    answers: Arc<Mutex<HashMap<String, String>>>,
    /// What `ChatGPT` signs its assertions with.
    key: EncodingKey,
}

impl Publisher {
    pub async fn start() -> Self {
        let names = vec!["localhost".to_owned()];
        let (tls, certificate) = tls::identity(&rcgen::CertificateParams::new(names).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers = Arc::default();
        tokio::spawn(publish(listener, TlsAcceptor::from(Arc::new(tls)), Arc::clone(&answers)));

        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        // PKCS #8 has 26 bytes before a key of 2048 bits in PKCS #1.
        let key = EncodingKey::from_rsa_der(&pair.serialize_der()[26..]);
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::RS256).unwrap()).unwrap();
        (jwk["kid"], jwk["use"], jwk["alg"]) = (KEY_ID.into(), "sig".into(), "RS256".into());
        let publisher = Self { port, certificate: certificate.der().to_vec(), answers, key };
        publisher.answer(
            "/oauth/jwks.json",
            "200 OK",
            "application/json",
            &json!({ "keys": [jwk] }).to_string(),
        );
        publisher
    }

    pub fn network(&self) -> Network {
        Network::loopback(&self.certificate)
    }

    /// Returns where a URL of a host is published here.
    fn here(&self, url: &str) -> String {
        let (_, rest) = url.split_once("://").unwrap();
        format!("https://localhost:{}{}", self.port, &rest[rest.find('/').unwrap()..])
    }

    pub fn answer(&self, path: &str, status: &str, kind: &str, body: &str) {
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncache-control: max-age=3600\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{body}",
            body.len()
        );
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// Publishes a recorded document; returns the client id, which is its address here.
    pub fn publish(&self, document: &Value) -> String {
        let mut document = document.clone();
        for name in ["client_id", "jwks_uri"] {
            if let Some(url) = document[name].as_str() {
                document[name] = self.here(url).into();
            }
        }
        // Looking a name up has added it.
        document.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let id = document["client_id"].as_str().unwrap().to_owned();
        let path = id.strip_prefix(&format!("https://localhost:{}", self.port)).unwrap();
        self.answer(path, "200 OK", "application/json", &document.to_string());
        id
    }

    /// Returns an assertion of the client (RFC 7523, section 3).
    pub fn assertion(&self, server: &HostedServer, client_id: &str) -> String {
        let now = server.clock.now().timestamp();
        let claims = json!({
            "iss": client_id, "sub": client_id, "aud": format!("{}/token", server.origin),
            "iat": now, "exp": now + 300, "jti": secrets::text(&secret::random()),
        });
        let header = Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::RS256) };
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }
}

async fn publish(listener: TcpListener, tls: TlsAcceptor, answers: Arc<Mutex<HashMap<String, String>>>) {
    while let Ok((connection, _)) = listener.accept().await {
        let (tls, answers) = (tls.clone(), Arc::clone(&answers));
        tokio::spawn(async move {
            let Ok(connection) = tls.accept(connection).await else { return };
            let mut connection = BufReader::new(connection);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if connection.read_line(&mut head).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let path = head.split(' ').nth(1).unwrap_or_default();
            let answer = answers.lock().unwrap().get(path).cloned();
            let answer =
                answer.unwrap_or_else(|| "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned());
            let _ = connection.write_all(answer.as_bytes()).await;
            let _ = connection.shutdown().await;
        });
    }
}
