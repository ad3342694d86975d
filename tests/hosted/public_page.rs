//! The sign-in page of an owner on a hosted server: the link comes from a call, any replica serves the page.

use std::time::Duration;

use crate::common::{
    EMAIL, OTHER_EMAIL,
    hosted::{
        HOST_OF_PAGES, Hosted, LOCAL_WORDS, LOGIN, LOGOUT, ORIGIN_OF_PAGES, Replica, form_token, request,
    },
    on_both_stores,
    raw::{ask, modern_as},
    secrets, within,
};
use bondmcp_server::{
    account::{Error, Owner},
    mcp::{BondMcp, Limits, Selection},
    redact::REDACTED,
    sign_in::{End, LIFETIME, State},
};
use reqwest::{
    StatusCode,
    header::{HOST, ORIGIN, SET_COOKIE},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_hosted_server_stands_under_its_public_origin() {
    let hosted = Hosted::new().await;
    let account = hosted.world.subject("ada");
    within(account.adopt(hosted.world.authenticated(EMAIL).await, false)).await.unwrap();
    let (_sign_in, pending) = hosted.begin("ada").await;
    let (visitor, url) = (hosted.visitor(), pending.url());
    assert!(pending.is_public() && url.starts_with(&format!("{ORIGIN_OF_PAGES}/sign-in/")), "{url}");
    let answer = visitor.get(url).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let headers = answer.headers();
    let cookie = headers[SET_COOKIE].to_str().unwrap();
    assert!(cookie.starts_with("__Host-bondmcp="), "{cookie}");
    assert!(cookie.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax"), "{cookie}");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-frame-options"], "DENY");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("form-action 'self'"), "{policy}");
    let page = answer.text().await.unwrap();
    assert!(page.contains(pending.code()) && page.contains(HOST_OF_PAGES), "{page}");
    assert!(page.contains("goes through this server to BondMCP and is not stored here"), "{page}");
    // Whoever has the link sees for whom it is, and does not learn the address.
    assert!(page.contains("a…@example.com") && !page.contains(EMAIL), "{page}");
    for path in ["", "/sign-in", "/create", "/demo"] {
        let page = visitor.page(&format!("{url}{path}")).await;
        for word in LOCAL_WORDS {
            let page = page.replace(&hosted.world.place.base_url, "BASE_URL");
            assert!(!page.contains(word), "{path}: {word}");
        }
        assert!(!page.contains("API key</a>") && !page.contains("Create an account"), "{path}");
        assert!(page.contains("Sign in to BondMCP"), "{path}");
    }
    // Everything that the page names is below the public path.
    let links = page
        .split(['"', '\''])
        .filter(|text| text.starts_with('/') && !text.contains('>'))
        .collect::<Vec<_>>();
    assert!(links.len() > 2 && links.iter().all(|link| link.starts_with("/sign-in/")), "{links:?}");
    for file in ["style.css", "mark.svg"] {
        let answer = visitor.get(&format!("{ORIGIN_OF_PAGES}/sign-in/{file}")).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }

    let answer = visitor.sign_in(url, EMAIL, &hosted.world.place.password).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.text().await.unwrap().contains("You are signed in"));
    assert_eq!(within(pending.finished(LIFETIME)).await, State::SignedIn { email: Some(EMAIL.into()) });
    // No password is stored on a server that is not the person's own.
    hosted.world.sandbox.expire_tokens();
    assert!(matches!(within(account.list_models(true)).await, Err(Error::SignInRequired { .. })));
}

on_both_stores! {
    async fn a_page_that_was_opened_by_one_replica_is_finished_on_another(hosted: Hosted) {
        let other = hosted.another_replica().await;
        let (sign_in, pending) = hosted.begin("ada").await;
        // Another call of the same owner, on the other replica, has the same page.
        let (_, elsewhere) = other.begin("ada").await;
        assert_eq!(
            (pending.url(), pending.code(), pending.name()),
            (elsewhere.url(), elsewhere.code(), elsewhere.name())
        );
        let named = within(sign_in.named(elsewhere.name())).await.unwrap().unwrap();
        assert_eq!(named.url(), pending.url());

        let visitor = hosted.visitor();
        let token = visitor.form_token(pending.url()).await;
        visitor.moves_to(&other);
        let password = secrets::text(&hosted.world.place.password);
        let login = [("email", EMAIL), ("password", password)];
        let answer = visitor.post_with(pending.url(), "sign-in", &token, &login).await;
        assert!(answer.text().await.unwrap().contains("You are signed in"));
        assert_eq!(within(pending.finished(LIFETIME)).await, State::SignedIn { email: Some(EMAIL.into()) });
        assert_eq!(within(hosted.world.subject("ada").list_models(false)).await.unwrap().models.len(), 3);
        // A retry that comes later, to a process that knows nothing of it, finds the end.
        let (late, owner) = (hosted.another_replica().await, Owner::Subject("ada".into()));
        let late = bondmcp_server::sign_in::SignIn::new(late.accounts.open(&owner), late.options());
        let named = within(late.named(pending.name())).await.unwrap().unwrap();
        assert!(matches!(within(named.finished(LIFETIME)).await, State::SignedIn { .. }));
        // The next one is another page.
        assert_ne!(hosted.begin("ada").await.1.url(), pending.url());
    }
}

