//! Two people with BondMCP accounts, one vault, and a hosted server's sign-in pages.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use bondmcp_server::{
    account::{Account, Accounts, Authenticated, Owner, RequiredCredential},
    listener::{self, Bounds},
    sandbox::{Plan, RunningSandbox},
    secret::SecretString,
    sign_in::{Options, Pages, Pending, Place as PagePlace, Request, SignIn, UnknownSignIn, page},
};
use reqwest::{
    RequestBuilder, Response,
    header::{HOST, ORIGIN},
};
use tokio::net::TcpListener;

use super::{EMAIL, Place, accounts, like_the_seed, random_password, sandbox, secrets, within};

pub const LOGIN: &str = "POST /auth/login";
pub const LOGOUT: &str = "POST /auth/logout";

pub const ORIGIN_OF_PAGES: &str = "https://mcp.example.com";
pub const HOST_OF_PAGES: &str = "mcp.example.com";

/// Somebody else, with an account of their own.
pub const OTHER_EMAIL: &str = "grace@example.com";

pub struct World {
    pub sandbox: RunningSandbox,
    pub place: Place,
    pub accounts: Accounts,
    pub other_password: SecretString,
}

impl World {
    pub async fn new() -> Self {
        let sandbox = sandbox(like_the_seed()).await;
        let place = Place::new(&sandbox);
        let other_password = random_password();
        sandbox.add_account(OTHER_EMAIL, &other_password, Plan::Unlimited, true);
        let (accounts, _) = accounts(&place);
        Self { sandbox, place, accounts, other_password }
    }

    pub async fn authenticated(&self, email: &str) -> Authenticated {
        let password = if email == EMAIL { &self.place.password } else { &self.other_password };
        within(self.accounts.authenticator().with_password(email, password.clone())).await.unwrap()
    }

    pub fn subject(&self, name: &str) -> Account {
        self.accounts.open(&Owner::Subject(name.to_owned()))
    }

    /// Whether BondMCP still takes the token that it issued last.
    pub async fn last_token_works(&self) -> bool {
        let token = self.sandbox.secrets_issued().pop().unwrap();
        let me = reqwest::Client::new().get(format!("{}/auth/me", self.place.base_url));
        within(me.bearer_auth(secrets::text(&token)).send()).await.unwrap().status().is_success()
    }
}

/// The pages of a hosted server behind a proxy that ends TLS. The browser is a client of what stands behind the proxy.
pub struct Hosted {
    pub world: World,
    pub pages: Pages,
    pub address: std::net::SocketAddr,
    pub http: reqwest::Client,
}

impl Hosted {
    pub async fn new() -> Self {
        let pages = Pages::new(PagePlace::public(&ORIGIN_OF_PAGES.parse().unwrap()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let bounds = Bounds { connections: 16, head_timeout: Duration::from_secs(10) };
        let router = page::router(pages.clone());
        tokio::spawn(listener::serve(listener, router, bounds, std::future::pending()));
        Self { world: World::new().await, pages, address, http: reqwest::Client::new() }
    }

    pub fn options(&self) -> Options {
        Options {
            public: Some(self.pages.clone()),
            verification_poll: Duration::from_millis(5),
            ..Options::default()
        }
    }

    /// Starts the sign-in of a subject.
    pub async fn begin(&self, subject: &str) -> (SignIn, Arc<Pending>) {
        let sign_in = SignIn::new(self.world.subject(subject), self.options());
        let pending = within(sign_in.begin(request())).await.unwrap();
        (sign_in, pending)
    }

    pub fn begin_unknown(&self) -> UnknownSignIn {
        let authenticator = self.world.accounts.authenticator();
        UnknownSignIn::begin(&self.pages, authenticator, request(), &self.options()).unwrap()
    }

    /// Returns the address behind the proxy of a page's address.
    pub fn behind(&self, url: &str) -> String {
        url.replace(ORIGIN_OF_PAGES, &format!("http://{}", self.address))
    }

    pub async fn get(&self, url: &str) -> Response {
        within(self.http.get(self.behind(url)).header(HOST, HOST_OF_PAGES).send()).await.unwrap()
    }

    pub async fn page(&self, url: &str) -> String {
        // The address of BondMCP is not the page's; here it is that of the sandbox.
        self.get(url).await.text().await.unwrap().replace(&self.world.place.base_url, "BASE_URL")
    }

    pub async fn form_token(&self, url: &str) -> String {
        let page = self.page(url).await;
        let (_, rest) = page.split_once(r#"name="form_token" value=""#).unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    }

    /// Returns a sign-in form as a browser sends it.
    pub fn form(&self, url: &str, form_token: &str, email: &str, password: &SecretString) -> RequestBuilder {
        self.form_to("sign-in", url, form_token, email, password)
    }

    pub fn form_to(
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

    pub async fn sign_in(&self, url: &str, email: &str) -> Response {
        let world = &self.world;
        let password = if email == EMAIL { &world.place.password } else { &world.other_password };
        let form = self.form(url, &self.form_token(url).await, email, password);
        within(form.header(ORIGIN, ORIGIN_OF_PAGES).send()).await.unwrap()
    }
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
