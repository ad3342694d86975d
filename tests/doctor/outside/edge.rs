//! A hosted server, and a proxy in front of it that changes answers.

use std::{
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, request::Parts},
    response::Response,
};
use serde_json::Value;
use tokio::{net::TcpListener, process::Command};

use crate::{
    Report,
    common::{
        hosted_server::{HostedServer, Setup},
        within,
    },
    upstreams::Front,
};

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

/// What the edge does to the answer of the server.
type Fault = Box<dyn Fn(&Parts, &mut Answer) + Send>;

/// A hosted server and what stands in front of it.
#[derive(Clone)]
pub struct Edge {
    /// The public URL.
    pub origin: String,
    /// What `doctor` trusts, besides what the operating system does.
    certificate: Option<String>,
    server: Arc<HostedServer>,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl Edge {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        Self::serve(listener, origin, None).await
    }

    /// Starts one with TLS, whose certificate is in `directory`.
    pub async fn start_with_tls(directory: &Path) -> (Self, Front) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = Front::start(listener.local_addr().unwrap(), directory).await;
        let certificate = front.present(false).to_str().unwrap().to_owned();
        let origin = format!("https://{}", front.address);
        (Self::serve(listener, origin, Some(certificate)).await, front)
    }

    async fn serve(listener: TcpListener, origin: String, certificate: Option<String>) -> Self {
        let setup = Setup { origin: Some(origin.clone()), ..Setup::default() };
        let server = Arc::new(HostedServer::start_with(setup).await);
        let edge = Self { origin, certificate, server, fault: Arc::default() };
        let router = Router::new().fallback(Self::answer).with_state(edge.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        edge
    }

    async fn answer(State(edge): State<Self>, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let url = edge.server.at(&head.uri.to_string());
        let request = edge.server.http.request(head.method.clone(), url).headers(head.headers.clone());
        let answered = within(request.body(body).send()).await.unwrap();
        let (status, headers) = (answered.status().as_u16(), answered.headers().clone());
        let mut answer = Answer { status, headers, body: within(answered.text()).await.unwrap() };
        // The edge sends another body, perhaps.
        answer.remove("content-length");
        answer.remove("transfer-encoding");
        answer.set("strict-transport-security", "max-age=31536000");
        if let Some(fault) = &*edge.fault.lock().unwrap() {
            fault(&head, &mut answer);
        }
        let mut response = Response::new(Body::from(answer.body));
        *response.status_mut() = answer.status.try_into().unwrap();
        *response.headers_mut() = answer.headers;
        response
    }

    pub fn break_with(&self, fault: impl Fn(&Parts, &mut Answer) + Send + 'static) {
        *self.fault.lock().unwrap() = Some(Box::new(fault));
    }

    pub async fn examine(&self) -> Report {
        let certificate = self.certificate.as_deref().map(|certificate| ("SSL_CERT_FILE", certificate));
        self.examine_at(&self.origin, certificate.as_slice()).await
    }

    pub async fn examine_at(&self, url: &str, environment: &[(&str, &str)]) -> Report {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bondmcp-server"));
        command.args(["doctor", "--json", "--public-url", url]).env_clear().stdin(Stdio::null());
        command.envs(environment.iter().copied());
        let output = within(command.output()).await.unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        Report::of(&String::from_utf8(output.stdout).unwrap(), output.status.code())
    }

    /// Finds `name` broken by `fault`, and whole without it.
    pub async fn finds(
        &self,
        name: &str,
        detail: &str,
        advice: &str,
        fault: impl Fn(&Parts, &mut Answer) + Send + 'static,
    ) {
        self.break_with(fault);
        let report = self.examine().await;
        let check = report.failed(name, detail);
        assert!(check.advice.contains(advice), "{check:?}");
        *self.fault.lock().unwrap() = None;
        let check = self.examine().await.check(name);
        assert_eq!(check.status, "ok", "{check:?}");
    }
}

pub fn answer(status: u16, kind: &'static str, body: &(impl ToString + ?Sized)) -> Answer {
    let mut answer = Answer { status, headers: HeaderMap::new(), body: body.to_string() };
    answer.set("content-type", kind);
    answer
}

impl Answer {
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn remove(&mut self, name: &str) {
        self.headers.remove(name);
    }

    /// Changes a JSON body.
    pub fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let mut body = serde_json::from_str(&self.body).unwrap();
        change(&mut body);
        self.body = body.to_string();
    }

    pub fn replace_by(&mut self, other: Self) {
        *self = other;
    }
}
