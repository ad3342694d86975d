//! The figures of this process for its operator, in the text format of Prometheus. They are the process's as the log is:
//! every layer adds to them. A label is one of our own words, which its type ensures, never what somebody wrote.

use std::{sync::LazyLock, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, prometheus_text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

/// The media type of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of histograms, in seconds: from a lookup in the store to a long answer of a model.
const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

type Durations<Labels> = Family<Labels, Histogram, fn() -> Histogram>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    tool: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tool {
    tool: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Exchange {
    endpoint: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Step {
    step: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Limited {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Debug)]
struct Metrics {
    registry: Registry,
    calls: Family<Call, Counter>,
    call_durations: Durations<Tool>,
    exchanges: Durations<Exchange>,
    renewals: Family<Outcome, Counter>,
    sign_ins: Family<Outcome, Counter>,
    authorization: Family<Step, Counter>,
    token_requests: Family<Outcome, Counter>,
    ended: Family<Ended, Counter>,
    limited: Family<Limited, Counter>,
    store: Durations<Operation>,
    sessions: Gauge,
    ready: Gauge,
}

impl Metrics {
    fn new() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let mut metrics = Self {
            registry: Registry::with_prefix("bondmcp"),
            calls: Family::default(),
            call_durations: Family::new_with_constructor(histogram),
            exchanges: Family::new_with_constructor(histogram),
            renewals: Family::default(),
            sign_ins: Family::default(),
            authorization: Family::default(),
            token_requests: Family::default(),
            ended: Family::default(),
            limited: Family::default(),
            store: Family::new_with_constructor(histogram),
            sessions: Gauge::default(),
            ready: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "build",
            "Version of the server",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register("tool_calls", "Tool calls by tool and outcome", self.calls.clone());
        let help = "Time from a tool call to its answer, waits for the person included";
        registry.register("tool_call_duration_seconds", help, self.call_durations.clone());
        let help = "Time of a request to BondMCP, by endpoint and class of the status";
        registry.register("upstream_request_duration_seconds", help, self.exchanges.clone());
        registry.register("session_renewals", "Renewals of sessions at BondMCP", self.renewals.clone());
        registry.register("sign_ins", "Log-ins at BondMCP with e-mail and password", self.sign_ins.clone());
        registry.register("authorization_steps", "Steps of OAuth authorizations", self.authorization.clone());
        let help = "Requests to /token by their outcome: ok, or the OAuth error";
        registry.register("token_requests", help, self.token_requests.clone());
        let help = "Grants that have ended, and why; replay is a code or refresh token that was used again";
        registry.register("grants_ended", help, self.ended.clone());
        registry.register("limited_requests", "Requests that were refused by a limit", self.limited.clone());
        let help = "Time of an operation on the vault";
        registry.register("store_operation_duration_seconds", help, self.store.clone());
        let help = "Open MCP sessions (revisions before 2026-07-28)";
        registry.register("mcp_sessions", help, self.sessions.clone());
        registry.register("ready", "Whether the store and the signing key can be used", self.ready.clone());
    }
}

/// Counts a call of a tool, or of one that there is not, which has the name `unknown`.
pub fn tool_call(tool: &'static str, outcome: &'static str, duration: Duration) {
    METRICS.calls.get_or_create(&Call { tool, outcome }).inc();
    METRICS.call_durations.get_or_create(&Tool { tool }).observe(duration.as_secs_f64());
}

/// Counts a request to BondMCP. `endpoint` is a template of a path, `status` a class such as `2xx`.
pub fn upstream_request(endpoint: &'static str, status: &'static str, duration: Duration) {
    METRICS.exchanges.get_or_create(&Exchange { endpoint, status }).observe(duration.as_secs_f64());
}

pub fn session_renewal(outcome: &'static str) {
    METRICS.renewals.get_or_create(&Outcome { outcome }).inc();
}

pub fn sign_in(outcome: &'static str) {
    METRICS.sign_ins.get_or_create(&Outcome { outcome }).inc();
}

/// Counts a step of an authorization, such as a consent that was given or denied.
pub fn authorization_step(step: &'static str) {
    METRICS.authorization.get_or_create(&Step { step }).inc();
}

pub fn token_request(outcome: &'static str) {
    METRICS.token_requests.get_or_create(&Outcome { outcome }).inc();
}

pub fn grant_ended(reason: &'static str) {
    METRICS.ended.get_or_create(&Ended { reason }).inc();
}

pub fn limited_request(class: &'static str) {
    METRICS.limited.get_or_create(&Limited { class }).inc();
}

pub fn store_operation(operation: &'static str, outcome: &'static str, duration: Duration) {
    METRICS.store.get_or_create(&Operation { operation, outcome }).observe(duration.as_secs_f64());
}

pub fn set_mcp_sessions(open: usize) {
    METRICS.sessions.set(i64::try_from(open).unwrap_or(i64::MAX));
}

pub fn set_ready(is_ready: bool) {
    METRICS.ready.set(is_ready.into());
}

/// Returns all figures.
#[must_use]
pub fn text() -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = prometheus_text::encode(&mut text, &METRICS.registry);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_those_of_the_process() {
        tool_call("a_test", "ok", Duration::from_millis(3));
        tool_call("a_test", "ok", Duration::from_secs(90));
        set_mcp_sessions(3);
        let text = text();
        for line in [
            "# TYPE bondmcp_tool_calls_total counter",
            "bondmcp_tool_calls_total{tool=\"a_test\",outcome=\"ok\"} 2",
            "bondmcp_tool_call_duration_seconds_bucket{tool=\"a_test\",le=\"0.005\"} 1",
            "bondmcp_tool_call_duration_seconds_bucket{tool=\"a_test\",le=\"+Inf\"} 2",
            "bondmcp_mcp_sessions 3",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
