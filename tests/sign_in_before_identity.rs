//! Finding out who somebody is before there is a record, and the sign-in page of a hosted server.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use bondmcp_server::{
    account::{Account, Accounts, Authenticated, Error, Owner, RequiredCredential},
    bondmcp::wire::CreateApiKey,
    listener::{self, Bounds},
    sandbox::{Fault, Plan, RunningSandbox},
    secret::SecretString,
    sign_in::{
        self, LIFETIME, Options, Pages, Pending, Place as PagePlace, Request, SignIn, State, UnknownSignIn,
        page,
    },
};
use common::{EMAIL, Place, accounts, like_the_seed, random_password, sandbox, secrets, within};
use reqwest::{
    RequestBuilder, Response, StatusCode,
    header::{HOST, ORIGIN, SET_COOKIE},
};
use serde_json::json;
use tokio::net::TcpListener;

const LOGIN: &str = "POST /auth/login";
const LOGOUT: &str = "POST /auth/logout";

const ORIGIN_OF_PAGES: &str = "https://mcp.example.com";
const HOST_OF_PAGES: &str = "mcp.example.com";

/// Somebody else, with an account of their own.
const OTHER_EMAIL: &str = "grace@example.com";

struct World {
    sandbox: RunningSandbox,
    place: Place,
    accounts: Accounts,
    other_password: SecretString,
}

impl World {
    async fn new() -> Self {
        let sandbox = sandbox(like_the_seed()).await;
        let place = Place::new(&sandbox);
        let other_password = random_password();
        sandbox.add_account(OTHER_EMAIL, &other_password, Plan::Unlimited, true);
        let (accounts, _) = accounts(&place);
        Self { sandbox, place, accounts, other_password }
    }

    async fn authenticated(&self, email: &str) -> Authenticated {
        let password = if email == EMAIL { &self.place.password } else { &self.other_password };
        within(self.accounts.authenticator().with_password(email, password.clone())).await.unwrap()
    }

    fn subject(&self, name: &str) -> Account {
        self.accounts.open(&Owner::Subject(name.to_owned()))
    }

