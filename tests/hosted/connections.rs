//! The page of connected apps of a hosted server.

use std::sync::Mutex;

use crate::common::{
    EMAIL, OTHER_EMAIL,
    hosted_server::{Authorization, HostedServer, parameter, status_and_json},
    secrets, within,
};
use bondmcp_server::{
    account::{NewGrant, Usd},
    bondmcp::wire::Permission,
    oauth::{Grant, GrantId, Scopes},
    secret::SecretString,
};
use reqwest::{RequestBuilder, Response, header::LOCATION};
use serde_json::json;

/// A hosted server and two people.
struct World {
    server: HostedServer,
    other_password: SecretString,
}

/// A browser with its cookie.
struct Browser<'a> {
    world: &'a World,
    cookie: Mutex<Option<String>>,
}

/// A page as a browser shows it.
struct Page {
    status: u16,
    location: String,
    text: String,
}

impl World {
    async fn new() -> Self {
        let (server, other_password) = HostedServer::start_with_two().await;
        Self { server, other_password }
    }

    fn password(&self, email: &str) -> &SecretString {
        if email == EMAIL { &self.server.place.password } else { &self.other_password }
    }

    /// Connects an app, as if the person had agreed; returns its grant and its access token.
    async fn connect(&self, email: &str, name: &str) -> (Grant, String) {
        self.connect_at(email, name, "http://127.0.0.1:3118/callback").await
    }

    async fn connect_at(&self, email: &str, name: &str, redirect_uri: &str) -> (Grant, String) {
        let HostedServer { server, accounts, .. } = &self.server;
        let body = json!({"client_name": name, "redirect_uris": [redirect_uri]});
        let register = self.server.http.post(self.server.at("/register"));
        let register = register.header("content-type", "application/json").body(body.to_string());
        let (_, client) = status_and_json(self.server.send(register).await).await;
        let client_id = client["client_id"].as_str().unwrap().to_owned();
        let redirect_uri = redirect_uri.to_owned();
        let authorization = Authorization { redirect_uri, ..Authorization::of(client_id) };
        let request = server.authorization_request(&authorization.query()).await.unwrap();
        let authenticator = accounts.authenticator();
        let signed_in =
            within(authenticator.with_password(email, self.password(email).clone())).await.unwrap();
        let subject = server.subject(signed_in.user_id().unwrap());
        let grant = server.create_grant(&subject, &request, Scopes::all()).await.unwrap();
        let new = NewGrant {
            issuer: self.server.origin.clone(),
            key_name: format!("key of {}", grant.id),
            permissions: vec![Permission::Read, Permission::Write],
            daily_limit: Usd::cents(500),
        };
        within(accounts.open(&grant.owner()).open_grant(signed_in, new)).await.unwrap();
        let answer = server.authorization_response(&request, &grant).await.unwrap();
        let (status, tokens) = self.server.redeem(&authorization, &parameter(&answer, "code")).await;
        assert_eq!(status, 200, "{tokens}");
        (grant, tokens["access_token"].as_str().unwrap().to_owned())
    }

    fn browser(&self) -> Browser<'_> {
        Browser { world: self, cookie: Mutex::default() }
    }

    /// A browser in which somebody has signed in.
    async fn signed_in(&self, email: &str) -> Browser<'_> {
        let browser = self.browser();
        let page = browser.get("/connections").await;
        let page = browser.get(&page.location).await.sign_in(&browser, &page.location, email).await;
        assert_eq!((page.status, page.location.as_str()), (303, "/connections"), "{}", page.text);
        browser
    }

    async fn is_active(&self, id: &GrantId) -> bool {
        self.server.server.grant(id).await.unwrap().is_some_and(|grant| grant.ended.is_none())
    }

    async fn budget(&self, grant: &Grant) -> Usd {
        let account = self.server.accounts.open(&grant.owner());
        account.own_daily_limit().await.unwrap().unwrap()
    }

    fn live_keys(&self, email: &str) -> usize {
        self.server.sandbox.live_keys(email).len()
    }

    /// Returns the status of an answer to a call with an access token.
    async fn call(&self, token: &str) -> u16 {
        let params = json!({"name": "list_models", "arguments": {}});
        let call = self.server.modern(token, "tools/call", Some("list_models"), params);
        self.server.send(call).await.status().as_u16()
    }
}