// RFC 9700, section 4.13 (reverse proxies): `Host` and `X-Forwarded-*` from anyone.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_says_about_its_host_decides_nothing() {
    let hosted = Hosted::new().await;
    let (_sign_in, pending) = hosted.begin("ada").await;
    let (visitor, url) = (hosted.visitor(), pending.url());
    let address = hosted.replica.address.to_string();
    for host in [&*address, "evil.example", "mcp.example.com:8443", "mcp.example.com.evil.example"] {
        let request = visitor.http.get(visitor.behind(url)).header(HOST, host);
        let request =
            request.header("x-forwarded-host", HOST_OF_PAGES).header("forwarded", "host=mcp.example.com");
        let answer = within(request.send()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{host}");
        let told = answer.text().await.unwrap();
        assert_eq!(told, "This page is served at https://mcp.example.com only.");
    }
    let forwarded = visitor.http.get(visitor.behind(url)).header(HOST, HOST_OF_PAGES);
    let page =
        forwarded.header("x-forwarded-host", "evil.example").header("x-forwarded-proto", "http").send();
    assert!(!within(page).await.unwrap().text().await.unwrap().contains("evil.example"));

    // Forms of other pages (CSRF; RFC 9700, section 4.7).
    let token = visitor.form_token(url).await;
    let password = secrets::text(&hosted.world.place.password);
    let form =
        || visitor.form(url, "sign-in", &[("form_token", &token), ("email", EMAIL), ("password", password)]);
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
    // Another browser's form, though it comes from the right origin.
    let stranger = hosted.visitor();
    stranger.get(url).await;
    for token in [&*token, "", "x"] {
        let login = [("email", EMAIL), ("password", password)];
        let answer = stranger.post_with(url, "sign-in", token, &login).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    }
    // The processes of one computer prove themselves to each other; on the internet there is nobody to do so.
    let join = visitor.form(&format!("{ORIGIN_OF_PAGES}/sign-in"), "join", &[]);
    let join = within(join.header(ORIGIN, ORIGIN_OF_PAGES).send()).await.unwrap();
    assert!(!join.status().is_success());
    assert_eq!(hosted.world.sandbox.count(LOGIN), 0);
    assert_eq!(pending.state(), State::Open);
}

on_both_stores! {
    // MCP "Security Best Practices", "State Handle Hijacking": the link of another owner.
    async fn each_page_is_found_by_its_id_and_serves_its_owner_alone(hosted: Hosted) {
        let (_ada, for_ada) = hosted.begin("ada").await;
        let (grace, for_grace) = hosted.begin("grace").await;
        assert_ne!((for_ada.url(), for_ada.code()), (for_grace.url(), for_grace.code()));
        assert!(within(grace.named(for_ada.name())).await.unwrap().is_none());
        let visitor = hosted.visitor();
        assert!(visitor.page(for_ada.url()).await.contains(for_ada.code()));
        assert!(visitor.page(for_grace.url()).await.contains(for_grace.code()));
        for unknown in ["x", for_ada.name(), &for_ada.url()[ORIGIN_OF_PAGES.len() + "/sign-in/".len() + 1..]] {
            let answer = visitor.get(&format!("{ORIGIN_OF_PAGES}/sign-in/{unknown}")).await;
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{unknown}");
        }
        let answer = visitor.sign_in(for_grace.url(), OTHER_EMAIL, &hosted.world.other_password).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(for_ada.state(), State::Open);
        assert!(!hosted.world.subject("ada").status().await.unwrap().signed_in);
        let grace = hosted.world.subject("grace").status().await.unwrap();
        assert_eq!(grace.email.as_deref(), Some(OTHER_EMAIL));
    }
}

