//! `http --public-url` as a process, behind a proxy that ends TLS: its listeners, its log, and a browser on its pages.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    process::{ExitStatus, Stdio},
};

use reqwest::{RequestBuilder, Response, redirect::Policy};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Child,
    task::JoinHandle,
};
use url::Url;

use super::{EMAIL, Place, browser::json_of, hosted_server::parameter, raw::modern, secrets, within};

pub const PUBLIC_HOST: &str = "bond.example.com";
pub const ORIGIN: &str = "https://bond.example.com";

/// Where the clients are answered.
pub const REDIRECT_URI: &str = "https://client.example/callback";

/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// A running replica.
pub struct Process {
    pub address: SocketAddr,
    pub metrics: SocketAddr,
    child: Child,
    log: JoinHandle<String>,
    http: reqwest::Client,
}

impl Process {
    /// Starts a replica for the vault of `place`; `arguments` are further ones.
    pub async fn start(place: &Place, arguments: &[&str]) -> Self {
        Self::start_with(place, arguments, &[]).await
    }

    pub async fn start_with(place: &Place, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = place.command(&["--log", "debug", "--log-format", "json", "http"]);
        command
            .args(["--public-url", ORIGIN, "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        if !arguments.contains(&"--drain-delay") {
            command.args(["--drain-delay", "0", "--drain-timeout", "1"]);
        }
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        // The addresses are announced, that of the metrics last.
        while !log.contains("Serving metrics at") {
            let read = within(stderr.read_line(&mut log)).await.unwrap();
            assert!(read > 0, "{log}");
        }
        let after = |words: &str| {
            let (_, rest) = log.split_once(words).unwrap_or_else(|| panic!("{log}"));
            rest.split(|c: char| c.is_whitespace() || c == '/').next().unwrap().parse().unwrap()
        };
        let (address, metrics) = (after("listening on "), after("Serving metrics at http://"));
        let log = tokio::spawn(async move {
            let _ = stderr.read_to_string(&mut log).await;
            log
        });
        let http = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
        Self { address, metrics, child, log, http }
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        proxied(self.http.get(format!("http://{}{path}", self.address)))
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        proxied(self.http.post(format!("http://{}{path}", self.address)))
    }

    pub fn post_form(&self, path: &str, form: &[(&str, &str)]) -> RequestBuilder {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        self.post(path).header("content-type", "application/x-www-form-urlencoded").body(body)
    }

    /// Returns the figures, by their names with labels.
    pub async fn figures(&self) -> BTreeMap<String, f64> {
        let text = self.metrics_text().await;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect()
    }

    pub async fn metrics_text(&self) -> String {
        let response =
            within(self.http.get(format!("http://{}/metrics", self.metrics)).send()).await.unwrap();
        assert_eq!(response.status(), 200);
        within(response.text()).await.unwrap()
    }

    /// Registers a client (RFC 7591); returns its id.
    pub async fn register(&self, redirect_uri: &str) -> String {
        let body = json!({"client_name": "Test", "redirect_uris": [redirect_uri], "token_endpoint_auth_method": "none"});
        let request =
            self.post("/register").header("content-type", "application/json").body(body.to_string());
        let registered = json_of(within(request.send()).await.unwrap()).await;
        registered["client_id"].as_str().unwrap_or_else(|| panic!("{registered}")).to_owned()
    }

    /// Registers a client and opens the page on which a person signs in for it, in a browser of its own.
    pub async fn browser(&self) -> Browser {
        self.authorize(&self.register(REDIRECT_URI).await).await
    }

    /// Connects a new client to the account of `place`, over sign-in and consent; returns its id and its tokens.
    pub async fn connect(&self, place: &Place) -> (String, Value) {
        let (client_id, code) = self.code(place).await;
        let tokens = json_of(self.redeem(&client_id, &code).await).await;
        assert!(tokens["access_token"].is_string(), "{tokens}");
        (client_id, tokens)
    }

    /// Lets the person of `place` sign in and agree to a new client; returns the client's id and its code.
    pub async fn code(&self, place: &Place) -> (String, String) {
        let (client_id, answer) = self.answer(place).await;
        (client_id, parameter(&answer, "code"))
    }

    /// The same with the address that takes the code to the client.
    pub async fn answer(&self, place: &Place) -> (String, Url) {
        let client_id = self.register(REDIRECT_URI).await;
        let mut browser = self.authorize(&client_id).await;
        browser.consent(self, place).await;
        (client_id, browser.allow(self).await)
    }

    /// Redeems a code.
    pub async fn redeem(&self, client_id: &str, code: &str) -> Response {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("client_id", client_id),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", VERIFIER),
        ];
        within(self.post_form("/token", &form).send()).await.unwrap()
    }

    /// Calls a tool as a host of 2026-07-28; returns the answer.
    pub async fn call(&self, tokens: &Value, tool: &str, arguments: Value) -> Value {
        let params = json!({"name": tool, "arguments": arguments});
        self.send(tokens, tool, &modern(1, "tools/call", params)).await
    }

