//! Authenticating clients at `/token` and `/revoke`: `none`, `client_secret_basic` and `client_secret_post` (RFC 6749,
//! section 2.3), `private_key_jwt` (RFC 7523, section 2.2).

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::{
    Authentication, Client, ClientError, Clients, Known,
    assertion::{self, Assertion},
    document::{ClientDocument, Keys},
    fetch::Asker,
    registered::SecretHash,
};
use crate::{
    oauth::{OAuthError, form::Form},
    secret::{ExposeSecret as _, SecretString},
    vault::RecordKind,
};

/// The ids of used assertions.
const USED: RecordKind = RecordKind::new("client-assertion");

/// How much longer the id of a used assertion is kept than the assertion is valid, for clocks that differ.
const KEPT_LONGER: Duration = Duration::from_mins(5);

/// What a request says about its client.
struct Credentials<'a> {
    client_id: String,
    proof: Proof<'a>,
}

/// What a client authenticates with.
enum Proof<'a> {
    None,
    Secret(SecretString),
    Assertion(Assertion<'a>),
}

impl Clients {
    /// Authenticates the client of a request to `/token` or `/revoke` (RFC 6749, section 2.3; RFC 7523). Whoever
    /// [names a document](Self::named_document) has a code or a token of that client.
    pub async fn authenticate(&self, authorization: Option<&str>, form: &Form) -> Result<Client, OAuthError> {
        let Credentials { client_id, proof } = Credentials::of(authorization, form)?;
        let suffices = |document: &ClientDocument| match &proof {
            Proof::Assertion(assertion) => document.is_enough_for(assertion),
            Proof::None | Proof::Secret(_) => true,
        };
        let Known { client, authentication } = match self.known(&client_id, Asker::Client, suffices).await {
            Ok(known) => known,
            Err(ClientError::Unknown(_) | ClientError::Invalid(_)) => return Err(unknown_client(&proof)),
            // The client may be sound: it must not be told to register again.
            Err(ClientError::Document(_)) => return Err(OAuthError::temporarily_unavailable()),
            Err(ClientError::Store(error)) => return Err(error.into()),
        };
        match (authentication, proof) {
            (Authentication::None, Proof::None) => {}
            (Authentication::Secret(hash), Proof::Secret(secret)) if hash.is_of(&secret) => {}
            (Authentication::Document(document), Proof::None) if document.is_public => {}
            // One that is sent is verified, whether the client needs it or not.
            (Authentication::Document(document), Proof::Assertion(assertion)) => {
                self.use_assertion(&assertion, &client, &document).await?;
            }
            _ => return Err(failed()),
        }
        Ok(client)
    }

    /// Returns the claimed id of a request's client if that names a document, which may have to be fetched.
    pub fn named_document(
        &self,
        authorization: Option<&str>,
        form: &Form,
    ) -> Result<Option<String>, OAuthError> {
        let client_id = Credentials::of(authorization, form)?.client_id;
        Ok(client_id.starts_with("https:").then_some(client_id))
    }

    /// Verifies an assertion and uses it: its id is accepted once (RFC 7523, section 3).
    async fn use_assertion(
        &self,
        assertion: &Assertion<'_>,
        client: &Client,
        document: &ClientDocument,
    ) -> Result<(), OAuthError> {
        let audiences = [&*self.issuer, &*self.token_endpoint];
        let verify = |keys| assertion.verify(keys, &client.id, &audiences, self.clock.now());
        let verified = match document.keys.as_ref().ok_or_else(failed)? {
            Keys::Inline(keys) => verify(keys),
            Keys::At(url) => {
                let found = self.key_sets.get(url, Asker::Client, |keys| assertion.is_for(keys)).await;
                verify(&*found.map_err(|error| {
                    tracing::info!(?error, "the keys of a client cannot be used");
                    OAuthError::temporarily_unavailable()
                })?)
            }
        };
        let verified = verified.ok_or_else(failed)?;
        let id = format!("{} {}", client.id, verified.id);
        let is_new = self.records.insert_once(USED, &id, verified.remaining + KEPT_LONGER).await?;
        if is_new { Ok(()) } else { Err(failed()) }
    }
}

