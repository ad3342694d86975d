//! Browsers: each has a cookie that binds what began in it to it (`__Host-`, `Secure`, `HttpOnly`, `SameSite=Lax`;
//! without the prefix and `Secure` on loopback over http), and a record of who has signed in in it, for ten minutes.

use std::time::Duration;

use axum::response::Response;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};
use serde::{Deserialize, Serialize};

use super::{connections, person::Person};
use crate::{
    account::{Authenticated, Authenticator, KeptSession, KeptSessionView},
    clock::Timestamp,
    oauth::Subject,
    secret::{self, ExposeSecret as _, SecretString},
    sign_in::public::{PublicPage, PublicPages, Purpose},
    vault::{self, RecordKind, Records, Versioned},
};

const KIND: RecordKind = RecordKind::new("browser");

/// Time for which somebody is signed in in a browser.
const SIGNED_IN: Duration = Duration::from_mins(10);

/// Length of each half of a cookie's value: 256 bits in base64url.
const HALF: usize = 43;

/// The browsers that have a page open. Clones share them, as do all processes with the same vault.
#[derive(Clone, Debug)]
pub struct Browsers {
    records: Records,
    authenticator: Authenticator,
    pages: PublicPages,
    cookie: Cookie,
}

/// The cookie's name and attributes.
#[derive(Clone, Copy, Debug)]
struct Cookie {
    name: &'static str,
    attributes: &'static str,
}

/// A browser, by its cookie.
#[derive(Clone, Debug)]
pub struct Browser {
    /// Stays the same when somebody signs in.
    name: SecretString,
    /// Changes when somebody signs in, so that who knew the cookie before is not signed in (session fixation).
    secret: SecretString,
}

/// Who has signed in in a browser.
#[derive(Deserialize)]
struct SignedIn {
    subject: Subject,
    email: String,
    expires_at: Timestamp,
    session: Option<KeptSession>,
}

/// [`SignedIn`] with its secrets exposed; used only for encryption. The session is `None` once it was taken.
#[derive(Serialize)]
struct SignedInView<'a> {
    subject: &'a Subject,
    email: &'a str,
    expires_at: Timestamp,
    session: Option<KeptSessionView<'a>>,
}

impl Browser {
    fn new() -> Self {
        Self { name: secret::random(), secret: secret::random() }
    }

    /// Reads the value of a cookie.
    fn parse(value: &str) -> Option<Self> {
        let is_half = |half: &str| {
            half.len() == HALF
                && half.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        let (name, secret) = value.split_once('.')?;
        (is_half(name) && is_half(secret)).then(|| Self { name: name.into(), secret: secret.into() })
    }

    /// Names the browser in our records, such as that of an authorization which began in it. It stays the same when
    /// somebody signs in in the browser, and gives no access.
    #[must_use]
    pub fn binding(&self) -> String {
        secret::digest(self.name.expose_secret())
    }

    /// Names the browser as it is since somebody has signed in. Whoever knew its cookie before does not know this.
    #[must_use]
    pub fn sign_in_binding(&self) -> String {
        secret::digest(self.secret.expose_secret())
    }
}

impl Browsers {
    #[must_use]
    pub fn new(records: Records, pages: PublicPages) -> Self {
        let cookie = if pages.place().origin().starts_with("https://") {
            Cookie { name: "__Host-bondmcp", attributes: "; Path=/; Secure; HttpOnly; SameSite=Lax" }
        } else {
            Cookie { name: "bondmcp", attributes: "; Path=/; HttpOnly; SameSite=Lax" }
        };
        Self { records, authenticator: pages.authenticator().clone(), pages, cookie }
    }

    /// Returns the browser that sent these headers; `None` if it has no cookie yet.
    pub fn of(&self, headers: &HeaderMap) -> Option<Browser> {
        let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut cookies =
            lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        cookies.find(|(name, _)| *name == self.cookie.name).and_then(|(_, value)| Browser::parse(value))
    }

    /// Makes a cookie for a browser without one; the second value is that of `Set-Cookie`.
    #[must_use]
    pub fn new_browser(&self) -> (Browser, String) {
        let browser = Browser::new();
        let cookie = self.set_cookie(&browser);
        (browser, cookie)
    }

    /// Returns the browser `known`, or a new one with the value of `Set-Cookie`.
    pub(super) fn known_or_new(&self, known: Option<Browser>) -> (Browser, Option<String>) {
        if let Some(browser) = known {
            return (browser, None);
        }
        let (browser, cookie) = self.new_browser();
        (browser, Some(cookie))
    }

    fn set_cookie(&self, browser: &Browser) -> String {
        let Cookie { name, attributes } = self.cookie;
        let (first, second) = (browser.name.expose_secret(), browser.secret.expose_secret());
        format!("{name}={first}.{second}{attributes}")
    }

    /// Returns who has signed in in the browser.
    pub async fn person(&self, browser: &Browser) -> Result<Option<Person>, vault::Error> {
        let found = self.read(browser).await?;
        Ok(found.map(|Versioned { value, .. }| Person { subject: value.subject, email: value.email }))
    }

    /// Returns who has signed in in the browser, with the session at BondMCP that was opened in it, which stays there.
    pub(super) async fn session(
        &self,
        browser: &Browser,
    ) -> Result<Option<(Subject, KeptSession)>, vault::Error> {
        let found = self.read(browser).await?;
        Ok(found.and_then(|Versioned { value, .. }| Some((value.subject, value.session?))))
    }