impl Browser<'_> {
    async fn get(&self, path: &str) -> Page {
        self.send(self.world.server.http.get(self.world.server.at(path))).await
    }

    /// Sends a form with the token of a page.
    async fn post(&self, path: &str, form_token: &str, fields: &[(&str, &str)]) -> Page {
        self.send(self.ours(self.form(path, form_token, fields))).await
    }

    fn form(&self, path: &str, form_token: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("form_token", form_token).extend_pairs(fields);
        let post = self.world.server.http.post(self.world.server.at(path));
        post.header("content-type", "application/x-www-form-urlencoded").body(form.finish())
    }

    /// Marks a form as one that was sent by a page of the server.
    fn ours(&self, form: RequestBuilder) -> RequestBuilder {
        form.header("origin", &self.world.server.origin).header("sec-fetch-site", "same-origin")
    }

    async fn send(&self, request: RequestBuilder) -> Page {
        let cookie = self.cookie.lock().unwrap().clone();
        let request = match cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        };
        let answer = self.world.server.send(request).await;
        if let Some(cookie) = answer.headers().get("set-cookie") {
            let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
            *self.cookie.lock().unwrap() = Some(cookie.to_owned());
        }
        Page::of(answer).await
    }
}

impl Page {
    async fn of(answer: Response) -> Self {
        let location = answer.headers().get(LOCATION).map(|to| to.to_str().unwrap().to_owned());
        let status = answer.status().as_u16();
        Self { status, location: location.unwrap_or_default(), text: within(answer.text()).await.unwrap() }
    }

