//! A hosted server refuses floods and guesses, and nobody is kept out by somebody else's.

use crate::common::{
    EMAIL, Place,
    browser::json_of,
    hosted_process::{Browser, Process, password},
    like_the_seed, sandbox, within,
};
use futures_util::future::join_all;

const LOGIN: &str = "POST /auth/login";

/// Sends `count` registrations at once; returns how many are refused by the limit.
async fn refused_registrations(process: &Process, count: usize, client: impl Fn(usize) -> String) -> usize {
    let registrations = (0..count).map(|at| {
        let request = process.post("/register").header("x-forwarded-for", client(at)).body("{}");
        async move { within(request.send()).await.unwrap().status() == 429 }
    });
    join_all(registrations).await.into_iter().filter(|refused| *refused).count()
}

// Registrations a thousand times a second (MCP authorization, "Dynamic Client Registration", and so RFC 7591, section 5);
// `X-Forwarded-*` from anyone (RFC 9700, section 4.13).
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_refused_whatever_addresses_it_claims_to_come_from() {
    let sandbox = sandbox(like_the_seed()).await;
    let process = Process::start(&Place::new(&sandbox), &[]).await;
    let flood = async {
        // Fewer than all clients together may send, and more than one.
        for batch in 0..16 {
            if refused_registrations(&process, 50, |at| format!("198.51.{batch}.{at}")).await > 0 {
                return;
            }
        }
        panic!("nothing was refused");
    };
    within(flood).await;
    let refusal = async {
        loop {
            let request = || process.post("/register").header("origin", "https://app.example").send();
            let answers = join_all((0..50).map(|_| request())).await;
            if let Some(refused) =
                answers.into_iter().map(Result::unwrap).find(|answer| answer.status() == 429)
            {
                break refused;
            }
        }
    };
    let response = within(refusal).await;
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(response.headers()["access-control-allow-origin"], "*", "a program in a page can read it");
    assert_eq!(json_of(response).await["error"], "temporarily_unavailable");
    // Metadata, probes and other kinds of requests are answered.
    for path in ["/.well-known/oauth-authorization-server", "/healthz", "/readyz"] {
        assert_eq!(within(process.get(path).send()).await.unwrap().status(), 200, "{path}");
    }
    assert_eq!(within(process.post("/mcp").send()).await.unwrap().status(), 401);
    let figures = process.figures().await;
    assert!(figures[r#"bondmcp_limited_requests_total{class="register"}"#] > 0.0, "{figures:?}");
}

// RFC 9700, section 4.13: a header of the proxy's counts, one of the client's does not.
#[tokio::test(flavor = "multi_thread")]
async fn clients_behind_a_trusted_proxy_are_counted_apart() {
    let sandbox = sandbox(like_the_seed()).await;
    let process = Process::start(&Place::new(&sandbox), &["--trusted-proxy", "127.0.0.0/8"]).await;
    for batch in 0..10 {
        let client = |at| format!("192.0.2.1, 198.51.{batch}.{at}");
        assert_eq!(refused_registrations(&process, 50, client).await, 0);
    }
    // What a client writes itself stands to the left.
    let flood = async {
        let client = |at| format!("198.51.100.{at}, 203.0.113.9");
        while refused_registrations(&process, 50, client).await == 0 {}
    };
    within(flood).await;
    assert_eq!(refused_registrations(&process, 1, |_| "203.0.113.10".to_owned()).await, 0);
}

/// Sends a sign-in form as from `client`; returns the status and the page.
async fn try_to_sign_in(
    (browser, process): (&Browser, &Process),
    client: &str,
    email: &str,
    password: &str,
) -> (u16, String) {
    let form = browser.sign_in(process, email, password).header("x-forwarded-for", client);
    let response = within(form.send()).await.unwrap();
    (response.status().as_u16(), within(response.text()).await.unwrap())
}

// Log-in guesses spread over replicas, and user enumeration: OAuth 2.1, "Credentials-Guessing Attacks" (RFC 6749, section
// 10.10), as MCP authorization, "Security Considerations", demands; OWASP ASVS 5.0, 6.3.1 and 6.3.8.
#[tokio::test(flavor = "multi_thread")]
async fn guesses_spread_over_replicas_pages_and_addresses_are_counted_together() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let proxied = ["--trusted-proxy", "127.0.0.1"];
    let replicas = [Process::start(&place, &proxied).await, Process::start(&place, &proxied).await];
    for guess in 0..10 {
        let replica = &replicas[guess % 2];
        let browser = replica.browser().await;
        let client = format!("198.51.100.{guess}");
        let (status, page) = try_to_sign_in((&browser, replica), &client, EMAIL, "a wrong guess").await;
        assert!(status < 429 && page.contains("Wrong e-mail or password"), "{guess}: {status} {page}");
    }
    assert_eq!(sandbox.count(LOGIN), 10);
    for replica in &replicas {
        let browser = replica.browser().await;
        // Even the right password is not tried any more, written in another way or not.
        for email in [EMAIL, "ADA@example.com "] {
            let attempt = try_to_sign_in((&browser, replica), "203.0.113.9", email, password(&place)).await;
            assert!(attempt.0 == 429 && attempt.1.contains("Try again in 1"), "{attempt:?}");
        }
    }
    assert_eq!(sandbox.count(LOGIN), 10);
    // An address without an account is treated alike, and an attempt at it is possible.
    let browser = replicas[0].browser().await;
    let (status, page) =
        try_to_sign_in((&browser, &replicas[0]), "203.0.113.9", "nobody@example.com", "x").await;
    assert!(status < 429 && page.contains("Wrong e-mail or password"), "{status} {page}");
    for replica in replicas {
        let log = replica.end().await;
        assert!(
            !log.contains("ada@") && !log.contains("198.51.100") && !log.contains("wrong guess"),
            "{log}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_password_is_never_counted() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let process = Process::start(&place, &[]).await;
    for _ in 0..12 {
        let browser = process.browser().await;
        let (status, page) = try_to_sign_in((&browser, &process), "", EMAIL, password(&place)).await;
        assert_eq!(status, 303, "{page}");
    }
    let figures = process.figures().await;
    assert!(figures[r#"bondmcp_sign_ins_total{outcome="ok"}"#] >= 12.0, "{figures:?}");
}
