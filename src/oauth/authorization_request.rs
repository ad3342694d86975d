//! Authorization requests (RFC 6749, section 4.1.1; PKCE: RFC 7636; resource: RFC 8707), their codes' way back to the
//! client (RFC 6749, section 4.1.2; issuer: RFC 9207).

use serde::{Deserialize, Serialize};
use url::{Url, form_urlencoded};
use uuid::Uuid;

use super::{
    AuthorizationErrorCode, AuthorizationServer, Client, ClientError, Grant, LOOPBACK_HOSTS, Scopes,
};
use crate::{secret::ExposeSecret as _, vault};

/// A sound authorization request.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct AuthorizationRequest {
    /// Without its redirect URIs: they are checked, and a request is stored at each of its steps.
    pub client: Client,
    /// One of the client's redirect URIs, as the request has it.
    pub redirect_uri: String,
    pub state: Option<String>,
    /// What was asked for; all where nothing was.
    pub scopes: Scopes,
    /// Challenge of PKCE with S256.
    pub code_challenge: String,
    /// Names the authorization in logs and on its pages.
    pub reference: String,
}

/// What is wrong with an authorization request.
#[derive(Clone, Debug)]
pub enum RequestError {
    /// The client or its redirect URI is not sound, so the person is told on a page. The text is our own.
    Page(&'static str),
    /// The client is told at this address. The reason is our own text.
    Redirect {
        to: Url,
        reason: &'static str,
    },
    Store(vault::Error),
}

impl AuthorizationRequest {
    /// The host of the redirect URI, with a port that is not the default one; or its scheme with the colon where that is
    /// an app's own: who gets the code. A port on loopback is any program's, and changes (RFC 8252, section 7.3).
    #[must_use]
    pub fn redirect_host(&self) -> String {
        let Ok(uri) = Url::parse(&self.redirect_uri) else { return String::new() };
        let Some(host) = uri.host_str().filter(|_| matches!(uri.scheme(), "https" | "http")) else {
            return format!("{}:", uri.scheme());
        };
        match uri.port() {
            Some(port) if !LOOPBACK_HOSTS.contains(&host) => format!("{host}:{port}"),
            _ => host.to_owned(),
        }
    }
}

impl AuthorizationServer {
    /// Checks the query of a request to `/authorize`. Until client and redirect URI are known to be sound, nothing is
    /// redirected (RFC 6749, section 4.1.2.1).
    pub async fn authorization_request(&self, query: &str) -> Result<AuthorizationRequest, RequestError> {
        let query = Query::parse(query).ok_or(RequestError::Page("The request is too long."))?;
        let (client, redirect_uri) = self.redirect_target(&query).await?;
        let state = query.one("state");
        let to_client = |(error, description): Refusal| {
            let state = state.clone().ok().flatten();
            let error = [("error", error.as_str()), ("error_description", description)];
            let to = self.answer(&redirect_uri, state.as_deref(), &error);
            RequestError::Redirect { to, reason: description }
        };
        let checked = self.checked(&query).and_then(|checked| Ok((checked, state.clone()?)));
        let ((scopes, code_challenge), state) = checked.map_err(to_client)?;
        let reference = new_reference();
        let client = Client { redirect_uris: Vec::new(), ..client };
        Ok(AuthorizationRequest { client, redirect_uri, state, scopes, code_challenge, reference })
    }

    /// Makes a code for the grant; returns the address that takes it to the client.
    pub async fn authorization_response(
        &self,
        request: &AuthorizationRequest,
        grant: &Grant,
    ) -> Result<Url, vault::Error> {
        let code = self.new_code(request, grant).await?;
        let code = [("code", code.expose_secret())];
        Ok(self.answer(&request.redirect_uri, request.state.as_deref(), &code))
    }

    /// Returns the address that tells the client of an error.
    #[must_use]
    pub fn error_response(&self, request: &AuthorizationRequest, error: AuthorizationErrorCode) -> Url {
        self.answer(&request.redirect_uri, request.state.as_deref(), &[("error", error.as_str())])
    }