// MCP, "URL mode elicitation": whoever completes the page must be who was asked.
#[tokio::test(flavor = "multi_thread")]
async fn another_user_cannot_complete_the_sign_in_of_a_subject() {
    let hosted = Hosted::new().await;
    let account = hosted.world.subject("ada");
    within(account.adopt(hosted.world.authenticated(EMAIL).await, false)).await.unwrap();
    within(account.sign_out(false)).await.unwrap();
    let (_sign_in, pending) = hosted.begin("ada").await;

    let visitor = hosted.visitor();
    let answer = visitor.sign_in(pending.url(), OTHER_EMAIL, &hosted.world.other_password).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let page = answer.text().await.unwrap();
    assert!(page.contains("This account belongs to another BondMCP user."), "{page}");
    assert!(!page.contains(EMAIL), "the page tells nobody whose account it is");
    within(hosted.world.sandbox.faults().arrived(LOGOUT, 2)).await;
    assert_eq!(pending.state(), State::Open);
    assert!(!account.status().await.unwrap().signed_in);
    // What is redacted for an owner tells whether a guess is right.
    let typed = secrets::text(&hosted.world.other_password);
    assert_eq!(account.redactor().redact(typed), typed);

    let answer = visitor.sign_in(pending.url(), EMAIL, &hosted.world.place.password).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(account.status().await.unwrap().signed_in);
    let own = secrets::text(&hosted.world.place.password);
    assert_eq!(account.redactor().redact(own), REDACTED);
}

on_both_stores! {
    // Guesses: OAuth 2.1, "Credentials-Guessing Attacks" (RFC 6749, section 10.10), as MCP authorization,
    // "Security Considerations", demands.
    async fn five_wrong_passwords_end_a_page_on_all_replicas(hosted: Hosted) {
        let other = hosted.another_replica().await;
        let (sign_in, pending) = hosted.begin("ada").await;
        let visitor = hosted.visitor();
        let token = visitor.form_token(pending.url()).await;
        let wrong = [("email", EMAIL), ("password", "wrong-password-1")];
        for (attempt, left) in
            ["4 attempts left", "3 attempts left", "2 attempts left", "1 attempt left", ""].iter().enumerate()
        {
            visitor.moves_to(if attempt % 2 == 0 { &other } else { &hosted.replica });
            let answer = visitor.post_with(pending.url(), "sign-in", &token, &wrong).await;
            assert!(answer.text().await.unwrap().contains(left), "{left}");
        }
        // Another call has a new page at once. Those who wait for this one are told all the same.
        assert_ne!(within(sign_in.begin(request())).await.unwrap().url(), pending.url());
        assert_eq!(within(pending.finished(LIFETIME)).await, State::Ended(End::TooManyAttempts));
        let right = [("email", EMAIL), ("password", secrets::text(&hosted.world.place.password))];
        let answer = visitor.post_with(pending.url(), "sign-in", &token, &right).await;
        assert_eq!(answer.status(), StatusCode::GONE);
        assert_eq!(hosted.world.sandbox.count(LOGIN), 5);
    }
}

on_both_stores! {
    // The same. Attempts count before BondMCP is asked: neither parallel forms nor closed connections nor other replicas give
    // more.
    async fn parallel_and_abandoned_forms_give_no_more_attempts(hosted: Hosted) {
        let other = hosted.another_replica().await;
        let (_sign_in, pending) = hosted.begin("ada").await;
        let visitor = hosted.visitor();
        let token = visitor.form_token(pending.url()).await;
        let wrong = [("form_token", &*token), ("email", EMAIL), ("password", "wrong-password-1")];
        let mut sent = vec![];
        for attempt in 0..12 {
            visitor.moves_to(if attempt % 2 == 0 { &other } else { &hosted.replica });
            let form = visitor.form(pending.url(), "sign-in", &wrong).header(ORIGIN, ORIGIN_OF_PAGES);
            sent.push(tokio::spawn(async move { form.send().await.unwrap().status() }));
        }
        // Some of those who sent them are gone at once.
        sent.drain(..3).for_each(|form| form.abort());
        for form in sent {
            let status = within(form).await.unwrap();
            assert!(status.is_client_error(), "{status}");
        }
        assert_eq!(within(pending.finished(LIFETIME)).await, State::Ended(End::TooManyAttempts));
        let asked = hosted.world.sandbox.count(LOGIN);
        assert!(asked <= 5, "{asked}");
    }
}

/// Calls a tool as a host that can open links or cannot.
fn call(tool: &str, opens_links: bool, more: &Value) -> Value {
    let mut params = json!({"name": tool, "arguments": {}});
    for (name, value) in more.as_object().unwrap() {
        params[name] = value.clone();
    }
    modern_as(
        1,
        "tools/call",
        params,
        if opens_links { json!({"elicitation": {"url": {}}}) } else { json!({}) },
    )
}