impl<'a> Credentials<'a> {
    fn of(authorization: Option<&str>, form: &'a Form) -> Result<Self, OAuthError> {
        let (basic_id, basic_secret) = authorization.and_then(basic).transpose()?.unzip();
        let form_id = form.get("client_id").map(|id| id.expose_secret().to_owned());
        let proofs = (basic_secret.flatten(), form.get("client_secret"), assertion(form)?);
        let proof = match proofs {
            (None, None, None) => Proof::None,
            (Some(secret), None, None) => Proof::Secret(secret),
            (None, Some(secret), None) => Proof::Secret(secret.clone()),
            (None, None, Some(assertion)) => Proof::Assertion(assertion),
            // RFC 6749, section 2.3
            _ => return Err(OAuthError::invalid_request("Authenticate the client in one way only.")),
        };
        let claimed_id = match &proof {
            Proof::Assertion(assertion) => assertion.claimed_client(),
            Proof::None | Proof::Secret(_) => None,
        };
        let mut ids = [basic_id, form_id, claimed_id].into_iter().flatten();
        let client_id =
            ids.next().ok_or_else(|| OAuthError::invalid_request("The request needs a client_id."))?;
        if ids.any(|other| other != client_id) {
            return Err(OAuthError::invalid_request("The request names more than one client."));
        }
        Ok(Self { client_id, proof })
    }
}

/// Returns the assertion of the request (RFC 7521, section 4.2).
fn assertion(form: &Form) -> Result<Option<Assertion<'_>>, OAuthError> {
    let Some(jwt) = form.get("client_assertion") else { return Ok(None) };
    if form.get("client_assertion_type").is_none_or(|kind| kind.expose_secret() != assertion::TYPE) {
        return Err(failed());
    }
    Assertion::read(jwt).map(Some).ok_or_else(failed)
}

/// Returns the client id and the secret of the `Basic` scheme (RFC 6749, section 2.3.1); `None` for another scheme, which
/// does not authenticate clients.
fn basic(authorization: &str) -> Option<Result<(String, Option<SecretString>), OAuthError>> {
    let (scheme, encoded) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("basic").then(|| {
        let credentials = basic_credentials(encoded.trim());
        credentials
            .ok_or_else(|| invalid_client("The Authorization header is not valid Basic authentication."))
    })
}

fn basic_credentials(encoded: &str) -> Option<(String, Option<SecretString>)> {
    let decoded = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let (id, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    let secret = form_decoded(secret)?;
    Some((form_decoded(id)?.to_string(), (!secret.is_empty()).then(|| SecretString::from(secret.as_str()))))
}

/// Decodes a value that is encoded as in a form.
fn form_decoded(text: &str) -> Option<Zeroizing<String>> {
    let spaced = Zeroizing::new(text.replace('+', " "));
    Some(Zeroizing::new(percent_decode_str(&spaced).decode_utf8().ok()?.into_owned()))
}

/// Answers for a client that does not exist, in the same time and words as for a wrong secret if there is a secret.
fn unknown_client(proof: &Proof) -> OAuthError {
    match proof {
        Proof::None => invalid_client("This client is not known. Register it again."),
        Proof::Secret(secret) => {
            let _ = SecretHash::of_none().is_of(secret);
            failed()
        }
        Proof::Assertion(_) => failed(),
    }
}

fn failed() -> OAuthError {
    invalid_client("The client could not be authenticated.")
}

fn invalid_client(description: &'static str) -> OAuthError {
    OAuthError { status: 401, code: "invalid_client", description, retry_after: None, ended: None }
}

#[cfg(test)]
mod tests;