    /// Finds the client and where it is to be answered. A client with one redirect URI need not name it (RFC 6749,
    /// section 3.1.2.3).
    async fn redirect_target(&self, query: &Query) -> Result<(Client, String), RequestError> {
        let once = |name| query.one(name).map_err(|_| RequestError::Page("The request names two apps."));
        let id = once("client_id")?.ok_or(RequestError::Page("The request does not name the app."))?;
        let given = once("redirect_uri")?;
        let client = self.clients().find(&id, given.as_deref()).await.map_err(|error| match error {
            ClientError::Unknown(text) | ClientError::Document(text) | ClientError::Invalid(text) => {
                RequestError::Page(text)
            }
            ClientError::Store(error) => RequestError::Store(error),
        })?;
        let uri = match (given, &client.redirect_uris[..]) {
            (Some(given), _) if client.allows_redirect(&given) => given,
            (None, [only]) => only.clone(),
            _ => return Err(RequestError::Page(REDIRECT_URI)),
        };
        if Url::parse(&uri).is_err() {
            return Err(RequestError::Page(REDIRECT_URI));
        }
        Ok((client, uri))
    }

    /// Checks what concerns neither the client nor its redirect URI; returns the scopes and the challenge.
    fn checked(&self, query: &Query) -> Result<(Scopes, String), Refusal> {
        use AuthorizationErrorCode::{InvalidRequest, InvalidTarget, UnsupportedResponseType};
        match query.one("response_type")?.as_deref() {
            Some("code") => {}
            Some(_) => return Err((UnsupportedResponseType, "response_type must be code.")),
            None => return Err((InvalidRequest, "response_type is missing.")),
        }
        // Without a method, RFC 7636 means `plain`.
        if query.one("code_challenge_method")?.as_deref() != Some("S256") {
            return Err((InvalidRequest, "code_challenge_method must be S256."));
        }
        let challenge = query.one("code_challenge")?.filter(|challenge| is_challenge(challenge));
        let challenge =
            challenge.ok_or((InvalidRequest, "code_challenge must be a SHA-256 in base64url."))?;
        if !query.all("resource").all(|resource| self.endpoints().is_resource(resource)) {
            return Err((InvalidTarget, "This server does not serve that resource."));
        }
        let scopes = Scopes::parse(&query.one("scope")?.unwrap_or_default()).intersection(self.scopes());
        Ok((if scopes.is_empty() { self.scopes() } else { scopes }, challenge))
    }

    /// Adds the parameters of a response to a redirect URI, with the state and the issuer (RFC 9207).
    #[expect(clippy::expect_used, reason = "a request is sound only if its redirect URI is one")]
    fn answer(&self, redirect_uri: &str, state: Option<&str>, parameters: &[(&str, &str)]) -> Url {
        let mut uri = Url::parse(redirect_uri).expect("a redirect URI that was checked");
        let issuer = self.inner.settings.sends_iss.then_some(("iss", self.endpoints().issuer()));
        let state = state.map(|state| ("state", state));
        uri.query_pairs_mut().extend_pairs(parameters.iter().copied().chain(state).chain(issuer));
        uri
    }
}

/// Longest query. A client id and a redirect URI can have 2 KiB each.
const MAX_QUERY_BYTES: usize = 8 << 10;

const REDIRECT_URI: &str = "The app wants you sent back to an address that it has not registered. Remove this server from the app's settings and add it again.";

/// An error that is told to the client, with our description.
type Refusal = (AuthorizationErrorCode, &'static str);

/// The parameters of a request. Those without a value count as absent (RFC 6749, section 3.1).
struct Query(Vec<(String, String)>);

impl Query {
    /// `None` if it is too long.
    fn parse(query: &str) -> Option<Self> {
        let pairs = || form_urlencoded::parse(query.as_bytes()).into_owned();
        (query.len() <= MAX_QUERY_BYTES)
            .then(|| Self(pairs().filter(|(_, value)| !value.is_empty()).collect()))
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// Returns a parameter that must not occur twice (RFC 6749, section 3.1).
    fn one(&self, name: &str) -> Result<Option<String>, Refusal> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value.map(str::to_owned)),
            _ => Err((AuthorizationErrorCode::InvalidRequest, "A parameter occurs twice.")),
        }
    }
}

/// Whether it looks like the SHA-256 of a verifier in base64url (RFC 7636, section 4.2).
fn is_challenge(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Makes a name for an authorization that a person can read out: 40 random bits, without I, O, 0 and 1.
fn new_reference() -> String {
    const LETTERS: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";
    let random = Uuid::new_v4().into_bytes();
    random[..8].iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}
