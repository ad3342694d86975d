//! `doctor --public-url` against a hosted server whose edge can be broken: each test breaks one thing, finds it named with
//! its fix, and mends it.

mod authorization;
mod edge;

use axum::http::{HeaderValue, Method, request::Parts};
use serde_json::json;
use tokio::process::Command;

use self::edge::{Answer, Edge, answer};
use crate::common::within;

/// The names of all findings that are not about the connection.
const NAMES: [&str; 19] = [
    "HTTP",
    "resource metadata",
    "server metadata",
    "signing keys",
    "challenge",
    "Authorization",
    "CORS",
    "unknown paths",
    "authorization page",
    "client registration",
    "authorization request",
    "sign-in page",
    "token endpoint",
    "host user agents",
    "forwarded headers",
    "metrics",
    "clock",
    "HTTPS redirect",
    "HSTS",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_whole_has_nothing_to_mend() {
    let report = Edge::start().await.examine().await;
    for name in NAMES {
        let check = report.check(name);
        let expected = if matches!(name, "HTTPS redirect" | "HSTS") { "skip" } else { "ok" };
        assert_eq!(check.status, expected, "{name}: {check:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_of_the_metadata_that_the_proxy_does_not_pass() {
    let edge = Edge::start().await;
    for (path, name) in [
        ("/.well-known/oauth-protected-resource", "resource metadata"),
        ("/.well-known/oauth-protected-resource/mcp", "resource metadata"),
        ("/.well-known/oauth-authorization-server", "server metadata"),
        ("/.well-known/oauth-authorization-server/mcp", "server metadata"),
        ("/.well-known/openid-configuration", "server metadata"),
        ("/.well-known/openid-configuration/mcp", "server metadata"),
    ] {
        edge.finds(name, &format!("{path}: status 404, an HTML page"), "every path", move |head, found| {
            if head.uri.path() == path {
                found.replace_by(answer(404, "text/html", "<h1>Not Found</h1>"));
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_differs_in_a_byte() {
    let edge = Edge::start().await;
    edge.finds("server metadata", "has issuer", "--public-url", |head, found| {
        if head.uri.path() == "/.well-known/openid-configuration" {
            found.edit(|body| body["issuer"] = format!("{}/", body["issuer"].as_str().unwrap()).into());
        }
    })
    .await;
    edge.finds("resource metadata", "has authorization_servers", "--public-url", |head, found| {
        if head.uri.path() == "/.well-known/oauth-protected-resource" {
            found.edit(|body| body["authorization_servers"][0] = "https://other.example".into());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_does_not_say_what_hosts_need() {
    let edge = Edge::start().await;
    for (field, value) in [
        ("token_endpoint_auth_methods_supported", json!(["private_key_jwt"])),
        ("client_id_metadata_document_supported", json!(false)),
        ("code_challenge_methods_supported", json!(["plain", "S256"])),
        ("token_endpoint", json!("http://10.0.0.7:8787/token")),
    ] {
        edge.finds("server metadata", field, "--public-url", move |head, found| {
            if head.uri.path().starts_with("/.well-known/oauth-authorization-server") {
                found.edit(|body| body[field] = value.clone());
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_is_kept_for_too_long() {
    let edge = Edge::start().await;
    edge.finds("resource metadata", "more than a day", "Cache-Control", |_, found| {
        found.set("cache-control", "public, max-age=604800");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_missing_or_private() {
    let edge = Edge::start().await;
    for (keys, detail) in [(json!([]), "no keys"), (json!([{"kid": "1", "d": "x"}]), "private key")] {
        edge.finds("signing keys", detail, "", move |head, found| {
            if head.uri.path() == "/jwks" {
                found.edit(|body| body["keys"] = keys.clone());
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_that_does_not_arrive() {
    let edge = Edge::start().await;
    let on_mcp = |change: fn(&mut Answer)| {
        move |head: &Parts, found: &mut Answer| {
            if head.uri.path() == "/mcp" && head.method == Method::POST {
                change(found);
            }
        }
    };
    let gone = on_mcp(|found| found.remove("www-authenticate"));
    edge.finds("challenge", "lacks resource_metadata", "WWW-Authenticate", gone).await;
    let renamed = on_mcp(|found| {
        let value = found.headers.remove("www-authenticate").unwrap();
        found.headers.insert("x-amzn-remapped-www-authenticate", value);
    });
    edge.finds("challenge", "renames WWW-Authenticate", "Amazon API Gateway", renamed).await;
    let elsewhere = on_mcp(|found| {
        let metadata = "http://10.0.0.7:8787/.well-known/oauth-protected-resource/mcp";
        found.set("www-authenticate", &format!(r#"Bearer resource_metadata="{metadata}", scope="x""#));
    });
    edge.finds("challenge", "lacks resource_metadata", "--public-url", elsewhere).await;
    let open = on_mcp(|found| found.status = 200);
    edge.finds("challenge", "status 200", "without a token", open).await;
    let forbidden = on_mcp(|found| found.status = 403);
    edge.finds("challenge", "status 403", "Host header", forbidden).await;
    let redirected = on_mcp(|found| found.status = 301);
    edge.finds("challenge", "status 301", "without a redirect", redirected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_takes_the_authorization_header_for_itself() {
    let edge = Edge::start().await;
    edge.finds("Authorization", "does not see", "pass the Authorization header", |head, found| {
        if head.uri.path() == "/mcp" {
            let value = found.headers.get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
            if let Some(value) = value {
                found.set("www-authenticate", &value.replace(r#"error="invalid_token""#, r#"realm="x""#));
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cors_that_the_proxy_changes() {
    let edge = Edge::start().await;
    edge.finds("CORS", "web pages cannot call /token", "OPTIONS", |head, found| {
        if head.uri.path() == "/token" && head.method == Method::OPTIONS {
            found.status = 405;
        }
    })
    .await;
    edge.finds("CORS", "web pages cannot call /mcp", "add none", |_, found| {
        found.headers.append("access-control-allow-origin", HeaderValue::from_static("*"));
    })
    .await;
    edge.finds("CORS", "web pages cannot call /mcp", "add none", |_, found| {
        found.set("access-control-allow-credentials", "true");
    })
    .await;
    edge.finds("CORS", "may not read the challenge", "CORS headers", |_, found| {
        found.remove("access-control-expose-headers");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn error_pages_of_the_proxys_own() {
    let edge = Edge::start().await;
    edge.finds("unknown paths", "status 404, an HTML page", "error pages", |head, found| {
        if head.uri.path().contains("of-doctor") {
            found.replace_by(answer(404, "text/html", "<h1>404</h1>"));
        }
    })
    .await;
    edge.finds("token endpoint", "status 401, an HTML page", "error pages", |head, found| {
        if head.uri.path() == "/token" && head.method == Method::POST {
            found.replace_by(answer(401, "text/html", "<h1>401</h1>"));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_redirect() {
    // RFC 9700, section 4.11.
    let edge = Edge::start().await;
    edge.finds("authorization page", "an open redirect", "/authorize", |head, found| {
        if head.uri.path() == "/authorize" {
            found.status = 302;
            found.set("location", "https://of-doctor.invalid/callback?error=unauthorized_client");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_lost_its_headers() {
    // Several policies apply together, whether they are in one header or in two (CSP Level 3, "The effect of multiple
    // policies").
    const OURS: &str = "default-src 'none'; frame-ancestors 'none'";
    const POLICIES: [(&[&str], &str); 4] = [
        (&[], "framed"),
        (&[OURS, "form-action https:"], "2 Content-Security-Policies"),
        (&[OURS, "default-src 'self'"], "2 Content-Security-Policies"),
        (&["default-src 'none'; frame-ancestors 'none', img-src *"], "2 Content-Security-Policies"),
    ];
    let edge = Edge::start().await;
    for (name, is_path) in [
        ("authorization page", (|path| path == "/authorize") as fn(&str) -> bool),
        // It has the headers of the consent page, whose address it is.
        ("authorization request", |path| path.starts_with("/authorize/")),
        ("sign-in page", |path| path.starts_with("/sign-in/")),
    ] {
        for (policies, detail) in POLICIES {
            edge.finds(name, detail, "headers of the pages", move |head, found| {
                if is_path(head.uri.path()) {
                    found.remove("content-security-policy");
                    for policy in policies {
                        found.headers.append("content-security-policy", HeaderValue::from_static(policy));
                    }
                }
            })
            .await;
        }
        edge.finds(name, "stored", "headers of the pages", move |head, found| {
            if is_path(head.uri.path()) {
                found.remove("cache-control");
            }
        })
        .await;
    }
    edge.finds("authorization page", "form-action", "headers of the pages", |head, found| {
        if head.uri.path() == "/authorize" {
            found.set("content-security-policy", &format!("{OURS}; Form-Action 'self'"));
        }
    })
    .await;
    edge.finds("token endpoint", "may be stored", "Cache-Control", |head, found| {
        if head.uri.path() == "/token" {
            found.set("cache-control", "max-age=60");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firewall_that_refuses_a_host_by_its_user_agent() {
    let edge = Edge::start().await;
    for (user_agent, named) in [
        ("Claude-User", "Claude-User (claude.ai) at /.well-known/oauth-protected-resource/mcp: status 403"),
        ("python-httpx", "python-httpx/0.28.1"),
        ("openai-mcp", "openai-mcp/1.0.0 (ChatGPT)"),
        ("openai-connectors-oauth", "ChatGPT, tokens"),
        ("codex-mcp-client", "(Codex)"),
        ("node", "VS Code"),
        ("Cursor", "(Cursor)"),
        ("claude-code", "Claude Code"),
    ] {
        edge.finds("host user agents", named, "Block AI bots", move |head, found| {
            let theirs = head.headers.get("user-agent").map_or("", |value| value.to_str().unwrap());
            if theirs.starts_with(user_agent) {
                found.replace_by(answer(403, "text/plain", "blocked"));
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firewall_that_refuses_the_back_end_of_a_host_at_an_endpoint() {
    let edge = Edge::start().await;
    for (user_agent, path, status, kind, named) in [
        (
            "python-httpx",
            "/token",
            403,
            "text/html",
            "python-httpx/0.28.1 (claude.ai and Python) at /token: status 403, an HTML page",
        ),
        ("node", "/token", 406, "application/json", "at /token: status 406, JSON"),
        (
            "openai-mcp",
            "/register",
            200,
            "text/html",
            "openai-mcp/1.0.0 (ChatGPT) (ChatGPT) at /register: status 200",
        ),
        ("Claude-User", "/register", 429, "text/html", "Claude-User (claude.ai) at /register: status 429"),
    ] {
        edge.finds("host user agents", named, "pass every User-Agent", move |head, found| {
            let theirs = head.headers.get("user-agent").map_or("", |value| value.to_str().unwrap());
            if theirs.starts_with(user_agent) && head.uri.path() == path {
                found.replace_by(answer(status, kind, r#"{"error": "blocked"}"#));
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_limits_are_reached_has_been_reached() {
    let edge = Edge::start().await;
    edge.break_with(|head, found| {
        if head.headers.contains_key("user-agent") && head.method == Method::POST && head.uri.path() != "/mcp"
        {
            found.replace_by(answer(429, "application/json", r#"{"error": "temporarily_unavailable"}"#));
        }
    });
    let check = edge.examine().await.check("host user agents");
    assert_eq!(check.status, "ok", "{check:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firewall_that_refuses_requests_without_a_user_agent_or_with_a_challenge() {
    let edge = Edge::start().await;
    edge.break_with(|head, found| {
        // The first documents are asked for without one too.
        if !head.headers.contains_key("user-agent")
            && head.method == Method::POST
            && head.uri.path() == "/mcp"
        {
            found.replace_by(answer(403, "text/html", "<h1>Just a moment…</h1>"));
            found.set("cf-mitigated", "challenge");
        }
    });
    let check = edge
        .examine()
        .await
        .failed("host user agents", "no User-Agent (the sign-in of several hosts) at /mcp");
    assert!(check.advice.starts_with("This is Cloudflare. "), "{check:?}");
    assert!(
        check.detail.contains("a challenge of Cloudflare") && !check.detail.contains("Claude-User"),
        "{check:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_believes_forwarded_headers() {
    let edge = Edge::start().await;
    edge.finds("forwarded headers", "X-Forwarded-Host", "replace", |head, found| {
        if let Some(host) = head.headers.get("x-forwarded-host") {
            let resource = format!("https://{}/mcp", host.to_str().unwrap());
            found.edit(|body| body["resource"] = resource.into());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_that_everybody_reads() {
    let edge = Edge::start().await;
    edge.finds("metrics", "public", "--metrics-listen", |head, found| {
        if head.uri.path() == "/metrics" {
            found.replace_by(answer(200, "text/plain", "bondmcp_calls_total 1"));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong() {
    let edge = Edge::start().await;
    edge.break_with(|_, found| {
        let late = chrono::Utc::now() - chrono::TimeDelta::minutes(9);
        found.set("date", &httpdate::fmt_http_date(late.into()));
    });
    let check = edge.examine().await.warned("clock", "behind this computer's");
    assert!(check.advice.contains("clocks"), "{check:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_without_its_server() {
    let edge = Edge::start().await;
    edge.break_with(|_, found| found.replace_by(answer(502, "text/html", "<h1>Bad Gateway</h1>")));
    let report = edge.examine().await;
    report.failed("HTTP", "status 502, an HTML page");
    for name in &NAMES[1..] {
        assert_eq!(report.check(name).status, "skip");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_listens() {
    let edge = Edge::start().await;
    let (free, _held) = crate::common::refusing_port();
    let report = edge.examine_at(&format!("http://{free}"), &[]).await;
    let check = report.failed("TCP", "connection refused");
    assert!(check.advice.contains("TLS proxy"), "{check:?}");
    for name in NAMES {
        assert_eq!(report.check(name).status, "skip");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_hosts_refuse_and_missing_hsts() {
    let directory = tempfile::tempdir().unwrap();
    let (edge, front) = Edge::start_with_tls(directory.path()).await;
    front.present(true);
    let check = edge.examine().await.failed("TLS", "its certificate expired on 2021-02-03");
    assert!(check.advice.contains("Renew the certificate"), "{check:?}");
    front.present(false);
    let check = edge.examine_at(&edge.origin, &[]).await.failed("TLS", "not from a trusted authority");
    assert!(check.advice.contains("chain"), "{check:?}");
    let report = edge.examine().await;
    assert!(report.check("TLS").detail.starts_with("TLS 1.3, certificate from"), "{:#}", report.0);
    for name in NAMES {
        assert_eq!(report.check(name).status, "ok", "{name}: {:#}", report.0);
    }
    edge.break_with(|_, found| found.remove("strict-transport-security"));
    let report = edge.examine().await;
    assert!(report.warned("HSTS", "is not sent").advice.contains("max-age=31536000"));
}

#[tokio::test]
async fn a_url_that_is_no_public_one_is_refused() {
    for url in ["http://bond.example.com", "https://bond.example.com/mcp", "bond.example.com"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bondmcp-server"));
        let output = within(command.args(["doctor", "--public-url", url]).output()).await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{url}");
    }
}
