//! Client ID Metadata Documents (draft-ietf-oauth-client-id-metadata-document): the id of a client is the URL of a document
//! that describes it.

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{
    Client, ClientKind,
    assertion::Assertion,
    cache::{CacheError, Document},
    display_name,
    fetch::FetchError,
    jwks::KeySet,
    metadata, redirect_uri,
};

/// Longest id, in bytes.
const MAX_ID_BYTES: usize = 512;

/// Largest number of redirect URIs that is looked at.
const MAX_REDIRECT_URIS: usize = 64;

/// What a document says, as far as it counts here.
#[derive(Clone, Debug)]
pub struct ClientDocument {
    name: Option<String>,
    redirect_uris: Vec<String>,
    /// Whether the client may come without authentication.
    pub is_public: bool,
    /// What its assertions are verified with, if it may authenticate with one.
    pub keys: Option<Keys>,
}

/// Keys of a client.
#[derive(Clone, Debug)]
pub enum Keys {
    Inline(KeySet),
    At(Url),
}

/// Client metadata (RFC 7591, section 2; the list: `OpenID` Connect Relying Party Metadata Choices 1.0).
#[derive(Deserialize)]
struct Metadata {
    client_id: String,
    #[serde(default)]
    client_name: Value,
    #[serde(default)]
    redirect_uris: Vec<Value>,
    token_endpoint_auth_method: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    jwks: Option<Value>,
    jwks_uri: Option<String>,
    client_secret: Option<Value>,
    client_secret_expires_at: Option<Value>,
}

/// Returns the URL that a client id is: https with a path, without a user name, a fragment and dot segments, and as
/// normalisation leaves it.
pub fn client_id_url(id: &str) -> Option<Url> {
    let url = Url::parse(id).ok().filter(|url| id.len() <= MAX_ID_BYTES && url.as_str() == id)?;
    (is_plain(&url) && url.path().len() > 1).then_some(url)
}

/// Whether it is https, without a user name and a fragment.
fn is_plain(url: &Url) -> bool {
    url.scheme() == "https"
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none()
}

impl ClientDocument {
    pub fn allows_redirect(&self, redirect_uri: &str) -> bool {
        self.redirect_uris.iter().any(|registered| redirect_uri::matches(registered, redirect_uri))
    }

    /// Whether an assertion may be verified with what the document says, without fetching it again.
    pub fn is_enough_for(&self, assertion: &Assertion) -> bool {
        match &self.keys {
            Some(Keys::Inline(keys)) => assertion.is_for(keys),
            Some(Keys::At(_)) | None => true,
        }
    }

    /// Returns the client with this id, which the document describes.
    pub fn client(&self, id: &str) -> Client {
        Client {
            id: id.to_owned(),
            kind: ClientKind::Document,
            name: self.name.clone(),
            redirect_uris: self.redirect_uris.clone(),
        }
    }
}

impl Document for ClientDocument {
    fn parse(url: &str, body: &[u8]) -> Result<Self, &'static str> {
        let metadata: Metadata = metadata(body).ok_or("The app's metadata document is not valid.")?;
        if metadata.client_id != url {
            return Err("The app's metadata document is for another app.");
        }
        if metadata.client_secret.is_some() || metadata.client_secret_expires_at.is_some() {
            return Err("The app's metadata document has a secret in it.");
        }
        let given = metadata.redirect_uris.iter().take(MAX_REDIRECT_URIS).filter_map(Value::as_str);
        let redirect_uris = redirect_uri::acceptable(given);
        if redirect_uris.is_empty() {
            return Err("The app's metadata document names no usable redirect URI.");
        }
        let methods = metadata.methods();
        let may = |method: &str| methods.iter().any(|name| name == method);
        let is_public = may("none");
        let keys = may("private_key_jwt").then(|| metadata.keys()).flatten();
        if !is_public && keys.is_none() {
            return Err("The app's metadata document names no supported way of authentication.");
        }
        let name = metadata.client_name.as_str().and_then(display_name);
        Ok(Self { name, redirect_uris, is_public, keys })
    }

    fn may_stand_in(&self) -> bool {
        !matches!(self.keys, Some(Keys::Inline(_)))
    }
}

impl Metadata {
    /// Returns how the client may authenticate: the list decides, the single value is only its preference. Where there is
    /// neither, it is public, since it has no secret.
    fn methods(&self) -> Vec<String> {
        let single = || vec![self.token_endpoint_auth_method.clone().unwrap_or("none".to_owned())];
        self.token_endpoint_auth_methods_supported.clone().unwrap_or_else(single)
    }

    fn keys(&self) -> Option<Keys> {
        if let Some(set) = &self.jwks {
            return KeySet::of(set).filter(|keys| !keys.is_empty()).map(Keys::Inline);
        }
        let url = Url::parse(self.jwks_uri.as_deref()?).ok()?;
        is_plain(&url).then_some(Keys::At(url))
    }
}

/// Returns the message for a person when a document cannot be obtained.
pub fn message(error: CacheError) -> &'static str {
    match error {
        CacheError::Unsound(text) => text,
        CacheError::TooOften => "The app's metadata document was fetched too often. Try again in a minute.",
        CacheError::Fetch(FetchError::Unreachable) => {
            "The app's metadata document could not be fetched from a public address. Try again later."
        }
        CacheError::Fetch(FetchError::TimedOut) => {
            "The app's metadata document took too long to fetch. Try again later."
        }
        CacheError::Fetch(FetchError::Status) => {
            "There is no metadata document at the app's address. Tell the app's maker."
        }
        CacheError::Fetch(FetchError::NotJson) => {
            "The app's metadata document is not JSON. Tell the app's maker."
        }
        CacheError::Fetch(FetchError::TooLarge) => {
            "The app's metadata document is too large. Tell the app's maker."
        }
    }
}

#[cfg(test)]
mod tests;
