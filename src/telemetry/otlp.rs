//! Traces for an OpenTelemetry collector (OTLP over HTTP, protobuf), in builds with the feature `otlp`. The operator names
//! the collector with the variables of the OpenTelemetry specification; without them nothing is sent. What is sent is
//! redacted as the log is, and goes through the same HTTP client as everything else.

use std::{pin::Pin, sync::OnceLock, time::Duration};

use bytes::Bytes;
use opentelemetry::{
    Array, Context, KeyValue, StringValue, Value,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{Status, TraceContextExt as _, TracerProvider as _},
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::WithHttpConfig as _;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use tokio::runtime::Handle;
use tracing::{Span, Subscriber, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

use crate::{config::BaseUrl, redact::Redactor};

/// Any of them turns traces on.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// Longest duration of one request to the collector, and of the last one before the process ends.
const TIMEOUT: Duration = Duration::from_secs(5);

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Why traces cannot be sent, in words for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("traces are not sent: the OTEL_EXPORTER_OTLP variables name no usable collector")]
pub(super) struct SetupError;

/// Returns what sends spans to the collector; `None` if the operator named none. Runs in a tokio runtime.
pub(super) fn layer<S>(redactor: Redactor) -> Result<Option<impl Layer<S> + Send + Sync>, SetupError>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !ENDPOINTS.iter().any(|name| is_set(name)) {
        return Ok(None);
    }
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(TIMEOUT);
    // A proxy could read what goes to this computer in clear text.
    let http = if ENDPOINTS.iter().any(|name| is_in_clear(name)) { http.no_proxy() } else { http };
    let http = http.build().map_err(|_| SetupError)?;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(Http { http, runtime: Handle::current() })
        .build()
        .map_err(|_| SetupError)?;
    let mut resource = Resource::builder();
    if !is_set("OTEL_SERVICE_NAME") {
        resource = resource.with_service_name(env!("CARGO_PKG_NAME"));
    }
    let provider = SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_batch_exporter(Redacting { exporter, redactor })
        .build();
    let tracer = provider.tracer(env!("CARGO_PKG_NAME"));
    // There is one subscriber in a process.
    let _ = PROVIDER.set(provider);
    let layer = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false);
    // Other crates' spans may hold whole requests.
    Ok(Some(layer.with_filter(Targets::new().with_target(env!("CARGO_CRATE_NAME"), LevelFilter::INFO))))
}

/// Whether the variable `name` is an address on this computer without TLS.
fn is_in_clear(name: &str) -> bool {
    let url = std::env::var(name).ok().and_then(|url| url.parse::<BaseUrl>().ok());
    url.is_some_and(|url| !url.is_https())
}

/// Sends what has not been sent yet.
pub async fn flush() {
    let Some(provider) = PROVIDER.get() else { return };
    // It blocks until the runtime has sent the last spans.
    let flushed = tokio::task::spawn_blocking(|| provider.shutdown_with_timeout(TIMEOUT)).await;
    if !matches!(flushed, Ok(Ok(()))) {
        tracing::warn!("the last traces were not sent");
    }
}

/// Makes `span` part of the trace that a caller names (W3C Trace Context, carried in `_meta`: MCP 2026-07-28), with a link
/// to the span that it would be part of otherwise, of its HTTP request. What is no valid context is ignored.
pub fn continue_trace(span: &Span, traceparent: Option<&str>) {
    if PROVIDER.get().is_some() {
        let here = Context::current();
        let context = TraceContextPropagator::new().extract_with_context(&here, &TraceParent(traceparent));
        let of_caller = context.span().span_context().is_remote();
        // Fails for a span that is filtered out.
        if of_caller && span.set_parent(context).is_ok() {
            span.add_link(here.span().span_context().clone());
        }
    }
}

/// Ids only: `tracestate` is text of the caller, which would be sent on.
struct TraceParent<'a>(Option<&'a str>);

impl Extractor for TraceParent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.filter(|_| key == "traceparent")
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

/// The HTTP client, for the exporter's thread, which is none of the runtime's.
#[derive(Debug)]
struct Http {
    http: reqwest::Client,
    runtime: Handle,
}

type Sending<'a> = Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Http {
    fn send_bytes<'a, 'sending>(&'a self, request: http::Request<Bytes>) -> Sending<'sending>
    where
        'a: 'sending,
        Self: 'sending,
    {
        let http = self.http.clone();
        let sending = self.runtime.spawn(async move {
            let response = http.execute(request.try_into()?).await?;
            let status = response.status();
            let body = response.bytes().await?;
            let mut response = http::Response::new(body);
            *response.status_mut() = status;
            Ok::<_, HttpError>(response)
        });
        Box::pin(async move { sending.await? })
    }
}

/// An exporter of spans without secrets.
#[derive(Debug)]
struct Redacting<E> {
    exporter: E,
    redactor: Redactor,
}

impl<E: SpanExporter> SpanExporter for Redacting<E> {
    async fn export(&self, mut spans: Vec<SpanData>) -> OTelSdkResult {
        for span in &mut spans {
            self.clean(span);
        }
        self.exporter.export(spans).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E> Redacting<E> {
    fn clean(&self, span: &mut SpanData) {
        self.clean_all(&mut span.attributes);
        for event in &mut span.events.events {
            event.name = self.redactor.redact(&event.name).into_owned().into();
            self.clean_all(&mut event.attributes);
        }
        if let Status::Error { description } = &mut span.status {
            *description = self.redactor.redact(description).into_owned().into();
        }
    }

    fn clean_all(&self, attributes: &mut [KeyValue]) {
        for attribute in attributes {
            match &mut attribute.value {
                Value::String(text) => self.clean_text(text),
                Value::Array(Array::String(texts)) => texts.iter_mut().for_each(|text| self.clean_text(text)),
                _ => {}
            }
        }
    }

    fn clean_text(&self, text: &mut StringValue) {
        *text = self.redactor.redact(text.as_str()).into_owned().into();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// An exporter that keeps what it is given.
    #[derive(Clone, Debug, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(spans);
            Ok(())
        }
    }

    #[test]
    fn spans_and_their_events_leave_without_secrets() {
        let (exporter, redactor) = (Kept::default(), Redactor::default());
        redactor.remember(&"correct horse".into());
        let kept = exporter.0.clone();
        let exporter = Redacting { exporter, redactor };
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("call", text = "a correct horse", shown = ?["correct horse"]);
            let _entered = span.enter();
            tracing::error!(error = "no correct horse", "message correct horse");
        });
        let spans = format!("{:?}", kept.lock().unwrap());
        assert!(!spans.contains("correct horse"), "{spans}");
        assert!(spans.matches("[redacted]").count() >= 4, "{spans}");
    }
}