    /// Takes the session at BondMCP that was opened in the browser, for a grant to adopt. It can be taken once; then the
    /// person is no longer signed in in it.
    pub async fn take_session(
        &self,
        browser: &Browser,
    ) -> Result<Option<(Person, Authenticated)>, vault::Error> {
        let Some(Versioned { value, version }) = self.read(browser).await? else { return Ok(None) };
        let SignedIn { subject, email, expires_at, session } = value;
        let Some(session) = session else { return Ok(None) };
        // Written before it is deleted: of two that take it, one gets it.
        let taken = SignedInView { subject: &subject, email: &email, expires_at, session: None };
        let id = secret::digest(browser.secret.expose_secret());
        match self.records.write(KIND, &id, Some(version), &taken, Some(SIGNED_IN)).await {
            Ok(version) => {
                let authenticated = self.authenticator.restore(session);
                if let Err(error) = self.records.delete(KIND, &id, version).await {
                    tracing::debug!(%error, "the record of a browser is left to expire");
                }
                Ok(Some((Person { subject, email }, authenticated)))
            }
            Err(vault::Error::Conflict) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Signs out in the browser and ends the session at BondMCP ("not you?").
    pub async fn sign_out(&self, browser: &Browser) -> Result<(), vault::Error> {
        // Dropped, the session is ended.
        self.take_session(browser).await.map(drop)
    }

    /// Starts a sign-in in the browser; returns its page, which goes on to `next`, a path of this server, and shows the
    /// `reference` of the authorization.
    pub async fn begin_sign_in(
        &self,
        browser: &Browser,
        next: &str,
        reference: Option<&str>,
    ) -> Result<PublicPage, vault::Error> {
        let next = if is_own_path(next) { next } else { connections::PATH }.to_owned();
        let reference = reference.map(ToOwned::to_owned);
        self.pages.open(Purpose::Browser { browser: browser.binding(), next, reference }, String::new()).await
    }

    /// Returns the sign-in page with this id while it can be used.
    pub(super) async fn open_sign_in(&self, id: &SecretString) -> Result<Option<PublicPage>, vault::Error> {
        Ok(self.pages.find(id).await?.filter(PublicPage::is_open))
    }

    /// Notes who has signed in on the page `page_id` in the browser. Returns the new value of `Set-Cookie`: the browser
    /// is known by another cookie from now on. A form that was sent twice gives the same one twice.
    pub(super) async fn sign_in(
        &self,
        browser: &Browser,
        page_id: &SecretString,
        person: &Person,
        authenticated: Authenticated,
    ) -> Result<String, vault::Error> {
        let secret = self.next_secret(browser, page_id, &person.subject);
        let known = Browser { name: browser.name.clone(), secret };
        let id = secret::digest(known.secret.expose_secret());
        loop {
            let former = self.records.read::<SignedIn>(KIND, &id).await?;
            let view = SignedInView {
                subject: &person.subject,
                email: &person.email,
                expires_at: self.authenticator.now() + SIGNED_IN,
                session: authenticated.to_be_kept(),
            };
            let version = former.as_ref().map(|former| former.version);
            match self.records.write(KIND, &id, version, &view, Some(SIGNED_IN)).await {
                Ok(_) => {
                    authenticated.keep();
                    if let Some(session) = former.and_then(|former| former.value.session) {
                        drop(self.authenticator.restore(session));
                    }
                    break;
                }
                Err(vault::Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        // Whoever was signed in in it before is not any longer.
        if let Err(error) = self.sign_out(browser).await {
            tracing::warn!(%error, "an earlier sign-in in a browser is left to expire");
        }
        Ok(self.set_cookie(&known))
    }

    /// A value for the forms of this browser, so that no other page can submit them.
    #[must_use]
    pub fn form_token(&self, browser: &Browser) -> SecretString {
        let (key, name) = (browser.secret.expose_secret(), browser.name.expose_secret());
        URL_SAFE_NO_PAD.encode(*secret::mac(key.as_bytes(), &[name.as_bytes(), b"form"])).into()
    }

    #[must_use]
    pub fn is_form_token(&self, browser: &Browser, given: &SecretString) -> bool {
        secret::same(&self.form_token(browser), given)
    }

    /// Returns the secret of the browser's cookie after this person has signed in on a page. Who knows the cookie before
    /// cannot compute it, nor learn it by signing in as somebody else.
    fn next_secret(&self, browser: &Browser, page_id: &SecretString, subject: &Subject) -> SecretString {
        let (key, _) = self.records.vault().derived_keys(b"the cookie of a browser after a sign-in");
        let parts = [browser.secret.expose_secret(), page_id.expose_secret(), subject.as_str()];
        URL_SAFE_NO_PAD.encode(*secret::mac(&*key, &parts.map(str::as_bytes))).into()
    }

    /// Returns the record of somebody who is still signed in in the browser.
    async fn read(&self, browser: &Browser) -> Result<Option<Versioned<SignedIn>>, vault::Error> {
        let now = self.authenticator.now();
        let found =
            self.records.read::<SignedIn>(KIND, &secret::digest(browser.secret.expose_secret())).await?;
        Ok(found.filter(|found| found.value.session.is_some() && now < found.value.expires_at))
    }
}

/// Adds `Set-Cookie` with the value `cookie`.
pub(super) fn with_cookie(mut response: Response, cookie: Option<&str>) -> Response {
    if let Some(cookie) = cookie.and_then(|cookie| HeaderValue::from_str(cookie).ok()) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

/// Whether a sign-in may go on to this path: the browser must take it for one of this server (open redirect; RFC 9700,
/// section 4.11).
fn is_own_path(path: &str) -> bool {
    (path == connections::PATH || path.starts_with("/authorize/"))
        && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}