    /// Sends a call of a tool, as a host of 2026-07-28; returns the answer.
    pub async fn send(&self, tokens: &Value, tool: &str, message: &Value) -> Value {
        let request = self
            .post("/mcp")
            .bearer_auth(tokens["access_token"].as_str().unwrap())
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", tool)
            .body(message.to_string());
        json_of(within(request.send()).await.unwrap()).await
    }

    async fn authorize(&self, client_id: &str) -> Browser {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("response_type", "code"),
                ("client_id", client_id),
                ("redirect_uri", REDIRECT_URI),
                ("state", "the-state"),
                ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
                ("code_challenge_method", "S256"),
            ])
            .finish();
        let page = format!("/authorize?{query}");
        let mut browser = Browser { cookie: None, page, html: String::new(), form_token: String::new() };
        browser.open(self).await;
        browser
    }

    /// Requests the process to stop, as a supervisor does.
    #[cfg(unix)]
    pub fn terminate(&self) {
        let id = rustix::process::Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits until the process has ended by itself; returns how, and its log.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        (self.child.wait().await.unwrap(), self.log.await.unwrap())
    }

    /// Kills the process; returns its log.
    pub async fn end(mut self) -> String {
        self.child.kill().await.unwrap();
        within(self.log).await.unwrap()
    }
}

/// A browser that follows redirects within the server, to a page with a form.
pub struct Browser {
    cookie: Option<String>,
    /// Path of the page.
    pub page: String,
    html: String,
    form_token: String,
}

impl Browser {
    async fn open(&mut self, process: &Process) {
        loop {
            let response = within(self.with_cookie(process.get(&self.page)).send()).await.unwrap();
            if response.headers().contains_key("location") {
                self.go_to(&response);
                continue;
            }
            self.keep_cookie(&response);
            assert_eq!(response.status(), 200, "{}", self.page);
            self.html = within(response.text()).await.unwrap();
            self.form_token = self.field("form_token");
            return;
        }
    }

    /// Goes on from the answer to a form.
    async fn follow(&mut self, process: &Process, response: Response) {
        self.go_to(&response);
        self.open(process).await;
    }

    fn go_to(&mut self, response: &Response) {
        self.keep_cookie(response);
        let next = response.headers().get("location").unwrap_or_else(|| panic!("{response:?}"));
        let next = next.to_str().unwrap();
        next.strip_prefix(ORIGIN).unwrap_or(next).clone_into(&mut self.page);
    }

    /// Agrees to everything on the consent page; returns the address that takes the code to the client.
    async fn allow(&mut self, process: &Process) -> Url {
        let shown = self.field("shown");
        let form = [
            ("form_token", self.form_token.as_str()),
            ("shown", &shown),
            ("scope", "models"),
            ("scope", "health"),
            ("scope", "keys"),
            ("daily_limit", "1"),
            ("decision", "allow"),
        ];
        let request = self.with_cookie(process.post_form(&self.page, &form).header("origin", ORIGIN));
        self.go_to(&within(request.send()).await.unwrap());
        self.go_to(&within(self.with_cookie(process.get(&self.page)).send()).await.unwrap());
        self.page.parse().unwrap()
    }

    fn field(&self, name: &str) -> String {
        let page = &self.html;
        let (_, rest) =
            page.split_once(&format!(r#"name="{name}" value=""#)).unwrap_or_else(|| panic!("{page}"));
        rest.split_once('"').unwrap().0.to_owned()
    }

    /// Sends the sign-in form to `process`.
    pub fn sign_in(&self, process: &Process, email: &str, password: &str) -> RequestBuilder {
        self.login(process, "sign-in", email, password)
    }

    /// Signs in to the account of `place`; returns the consent page.
    pub async fn consent(&mut self, process: &Process, place: &Place) -> String {
        let answer = within(self.sign_in(process, EMAIL, password(place)).send()).await.unwrap();
        self.follow(process, answer).await;
        self.html.clone()
    }

    /// Sends the form that creates an account to `process`.
    pub fn create(&self, process: &Process, email: &str, password: &str) -> RequestBuilder {
        self.login(process, "create", email, password)
    }

    fn login(&self, process: &Process, way: &str, email: &str, password: &str) -> RequestBuilder {
        let form = [("form_token", self.form_token.as_str()), ("email", email), ("password", password)];
        let request = process.post_form(&format!("{}/{way}", self.page), &form);
        self.with_cookie(request.header("origin", ORIGIN))
    }

    fn with_cookie(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        }
    }

    fn keep_cookie(&mut self, response: &Response) {
        if let Some(cookie) = response.headers().get("set-cookie") {
            let cookie = cookie.to_str().unwrap();
            self.cookie = Some(cookie.split(';').next().unwrap().to_owned());
        }
    }
}

/// The password of the place's account.
pub fn password(place: &Place) -> &str {
    secrets::text(&place.password)
}

/// As a proxy passes it on.
fn proxied(request: RequestBuilder) -> RequestBuilder {
    request.header("host", PUBLIC_HOST)
}