    fn form_token(&self) -> &str {
        let (_, rest) =
            self.text.split_once(r#"name="form_token" value=""#).unwrap_or_else(|| panic!("{}", self.text));
        rest.split_once('"').unwrap().0
    }

    /// Whether it has a link to the list of apps.
    fn leads_back(&self) -> bool {
        self.text.contains(r#"<a href="/connections">"#)
    }

    async fn sign_in(&self, browser: &Browser<'_>, path: &str, email: &str) -> Self {
        let password = secrets::text(browser.world.password(email));
        let fields = [("email", email), ("password", password)];
        browser.post(&format!("{path}/sign-in"), self.form_token(), &fields).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_signed_in_sees_their_apps_and_what_each_has_used() {
    let world = World::new().await;
    let (claude, token) = world.connect(EMAIL, "Claude").await;
    world.connect(OTHER_EMAIL, "Cursor").await;
    let arguments = json!({"medications": [{"name": "aspirin"}]});
    world.server.call(&token, "medication_check", arguments).await;

    let browser = world.browser();
    let page = browser.get("/connections").await;
    assert!(page.status == 303 && page.location.starts_with("/sign-in/"), "{}", page.location);
    let browser = world.signed_in(EMAIL).await;
    let page = browser.get("/connections").await;
    assert_eq!(page.status, 200);
    let since = claude.created_at.format("%-d %B %Y, %H:%M UTC").to_string();
    for part in
        [EMAIL, "Claude", "127.0.0.1", &since, "<dd>1</dd>", "$0.03 today, $0.03 in all", r#"value="5.00""#]
    {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    assert!(!page.text.contains("Cursor"), "somebody else's");
    assert!(!page.text.contains("never"), "it was used");

    let other = world.signed_in(OTHER_EMAIL).await.get("/connections").await;
    assert!(other.text.contains("Cursor") && !other.text.contains("Claude"), "{}", other.text);
}

/// A sign-in is a record: one path begins it, whose requests are limited more strictly.
#[tokio::test(flavor = "multi_thread")]
async fn the_list_alone_begins_a_sign_in() {
    let world = World::new().await;
    let known = world.browser();
    known.get("/connections").await;
    for browser in [world.browser(), known] {
        for path in ["/connections/revoke", "/connections/some-grant/revoke"] {
            let page = browser.get(path).await;
            assert_eq!((page.status, page.location.as_str()), (303, "/connections"), "{path}");
        }
        let forms = [("/connections/sign-out", &[][..]), ("/connections/g/budget", &[("budget", "1")])];
        for (path, fields) in forms {
            let page = browser.post(path, "guessed", fields).await;
            assert_eq!((page.status, page.location.as_str()), (303, "/connections"), "{path}");
        }
        assert!(browser.get("/connections?done=saved").await.location.starts_with("/sign-in/"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_apps_the_page_says_how_to_connect_one() {
    let world = World::new().await;
    let page = world.signed_in(EMAIL).await.get("/connections").await;
    assert!(page.text.contains(&format!("{}/mcp", world.server.origin)), "{}", page.text);
    assert!(!page.text.contains("Disconnect"), "{}", page.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_changes_the_budget_of_an_app() {
    let world = World::new().await;
    let (grant, access) = world.connect(EMAIL, "Claude").await;
    let (other, _) = world.connect(EMAIL, "Cursor").await;
    let browser = world.signed_in(EMAIL).await;
    let path = format!("/connections/{}/budget", grant.id);
    let token = browser.get("/connections").await.form_token().to_owned();
    let page = browser.post(&path, &token, &[("budget", " 0.50 ")]).await;
    assert_eq!(page.status, 303, "{}", page.text);
    assert_eq!(world.budget(&grant).await, Usd::cents(50));
    assert_eq!(world.budget(&other).await, Usd::cents(500));
    let page = browser.get(&page.location).await;
    for part in ["The budget of Claude is saved.", r#"value="0.50""#, "<title>Connected apps"] {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }

    // Nothing of a query is shown.
    for query in ["saved=evil&x=%3Cb%3E", "saved=", "done=evil"] {
        let page = browser.get(&format!("/connections?{query}")).await;
        assert!(page.status == 200 && !page.text.contains("evil"), "{}", page.text);
        assert!(!page.text.contains("is saved"), "{}", page.text);
    }

    for wrong in ["", "-1", "1e3", "a lot", "0.001", "1,50", "99999999"] {
        let page = browser.post(&path, &token, &[("budget", wrong)]).await;
        assert_eq!(page.status, 422, "{wrong}");
        let kept = format!(r#"required value="{wrong}" aria-invalid="true""#);
        for part in ["<title>Error: Connected apps", "at most 1000000", &kept, r#"value="5.00">"#] {
            assert!(page.text.contains(part), "{wrong}: {part}: {}", page.text);
        }
    }
    assert_eq!(world.budget(&grant).await, Usd::cents(50));
    assert_eq!(browser.post(&path, &token, &[("budget", "0")]).await.status, 303);
    assert_eq!(world.budget(&grant).await, Usd::cents(0));
    let params = json!({"name": "medication_check", "arguments": {"medications": [{"name": "aspirin"}]}});
    let call = world.server.modern(&access, "tools/call", Some("medication_check"), params);
    let (_, refused) = status_and_json(world.server.send(call).await).await;
    let page = format!("limit on {}/connections;", world.server.origin);
    assert!(refused.to_string().contains(&page), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_disconnects_one_app_after_a_question() {
    let world = World::new().await;
    let (grant, token) = world.connect(EMAIL, "Claude").await;
    let (other, other_token) = world.connect(EMAIL, "Cursor").await;
    assert_eq!((world.call(&token).await, world.live_keys(EMAIL)), (200, 2));
    let browser = world.signed_in(EMAIL).await;
    let path = format!("/connections/{}/revoke", grant.id);
    let page = browser.get(&path).await;
    assert!(page.status == 200 && page.text.contains("Disconnect Claude?"), "{}", page.text);
    assert!(world.is_active(&grant.id).await, "a question changes nothing");
    let page = browser.post(&path, page.form_token(), &[]).await;
    assert!(page.status == 200 && page.text.contains("Claude is disconnected."), "{}", page.text);
    assert!(page.text.contains("Cursor"), "{}", page.text);
    assert!(!world.is_active(&grant.id).await && world.is_active(&other.id).await);
    assert_eq!((world.call(&token).await, world.call(&other_token).await), (401, 200));
    assert_eq!(world.live_keys(EMAIL), 1, "its key is revoked at BondMCP");
    let page = browser.get("/connections").await;
    assert!(page.text.contains("Cursor") && !page.text.contains("Claude"), "{}", page.text);
    let page = browser.get(&path).await;
    assert!(page.status == 404 && page.leads_back(), "{}", page.text);

    let accounts = &world.server.accounts;
    within(accounts.close()).await;
    let entries = accounts.audit_reader().read().unwrap();
    let audited = |tool: &str, action: &str, owner: &str| {
        entries.iter().any(|entry| {
            (&*entry.tool, entry.action.as_deref(), &*entry.owner) == (tool, Some(action), owner)
        })
    };
    assert!(audited("authorize", "sign_in", &format!("subject:{}", grant.subject.as_str())), "{entries:?}");
    assert!(audited("grant", "ended_by_owner", &grant.owner().audit_name()), "{entries:?}");
    assert!(!format!("{entries:?}").contains('@'), "nothing personal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_disconnects_all_apps_and_nobody_elses() {
    let world = World::new().await;
    for name in ["Claude", "Cursor"] {
        world.connect(EMAIL, name).await;
    }
    let (others, _) = world.connect(OTHER_EMAIL, "Codex").await;
    let browser = world.signed_in(EMAIL).await;
    let page = browser.get("/connections/revoke").await;
    for part in ["Disconnect 2 apps?", "their API keys are revoked"] {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    let done = browser.post("/connections/revoke", page.form_token(), &[]).await;
    assert!(done.status == 200 && done.text.contains("2 apps are disconnected."), "{}", done.text);
    assert_eq!(browser.post("/connections/revoke", page.form_token(), &[]).await.location, "/connections");
    assert_eq!((world.live_keys(EMAIL), world.live_keys(OTHER_EMAIL)), (0, 1));
    assert!(world.is_active(&others.id).await);
    assert_eq!(browser.get("/connections/revoke").await.location, "/connections");
    assert!(browser.get("/connections").await.text.contains("No app is connected"));
}

/// RFC 9700, section 2.3 (access is the owner's); MCP "Security Best Practices", "State Handle Hijacking".
#[tokio::test(flavor = "multi_thread")]
async fn the_grant_of_somebody_else_is_not_found() {
    let world = World::new().await;
    let (own, _) = world.connect(EMAIL, "Claude").await;
    let (others, _) = world.connect(OTHER_EMAIL, "Cursor").await;
    let browser = world.signed_in(EMAIL).await;
    let token = browser.get("/connections").await.form_token().to_owned();
    for id in [others.id.as_str(), "no-such-grant", "revoke", &format!("{}x", own.id)] {
        assert_eq!(browser.get(&format!("/connections/{id}/revoke")).await.status, 404, "{id}");
        for (way, fields) in [("revoke", &[][..]), ("budget", &[("budget", "9")])] {
            let page = browser.post(&format!("/connections/{id}/{way}"), &token, fields).await;
            assert_eq!(page.status, 404, "{id} {way}");
            assert!(!page.text.contains("Cursor"), "{}", page.text);
        }
    }
    assert!(world.is_active(&others.id).await);
    assert_eq!(world.budget(&others).await, Usd::cents(500));
}

/// RFC 9700, section 4.7 (cross-site request forgery); 4.16 (clickjacking).
#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_not_this_browsers_changes_nothing() {
    let world = World::new().await;
    let (grant, _) = world.connect(EMAIL, "Claude").await;
    let browser = world.signed_in(EMAIL).await;
    let token = browser.get("/connections").await.form_token().to_owned();
    let other = world.signed_in(EMAIL).await;
    let others_token = other.get("/connections").await.form_token().to_owned();
    let (budget, revoke) =
        (format!("/connections/{}/budget", grant.id), format!("/connections/{}/revoke", grant.id));
    let forms = [
        (&*budget, &[("budget", "9")][..]),
        (&revoke, &[]),
        ("/connections/revoke", &[]),
        ("/connections/sign-out", &[]),
    ];
    for (path, fields) in forms {
        for wrong in ["", "wrong", &others_token] {
            let page = browser.post(path, wrong, fields).await;
            assert!(page.status == 403 && page.leads_back(), "{path}: {}", page.text);
        }
        let form = || browser.form(path, &token, fields);
        for forged in [
            form(),
            form().header("origin", "null"),
            form().header("origin", "https://evil.example"),
            form().header("origin", &world.server.origin).header("sec-fetch-site", "cross-site"),
            form().header("origin", "https://evil.example").header("sec-fetch-site", "same-site"),
        ] {
            assert_eq!(browser.send(forged).await.status, 403, "{path}");
        }
        // With the right token of somebody who is not signed in.
        let stranger = world.browser();
        let page = stranger.post(path, &token, fields).await;
        assert_eq!((page.status, page.location.as_str()), (303, "/connections"), "{path}");
    }
    assert!(world.is_active(&grant.id).await);
    assert_eq!(world.budget(&grant).await, Usd::cents(500));

    let answer = world.server.get("/connections").await;
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    let policy = header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("script-src") && policy.contains("form-action 'self'"), "{policy}");
    assert_eq!((header("x-frame-options").as_str(), header("cache-control").as_str()), ("DENY", "no-store"));
    assert_eq!(header("referrer-policy"), "no-referrer");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_on_the_device_is_called_one() {
    let world = World::new().await;
    let (grant, _) = world.connect_at(EMAIL, "Cursor", "cursor://anysphere.cursor-mcp/callback").await;
    let browser = world.signed_in(EMAIL).await;
    for path in ["/connections".to_owned(), format!("/connections/{}/revoke", grant.id)] {
        let page = browser.get(&path).await;
        assert!(page.text.contains("cursor:, an app on your device"), "{}", page.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_an_app_is_text() {
    let world = World::new().await;
    let (grant, _) = world.connect(EMAIL, r#"<script>alert(1)</script>" onfocus="x"#).await;
    let browser = world.signed_in(EMAIL).await;
    for path in ["/connections".to_owned(), format!("/connections/{}/revoke", grant.id)] {
        let page = browser.get(&path).await;
        assert!(page.text.contains("alert(1)"), "{}", page.text);
        assert!(!page.text.contains("<script") && !page.text.contains(r#"" onfocus"#), "{}", page.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_signs_out_leaves_the_apps_connected() {
    let world = World::new().await;
    let (grant, token) = world.connect(EMAIL, "Claude").await;
    let browser = world.signed_in(EMAIL).await;
    let page = browser.get("/connections").await;
    let page = browser.post("/connections/sign-out", page.form_token(), &[]).await;
    assert!(page.status == 200 && page.text.contains("You are signed out"), "{}", page.text);
    assert!(page.leads_back(), "{}", page.text);
    assert!(browser.get("/connections").await.location.starts_with("/sign-in/"));
    assert!(world.is_active(&grant.id).await);
    assert_eq!(world.call(&token).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_goes_on_on_any_replica() {
    let world = World::new().await;
    let (grant, _) = world.connect(EMAIL, "Claude").await;
    let browser = world.signed_in(EMAIL).await;
    let token = browser.get("/connections").await.form_token().to_owned();
    let replica = world.server.replica().await;
    let path = format!("/connections/{}/revoke", grant.id);
    let form =
        url::form_urlencoded::Serializer::new(String::new()).append_pair("form_token", &token).finish();
    let post = replica.http.post(replica.at(&path)).body(form);
    let post = post.header("content-type", "application/x-www-form-urlencoded");
    let post = browser.ours(post).header("cookie", browser.cookie.lock().unwrap().clone().unwrap());
    assert_eq!(replica.send(post).await.status(), 200);
    assert!(!world.is_active(&grant.id).await);
}
