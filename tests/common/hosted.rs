//! Two people with BondMCP accounts, one vault, and the pages of a hosted server on one or several replicas.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use bondmcp_server::{
    account::{Account, Accounts, Authenticated, Owner, RequiredCredential, Usd},
    clock::Clock,
    config::PublicOrigin,
    hosted,
    listener::{self, Bounds, Workers},
    oauth::{self, AuthorizationServer, Network},
    sandbox::{Plan, RunningSandbox},
    secret::SecretString,
    sign_in::{Demo, Options, Pending, Request, SignIn},
};
use reqwest::{
    RequestBuilder, Response,
    header::{COOKIE, HOST, ORIGIN, SET_COOKIE},
};
use tokio::net::TcpListener;

use super::{
    EMAIL, OTHER_EMAIL, Place, accounts_in, like_the_seed, random_password, sandbox, secrets, within,
};

pub const LOGIN: &str = "POST /auth/login";
pub const LOGOUT: &str = "POST /auth/logout";

pub const ORIGIN_OF_PAGES: &str = "https://mcp.example.com";
pub const HOST_OF_PAGES: &str = "mcp.example.com";

pub struct World {
    pub sandbox: RunningSandbox,
    pub place: Place,
    pub accounts: Accounts,
    pub other_password: SecretString,
    /// The URL of the vault; `None` for SQLite in the place's directory.
    vault: Option<String>,
}

impl World {
    pub async fn new() -> Self {
        Self::over(None).await
    }

    pub async fn over(vault: Option<String>) -> Self {
        let sandbox = sandbox(like_the_seed()).await;
        let place = Place::new(&sandbox);
        let other_password = random_password();
        sandbox.add_account(OTHER_EMAIL, &other_password, Plan::Unlimited, true);
        let (accounts, _) = accounts_in(&place, vault.as_deref());
        Self { sandbox, place, accounts, other_password, vault }
    }

    pub fn password(&self, email: &str) -> &SecretString {
        if email == EMAIL { &self.place.password } else { &self.other_password }
    }

    pub async fn authenticated(&self, email: &str) -> Authenticated {
        let password = self.password(email).clone();
        within(self.accounts.authenticator().with_password(email, password)).await.unwrap()
    }

    pub fn subject(&self, name: &str) -> Account {
        self.accounts.open(&Owner::Subject(name.to_owned()))
    }
}

/// A process of a hosted server, behind a proxy that ends TLS.
pub struct Replica {
    pub accounts: Accounts,
    pub hosted: hosted::Hosted,
    pub address: SocketAddr,
}

impl Replica {
    async fn start(accounts: Accounts, origin: &str, demo: Option<Demo>) -> Self {
        let origin: PublicOrigin = origin.parse().unwrap();
        let vault = accounts.vault().await.unwrap();
        let settings = oauth::Settings::new(origin.clone());
        let opened = AuthorizationServer::open(vault, settings, Network::public(), Clock::system());
        let settings =
            hosted::Settings { origin, default_daily_spend: Usd::from_f64(5.0), daily_spend: None, demo };
        let hosted = hosted::Hosted::new(within(opened).await.unwrap(), accounts.clone(), settings);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let bounds = Bounds { connections: 64, head_timeout: Duration::from_secs(10) };
        tokio::spawn(listener::serve(
            listener,
            hosted.router(),
            bounds,
            Workers::current(),
            std::future::pending(),
        ));
        Self { accounts, hosted, address }
    }

    pub fn options(&self) -> Options {
        Options { public: Some(self.hosted.sign_in_pages().clone()), ..Options::default() }
    }

    /// Starts the sign-in of a subject, as a call on this replica does.
    pub async fn begin(&self, subject: &str) -> (SignIn, Arc<Pending>) {
        let account = self.accounts.open(&Owner::Subject(subject.to_owned()));
        let sign_in = SignIn::new(account, self.options());
        let pending = within(sign_in.begin(request())).await.unwrap();
        (sign_in, pending)
    }
}

/// The pages of a hosted server.
pub struct Hosted {
    pub world: World,
    pub replica: Replica,
    origin: String,
}

impl Hosted {
    pub async fn new() -> Self {
        Self::at(ORIGIN_OF_PAGES, None).await
    }

    pub async fn at(origin: &str, demo: Option<Demo>) -> Self {
        Self::of(World::new().await, origin, demo).await
    }

    pub async fn over(vault: Option<String>) -> Self {
        Self::of(World::over(vault).await, ORIGIN_OF_PAGES, None).await
    }

    async fn of(world: World, origin: &str, demo: Option<Demo>) -> Self {
        let replica = Replica::start(world.accounts.clone(), origin, demo).await;
        Self { world, replica, origin: origin.to_owned() }
    }