fn server(replica: &Replica) -> BondMcp {
    let (selection, limits, stopping) = (Selection::default(), Limits::default(), CancellationToken::new());
    let accounts = replica.accounts.clone();
    BondMcp::new(accounts, Some(replica.options()), &selection, limits, stopping).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_hear_nothing_of_the_persons_own_computer() {
    let hosted = Hosted::new().await;
    let server = server(&hosted.replica);
    let ada = Owner::Subject("ada".to_owned());
    let told = ask(&server, &ada, &call("login", false, &json!({}))).await;
    let url = told["result"]["structuredContent"]["sign_in_url"].as_str().unwrap().to_owned();
    let asked = ask(&server, &ada, &call("list_models", true, &json!({}))).await;
    assert_eq!(asked["result"]["inputRequests"]["person"]["params"]["url"], url.as_str());
    let state = json!({"requestState": asked["result"]["requestState"],
        "inputResponses": {"person": {"action": "decline"}}});
    let declined = ask(&server, &ada, &call("list_models", true, &state)).await;
    assert!(declined.to_string().contains("declined"), "{declined}");
    let failed = ask(&server, &ada, &call("list_models", false, &json!({}))).await;
    let registered = ask(&server, &ada, &call("register", false, &json!({}))).await;
    for answer in [told, asked, declined, failed, registered] {
        let answer = answer.to_string();
        assert!(answer.contains(&url), "{answer}");
        for word in LOCAL_WORDS.into_iter().chain(["local page", "this host runs"]) {
            assert!(!answer.contains(word), "{word}: {answer}");
        }
    }
    let signed_in = hosted.visitor().sign_in(&url, EMAIL, &hosted.world.place.password).await;
    assert_eq!(signed_in.status(), StatusCode::OK);
    let models = ask(&server, &ada, &call("list_models", false, &json!({}))).await;
    assert_eq!(models["result"]["structuredContent"]["count"], 3, "{models}");

    let create = json!({"arguments": {"action": "create", "name": "mine"}});
    let mut said = vec![ask(&server, &ada, &call("manage_api_keys", false, &create)).await];
    assert!(said[0].to_string().contains("its value is not shown"), "{}", said[0]);
    for method in ["server/discover", "tools/list", "prompts/list", "resources/list"] {
        said.push(ask(&server, &ada, &modern_as(1, method, json!({}), json!({}))).await);
    }
    for answer in said {
        let answer = answer.to_string();
        for word in ["this computer", "in a terminal", "bondmcp-server keys", "--profile"] {
            assert!(!answer.contains(word), "{word}: {answer}");
        }
    }
}

on_both_stores! {
    // The call waits on one replica, the person signs in on another one, and the retry comes to either.
    async fn a_call_goes_on_when_the_person_has_signed_in_on_another_replica(hosted: Hosted) {
        let other = hosted.another_replica().await;
        let (here, there) = (server(&hosted.replica), server(&other));
        let ada = Owner::Subject("ada".to_owned());
        let asked = ask(&here, &ada, &call("list_models", true, &json!({}))).await;
        let url = asked["result"]["inputRequests"]["person"]["params"]["url"].as_str().unwrap().to_owned();
        let state = json!({"requestState": asked["result"]["requestState"],
            "inputResponses": {"person": {"action": "accept"}}});
        let waiting = {
            let (there, ada) = (there.clone(), ada.clone());
            tokio::spawn(async move { ask(&there, &ada, &call("list_models", true, &state)).await })
        };
        let visitor = hosted.visitor();
        assert_eq!(visitor.sign_in(&url, EMAIL, &hosted.world.place.password).await.status(), StatusCode::OK);
        let models = within(waiting).await.unwrap();
        assert_eq!(models["result"]["structuredContent"]["count"], 3, "{models}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_shown_twice_has_one_browser() {
    let hosted = Hosted::new().await;
    let (_sign_in, pending) = hosted.begin("ada").await;
    let visitor = hosted.visitor();
    let first = visitor.page(pending.url()).await;
    let cookie = visitor.cookie();
    let second = visitor.get(pending.url()).await;
    assert!(second.headers().get(SET_COOKIE).is_none());
    assert_eq!(visitor.cookie(), cookie);
    assert_eq!(form_token(&second.text().await.unwrap()), form_token(&first));
    assert!(pending.expires_in() <= LIFETIME && pending.expires_in() > Duration::from_mins(9));
}