    /// Whether BondMCP still takes the token that it issued last.
    async fn last_token_works(&self) -> bool {
        let token = self.sandbox.secrets_issued().pop().unwrap();
        let me = reqwest::Client::new().get(format!("{}/auth/me", self.place.base_url));
        within(me.bearer_auth(secrets::text(&token)).send()).await.unwrap().status().is_success()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_is_authenticated_without_a_record_and_ended_if_nobody_adopts_it() {
    let world = World::new().await;
    let somebody = world.authenticated(EMAIL).await;
    assert_eq!(somebody.email(), Some(EMAIL));
    assert!(somebody.user_id().is_some());
    assert!(!world.place.data_dir().join("vault.db").exists());
    assert!(world.last_token_works().await);

    drop(somebody);
    within(world.sandbox.faults().arrived(LOGOUT, 1)).await;
    within(world.accounts.close()).await;
    assert!(!world.last_token_works().await);
    let typed = secrets::text(&world.place.password);
    assert_eq!(world.accounts.redactor().redact(typed), typed, "nothing is left to look for");
    assert!(!world.place.data_dir().join("vault.db").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_before_bondmcp_answers_leaves_no_session() {
    let world = World::new().await;
    world.sandbox.faults().next(LOGIN, Fault::Hold);
    let authenticator = world.accounts.authenticator();
    let (password, faults) = (world.place.password.clone(), world.sandbox.faults());
    tokio::select! {
        _ = authenticator.with_password(EMAIL, password) => panic!("BondMCP has not answered"),
        () = within(faults.arrived(LOGIN, 1)) => {}
    }
    faults.release();
    within(faults.arrived(LOGOUT, 1)).await;
    within(world.accounts.close()).await;
    assert!(!world.last_token_works().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_adopts_who_was_authenticated() {
    let world = World::new().await;
    let account = world.subject("ada");
    let somebody = world.authenticated(EMAIL).await;
    let user = somebody.user_id().unwrap().to_owned();
    within(account.adopt(somebody, false)).await.unwrap();
    let status = account.status().await.unwrap();
    assert_eq!((status.email.as_deref(), status.user_id.as_deref()), (Some(EMAIL), Some(&*user)));
    assert_eq!(within(account.list_models(false)).await.unwrap().models.len(), 3);
    assert!(!world.subject("grace").status().await.unwrap().signed_in);
    within(world.accounts.close()).await;
    assert_eq!((world.sandbox.count(LOGIN), world.sandbox.count(LOGOUT)), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_adopts_its_own_user_only() {
    let world = World::new().await;
    let account = world.subject("ada");
    within(account.adopt(world.authenticated(EMAIL).await, false)).await.unwrap();

    let somebody_else = world.authenticated(OTHER_EMAIL).await;
    assert!(matches!(within(account.adopt(somebody_else, false)).await, Err(Error::AnotherUser)));
    within(world.sandbox.faults().arrived(LOGOUT, 1)).await;
    // Nobody can tell whose key it is.
    let wanted = CreateApiKey { name: "mine".to_owned(), description: None, permissions: vec![] };
    within(account.create_key(wanted)).await.unwrap();
    let key = world.sandbox.secrets_issued().pop().unwrap();
    assert!(matches!(within(account.use_own_key(key)).await, Err(Error::AnotherUser)));
    // BondMCP does not say who it is.
    let tokens = json!({"access_token": "a-token-of-nobody", "token_type": "bearer", "expires_in": 3600});
    world.sandbox.faults().next(LOGIN, Fault::Answer(tokens));
    let unknown = world.authenticated(EMAIL).await;
    assert_eq!(unknown.user_id(), None);
    assert!(matches!(within(account.adopt(unknown, false)).await, Err(Error::AnotherUser)));
    within(world.sandbox.faults().arrived(LOGOUT, 2)).await;

    assert_eq!(account.status().await.unwrap().email.as_deref(), Some(EMAIL));
    assert_eq!(within(account.list_models(true)).await.unwrap().models.len(), 3);
    // Signing out does not make the account anybody's.
    within(account.sign_out(true)).await.unwrap();
    let somebody_else = world.authenticated(OTHER_EMAIL).await;
    assert!(matches!(within(account.adopt(somebody_else, false)).await, Err(Error::AnotherUser)));
    within(account.adopt(world.authenticated(EMAIL).await, false)).await.unwrap();
    within(world.accounts.close()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_be_stored_is_ended() {
    let world = World::new().await;
    let somebody = world.authenticated(EMAIL).await;
    // The vault's directory cannot be made.
    std::fs::write(world.place.data_dir(), "a file").unwrap();
    assert!(matches!(within(world.subject("ada").adopt(somebody, false)).await, Err(Error::Vault(_))));
    within(world.sandbox.faults().arrived(LOGOUT, 1)).await;
    within(world.accounts.close()).await;
    assert!(!world.last_token_works().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_types_is_redacted_while_it_is_in_use_and_tells_owners_nothing() {
    let world = World::new().await;
    let typed = secrets::text(&world.place.password).to_owned();
    let (process, owner) = (world.accounts.redactor(), world.subject("grace"));
    assert_eq!(process.redact(&typed), typed);

    let somebody = world.authenticated(EMAIL).await;
    let token = secrets::text(&world.sandbox.secrets_issued().pop().unwrap()).to_owned();
    for secret in [&typed, &token] {
        assert_eq!(process.redact(&format!("a {secret} b")), "a [redacted] b");
    }
    assert_eq!(owner.redactor().redact(&typed), typed, "or a guess could be tested");

    within(world.subject("ada").adopt(somebody, false)).await.unwrap();
    assert_eq!(world.subject("ada").redactor().redact(&typed), "[redacted]");
}

/// The pages of a hosted server behind a proxy that ends TLS. The browser is a client of what stands behind the proxy.
struct Hosted {
    world: World,
    pages: Pages,
    address: std::net::SocketAddr,
    http: reqwest::Client,
}

impl Hosted {
    async fn new() -> Self {
        let pages = Pages::new(PagePlace::public(ORIGIN_OF_PAGES.parse().unwrap()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let bounds = Bounds { connections: 16, head_timeout: Duration::from_secs(10) };
        let router = page::router(pages.clone());
        tokio::spawn(listener::serve(listener, router, bounds, std::future::pending()));
        Self { world: World::new().await, pages, address, http: reqwest::Client::new() }
    }

    fn options(&self) -> Options {
        Options {
            public: Some(self.pages.clone()),
            verification_poll: Duration::from_millis(5),
            ..Options::default()
        }
    }

    /// Starts the sign-in of a subject.
    async fn begin(&self, subject: &str) -> (SignIn, Arc<Pending>) {
        let sign_in = SignIn::new(self.world.subject(subject), self.options());
        let pending = within(sign_in.begin(request())).await.unwrap();
        (sign_in, pending)
    }

    fn begin_unknown(&self) -> UnknownSignIn {
        let authenticator = self.world.accounts.authenticator();
        UnknownSignIn::begin(&self.pages, authenticator, request(), &self.options()).unwrap()
    }

    /// Returns the address behind the proxy of a page's address.
    fn behind(&self, url: &str) -> String {
        url.replace(ORIGIN_OF_PAGES, &format!("http://{}", self.address))
    }

    async fn get(&self, url: &str) -> Response {
        within(self.http.get(self.behind(url)).header(HOST, HOST_OF_PAGES).send()).await.unwrap()
    }

    async fn page(&self, url: &str) -> String {
        // The address of BondMCP is not the page's; here it is that of the sandbox.
        self.get(url).await.text().await.unwrap().replace(&self.world.place.base_url, "BASE_URL")
    }

    async fn form_token(&self, url: &str) -> String {
        let page = self.page(url).await;
        let (_, rest) = page.split_once(r#"name="form_token" value=""#).unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    }

    /// Returns a sign-in form as a browser sends it.
    fn form(&self, url: &str, form_token: &str, email: &str, password: &SecretString) -> RequestBuilder {
        self.form_to("sign-in", url, form_token, email, password)
    }

    fn form_to(
        &self,
        way: &str,
        url: &str,
        form_token: &str,
        email: &str,
        password: &SecretString,
    ) -> RequestBuilder {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("form_token", form_token)
            .append_pair("email", email)
            .append_pair("password", secrets::text(password))
            .append_pair("remember", "yes");
        self.http
            .post(format!("{}/{way}", self.behind(url)))
            .header(HOST, HOST_OF_PAGES)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.finish())
    }

    async fn sign_in(&self, url: &str, email: &str) -> Response {
        let world = &self.world;
        let password = if email == EMAIL { &world.place.password } else { &world.other_password };
        let form = self.form(url, &self.form_token(url).await, email, password);
        within(form.header(ORIGIN, ORIGIN_OF_PAGES).send()).await.unwrap()
    }
}

fn request() -> Request {
    Request::new(RequiredCredential::Api)
}

/// Words for a page on the person's own computer.
const LOCAL_WORDS: [&str; 9] = [
    "computer",
    "terminal",
    "127.0.0.1",
    "localhost",
    "Profile",
    "Stored in",
    "vault.db",
    "Keep me signed in",
    "has ended",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_hosted_server_stands_under_its_public_origin() {
    let hosted = Hosted::new().await;
    let (_sign_in, pending) = hosted.begin("ada").await;
    let url = pending.url();
    assert!(pending.is_public() && url.starts_with(&format!("{ORIGIN_OF_PAGES}/sign-in/")), "{url}");
    let answer = hosted.get(url).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let headers = answer.headers();
    assert!(headers.get(SET_COOKIE).is_none());
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-frame-options"], "DENY");
    let page = answer.text().await.unwrap();
    assert!(page.contains(pending.code()) && page.contains(HOST_OF_PAGES), "{page}");
    for path in ["", "/create", "/key", "/demo"] {
        let page = hosted.page(&format!("{url}{path}")).await;
        for word in LOCAL_WORDS {
            assert!(!page.contains(word), "{path}: {word}");
        }
        assert!(!page.contains("API key</a>") && !page.contains(r#"name="key""#), "{path}");
    }
    // Everything that the page names is below the public path.
    let links = page
        .split(['"', '\''])
        .filter(|text| text.starts_with('/') && !text.contains('>'))
        .collect::<Vec<_>>();
    assert!(links.len() > 3 && links.iter().all(|link| link.starts_with("/sign-in/")), "{links:?}");
    let style = hosted.get(&format!("{ORIGIN_OF_PAGES}/sign-in/style.css")).await;
    assert_eq!(style.status(), StatusCode::OK);

    let answer = hosted.sign_in(url, EMAIL).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.text().await.unwrap().contains("You are signed in"));
    assert_eq!(within(pending.finished(LIFETIME)).await, State::SignedIn { email: Some(EMAIL.into()) });
    let account = hosted.world.subject("ada");
    assert_eq!(account.status().await.unwrap().email.as_deref(), Some(EMAIL));
    // No password is stored on a server that is not the person's own.
    hosted.world.sandbox.expire_tokens();
    assert!(matches!(within(account.list_models(true)).await, Err(Error::SignInRequired { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_says_about_its_host_decides_nothing() {
    let hosted = Hosted::new().await;
    let (_sign_in, pending) = hosted.begin("ada").await;
    let url = pending.url();
    let address = hosted.address.to_string();
    for host in [&*address, "evil.example", "mcp.example.com:8443", "mcp.example.com.evil.example"] {
        let request = hosted.http.get(hosted.behind(url)).header(HOST, host);
        let request =
            request.header("x-forwarded-host", HOST_OF_PAGES).header("forwarded", "host=mcp.example.com");
        let answer = within(request.send()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{host}");
        let told = answer.text().await.unwrap();
        assert_eq!(told, "This page is served at https://mcp.example.com only.");
    }
    let forwarded = hosted.http.get(hosted.behind(url)).header(HOST, HOST_OF_PAGES);
    let page =
        forwarded.header("x-forwarded-host", "evil.example").header("x-forwarded-proto", "http").send();
    assert!(!within(page).await.unwrap().text().await.unwrap().contains("evil.example"));

    let token = hosted.form_token(url).await;
    let form = || hosted.form(url, &token, EMAIL, &hosted.world.place.password);
    let forms = [
        form(),
        form().header(ORIGIN, "null"),
        form().header(ORIGIN, "http://mcp.example.com"),
        form().header(ORIGIN, "https://evil.example"),
        form().header(ORIGIN, format!("http://{address}")),
        form().header(ORIGIN, ORIGIN_OF_PAGES).header("sec-fetch-site", "cross-site"),
        form().header(ORIGIN, ORIGIN_OF_PAGES).header("sec-fetch-site", "same-site"),
    ];
    for form in forms {
        assert_eq!(within(form.send()).await.unwrap().status(), StatusCode::FORBIDDEN);
    }
    // The processes of one computer prove themselves to each other; on the internet there is nobody to do so.
    let join = hosted.http.post(format!("http://{address}/sign-in/join")).header(HOST, HOST_OF_PAGES);
    let join = within(join.header(ORIGIN, ORIGIN_OF_PAGES).send()).await.unwrap();
    assert_ne!(join.status(), StatusCode::OK);
    assert_eq!(hosted.world.sandbox.count(LOGIN), 0);
    assert_eq!(pending.state(), State::Open);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_is_found_by_its_id_and_serves_its_owner_alone() {
    let hosted = Hosted::new().await;
    let (_ada, for_ada) = hosted.begin("ada").await;
    let (_grace, for_grace) = hosted.begin("grace").await;
    assert_ne!((for_ada.url(), for_ada.code()), (for_grace.url(), for_grace.code()));
    assert!(hosted.page(for_ada.url()).await.contains(for_ada.code()));
    assert!(hosted.page(for_grace.url()).await.contains(for_grace.code()));
    for unknown in ["x", for_ada.name(), &for_ada.url()[ORIGIN_OF_PAGES.len() + "/sign-in/".len() + 1..]] {
        let answer = hosted.get(&format!("{ORIGIN_OF_PAGES}/sign-in/{unknown}")).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{unknown}");
    }
    // A form of one page is not accepted by the other.
    let token = hosted.form_token(for_ada.url()).await;
    let form = hosted.form(for_grace.url(), &token, EMAIL, &hosted.world.place.password);
    let answer = within(form.header(ORIGIN, ORIGIN_OF_PAGES).send()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);

    assert_eq!(hosted.sign_in(for_grace.url(), OTHER_EMAIL).await.status(), StatusCode::OK);
    assert_eq!(for_ada.state(), State::Open);
    assert!(!hosted.world.subject("ada").status().await.unwrap().signed_in);
    let grace = hosted.world.subject("grace").status().await.unwrap();
    assert_eq!(grace.email.as_deref(), Some(OTHER_EMAIL));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_cannot_complete_the_sign_in_of_a_subject() {
    let hosted = Hosted::new().await;
    let account = hosted.world.subject("ada");
    within(account.adopt(hosted.world.authenticated(EMAIL).await, false)).await.unwrap();
    within(account.sign_out(false)).await.unwrap();
    let (_sign_in, pending) = hosted.begin("ada").await;

    let answer = hosted.sign_in(pending.url(), OTHER_EMAIL).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let page = answer.text().await.unwrap();
    assert!(page.contains("This account belongs to another BondMCP user."), "{page}");
    assert!(!page.contains(EMAIL), "the page tells nobody whose account it is");
    within(hosted.world.sandbox.faults().arrived(LOGOUT, 2)).await;
    assert_eq!(pending.state(), State::Open);
    assert!(!account.status().await.unwrap().signed_in);

    assert_eq!(hosted.sign_in(pending.url(), EMAIL).await.status(), StatusCode::OK);
    assert!(account.status().await.unwrap().signed_in);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_for_nobody_hands_over_who_has_signed_in() {
    let hosted = Hosted::new().await;
    let unknown = hosted.begin_unknown();
    let pending = Arc::clone(&unknown.pending);
    let page = hosted.page(pending.url()).await;
    // Nothing has shown the person a code to compare.
    assert!(!page.contains(pending.code()) && !page.contains("compare"), "{page}");
    for word in LOCAL_WORDS {
        assert!(!page.contains(word), "{word}");
    }
    let wrong =
        hosted.form(pending.url(), &hosted.form_token(pending.url()).await, EMAIL, &"wrong-one-1".into());
    let wrong = within(wrong.header(ORIGIN, ORIGIN_OF_PAGES).send()).await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(hosted.sign_in(pending.url(), EMAIL).await.status(), StatusCode::OK);
    let somebody = within(unknown.outcome()).await.unwrap();
    assert_eq!(somebody.email(), Some(EMAIL));
    assert!(!hosted.world.place.data_dir().join("vault.db").exists(), "there is no record yet");

    let account = hosted.world.subject(somebody.user_id().unwrap());
    within(account.adopt(somebody, false)).await.unwrap();
    assert!(account.status().await.unwrap().signed_in);
    within(hosted.world.accounts.close()).await;
    assert_eq!(hosted.world.sandbox.count(LOGOUT), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_new_creates_an_account_on_a_page_for_nobody() {
    let hosted = Hosted::new().await;
    let unknown = hosted.begin_unknown();
    let url = unknown.pending.url().to_owned();
    let token = hosted.form_token(&url).await;
    let form = hosted.form_to("create", &url, &token, "new@example.com", &"a-new-password-1".into());
    let answer = within(form.header(ORIGIN, ORIGIN_OF_PAGES).send()).await.unwrap();
    let page = answer.text().await.unwrap();
    assert!(page.contains("Check your e-mail"), "{page}");
    hosted.world.sandbox.verify("new@example.com");
    assert_eq!(within(unknown.outcome()).await.unwrap().email(), Some("new@example.com"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_signed_in_when_nobody_waits_any_more() {
    let hosted = Hosted::new().await;
    let unknown = hosted.begin_unknown();
    let pending = Arc::clone(&unknown.pending);
    drop(unknown);
    let answer = hosted.sign_in(pending.url(), EMAIL).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(!answer.text().await.unwrap().contains("You are signed in"));
    within(hosted.world.sandbox.faults().arrived(LOGOUT, 1)).await;
    assert!(!hosted.world.last_token_works().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_wrong_passwords_end_a_page_for_nobody_too() {
    let hosted = Hosted::new().await;
    let unknown = hosted.begin_unknown();
    let url = unknown.pending.url().to_owned();
    let token = hosted.form_token(&url).await;
    for _ in 0..5 {
        let form = hosted.form(&url, &token, EMAIL, &"wrong-password-1".into());
        within(form.header(ORIGIN, ORIGIN_OF_PAGES).send()).await.unwrap();
    }
    assert!(within(unknown.outcome()).await.is_none());
    assert_eq!(hosted.get(&url).await.status(), StatusCode::GONE);
}

#[tokio::test(start_paused = true)]
async fn pages_are_bounded_and_each_ends_by_itself() {
    let sandbox = sandbox(like_the_seed()).await;
    let (accounts, _) = accounts(&Place::new(&sandbox));
    let pages = Pages::new(PagePlace::public(ORIGIN_OF_PAGES.parse().unwrap()));
    let begin = |lifetime| {
        let options = Options { public: Some(pages.clone()), lifetime, ..Options::default() };
        UnknownSignIn::begin(&pages, accounts.authenticator(), request(), &options)
    };
    let short = begin(Duration::from_mins(1)).unwrap();
    let mut long = vec![];
    loop {
        match begin(LIFETIME) {
            Ok(page) => long.push(page),
            Err(sign_in::Error::TooManyPages) => break,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(long.len(), 1023);
    assert!(short.outcome().await.is_none());
    // It is shown for a little longer.
    tokio::time::sleep(Duration::from_secs(11)).await;
    long.push(begin(LIFETIME).unwrap());
    assert!(matches!(begin(LIFETIME), Err(sign_in::Error::TooManyPages)));
    for page in long {
        assert!(page.outcome().await.is_none());
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(begin(LIFETIME).is_ok());
}