    /// Starts another process with the same vault.
    pub async fn another_replica(&self) -> Replica {
        let (accounts, _) = accounts_in(&self.world.place, self.world.vault.as_deref());
        Replica::start(accounts, &self.origin, None).await
    }

    pub async fn begin(&self, subject: &str) -> (SignIn, Arc<Pending>) {
        self.replica.begin(subject).await
    }

    pub fn visitor(&self) -> Visitor {
        Visitor::at(&self.replica)
    }

    /// Begins a sign-in in a new browser, as the page of connections does; returns its page too.
    pub async fn visitor_to_sign_in(&self, next: &str) -> (Visitor, String) {
        let visitor = self.visitor();
        let browsers = self.replica.hosted.browsers();
        let (browser, cookie) = browsers.new_browser();
        visitor.keep(&cookie);
        let path = within(browsers.begin_sign_in(&browser, next, None)).await.unwrap().path();
        (visitor, format!("{}{path}", self.origin))
    }
}

/// A browser, with its cookie, before the proxy.
pub struct Visitor {
    pub http: reqwest::Client,
    address: Mutex<SocketAddr>,
    cookie: Mutex<Option<String>>,
}

impl Visitor {
    pub fn at(replica: &Replica) -> Self {
        Self::before(replica.address)
    }

    pub fn before(address: SocketAddr) -> Self {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { http, address: Mutex::new(address), cookie: Mutex::default() }
    }

    /// From now on the proxy sends its requests to another replica.
    pub fn moves_to(&self, replica: &Replica) {
        *self.address.lock().unwrap() = replica.address;
    }

    /// Returns the cookie, as the browser sends it.
    pub fn cookie(&self) -> Option<String> {
        self.cookie.lock().unwrap().clone()
    }

    /// Keeps a value of `Set-Cookie`.
    pub fn keep(&self, set_cookie: &str) {
        *self.cookie.lock().unwrap() = set_cookie.split(';').next().map(ToOwned::to_owned);
    }

    /// Returns the address behind the proxy of a page's address.
    pub fn behind(&self, url: &str) -> String {
        let (_, rest) = url.split_once("://").unwrap();
        let path = rest.find('/').map_or("/", |at| &rest[at..]);
        format!("http://{}{path}", self.address.lock().unwrap())
    }

    fn as_sent(&self, request: RequestBuilder, url: &str) -> RequestBuilder {
        let host = url.split("://").nth(1).unwrap().split('/').next().unwrap();
        let request = request.header(HOST, host);
        match self.cookie() {
            Some(cookie) => request.header(COOKIE, format!("other=1; {cookie}")),
            None => request,
        }
    }

    pub async fn send(&self, request: RequestBuilder) -> Response {
        let answer = within(request.send()).await.unwrap();
        if let Some(cookie) = answer.headers().get(SET_COOKIE) {
            self.keep(cookie.to_str().unwrap());
        }
        answer
    }

    pub async fn get(&self, url: &str) -> Response {
        self.send(self.as_sent(self.http.get(self.behind(url)), url)).await
    }

    pub async fn page(&self, url: &str) -> String {
        self.get(url).await.text().await.unwrap()
    }

    pub async fn form_token(&self, url: &str) -> String {
        form_token(&self.page(url).await)
    }

    /// Returns a form as a browser sends it, but for `Origin` and `Sec-Fetch-Site`.
    pub fn form(&self, url: &str, way: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.http.post(format!("{}/{way}", self.behind(url)));
        let request = self.as_sent(request, url);
        request.header("content-type", "application/x-www-form-urlencoded").body(form)
    }

    /// Sends a form of the page.
    pub async fn post(&self, url: &str, way: &str, fields: &[(&str, &str)]) -> Response {
        let token = self.form_token(url).await;
        self.post_with(url, way, &token, fields).await
    }

    pub async fn post_with(&self, url: &str, way: &str, token: &str, fields: &[(&str, &str)]) -> Response {
        let fields = [&[("form_token", token)], fields].concat();
        let form = self.form(url, way, &fields);
        self.send(form.header("sec-fetch-site", "same-origin").header(ORIGIN, "null")).await
    }

    pub async fn sign_in(&self, url: &str, email: &str, password: &SecretString) -> Response {
        self.post(url, "sign-in", &[("email", email), ("password", secrets::text(password))]).await
    }
}

pub fn form_token(page: &str) -> String {
    let (_, rest) = page.split_once(r#"name="form_token" value=""#).expect(page);
    rest.split_once('"').unwrap().0.to_owned()
}

pub fn request() -> Request {
    Request::new(RequiredCredential::Api)
}

/// Words for a page on the person's own computer.
pub const LOCAL_WORDS: [&str; 9] = [
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
