//! Verifies that a page is still served by the process that announced it, before its link is given to a person: after a
//! crash another user of the machine may own the port. Both processes prove to each other that they know a key from the
//! encrypted announcement. The same request adds a caller to the page.

use std::{net::SocketAddr, time::Duration};

use axum::body::{Body, to_bytes};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{
    Request, StatusCode,
    header::{CONTENT_TYPE, HOST, ORIGIN},
};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use url::form_urlencoded;

use crate::{
    account::RequiredCredential,
    secret::{self, ExposeSecret as _, SecretString},
};

/// Longest wait for a page on this machine.
const PEER_TIMEOUT: Duration = Duration::from_secs(5);

/// Path to which other processes of the account post a [`Join`].
pub const JOIN_PATH: &str = "/join";

/// The form that a process sends before it gives the link to a person.
#[derive(Deserialize)]
pub struct Join {
    nonce: String,
    needs_session: bool,
    /// MAC of the nonce and the required credential.
    proof: SecretString,
}

impl Join {
    /// Returns the credential that the sender needs and the proof to answer with; `None` if the sender does not know
    /// `key`.
    pub fn verified(&self, key: &SecretString) -> Option<(RequiredCredential, String)> {
        let need = if self.needs_session { RequiredCredential::Session } else { RequiredCredential::Api };
        let expected = request_proof(key, &self.nonce, need).into();
        secret::same(&self.proof, &expected).then(|| (need, answer_proof(key, &self.nonce)))
    }
}

/// A page that another process has announced.
#[derive(Debug)]
pub struct PeerPage {
    /// Its address on loopback.
    pub address: SocketAddr,
    /// Key that is known to the processes that can open the vault.
    pub key: SecretString,
}

impl PeerPage {
    /// Joins the page as a caller; `false` if it has ended or another program answers in its place.
    pub async fn join(&self, need: RequiredCredential) -> bool {
        let nonce = secret::random();
        let nonce = nonce.expose_secret();
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("nonce", nonce)
            .append_pair("needs_session", if need == RequiredCredential::Session { "true" } else { "false" })
            .append_pair("proof", &request_proof(&self.key, nonce, need))
            .finish();
        match tokio::time::timeout(PEER_TIMEOUT, self.post(form)).await {
            Ok(Some(answer)) => secret::same(&answer.into(), &answer_proof(&self.key, nonce).into()),
            _ => false,
        }
    }

    async fn post(&self, form: String) -> Option<String> {
        let address = self.address;
        let stream = TcpStream::connect(address).await.ok()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        // Ends when `sender` is dropped.
        tokio::spawn(connection);
        let request = Request::post(JOIN_PATH)
            .header(HOST, address.to_string())
            .header(ORIGIN, format!("http://{address}"))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form))
            .ok()?;
        let response = sender.send_request(request).await.ok()?;
        if response.status() != StatusCode::OK {
            return None;
        }
        let answer = to_bytes(Body::new(response.into_body()), 1 << 10).await.ok()?;
        String::from_utf8(answer.into()).ok()
    }
}

fn request_proof(key: &SecretString, nonce: &str, need: RequiredCredential) -> String {
    proof(key, if need == RequiredCredential::Session { "join for a session" } else { "join" }, nonce)
}

fn answer_proof(key: &SecretString, nonce: &str) -> String {
    proof(key, "joined", nonce)
}

/// Computes the MAC of the statement and the nonce.
fn proof(key: &SecretString, said: &str, nonce: &str) -> String {
    let key = key.expose_secret().as_bytes();
    URL_SAFE_NO_PAD.encode(*secret::mac(key, &[said.as_bytes(), nonce.as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_is_proved_by_the_key_and_bound_to_its_nonce_and_need() {
        let key = secret::random();
        let join =
            |needs_session, proof: String| Join { nonce: "n".into(), needs_session, proof: proof.into() };
        let proof = request_proof(&key, "n", RequiredCredential::Api);
        assert_eq!(
            join(false, proof.clone()).verified(&key),
            Some((RequiredCredential::Api, answer_proof(&key, "n")))
        );
        assert_eq!(join(true, proof.clone()).verified(&key), None);
        assert_eq!(join(false, proof).verified(&secret::random()), None);
        assert_eq!(join(false, answer_proof(&key, "n")).verified(&key), None);
        assert_eq!(join(false, request_proof(&key, "m", RequiredCredential::Api)).verified(&key), None);
    }
}
