//! Logging: to stderr only, because stdout belongs to the protocol; redacted line by line, because dependencies log
//! too; one line per event, whatever it contains. Also the panic hook, because a panic message may quote the data that
//! caused it.

#[cfg(feature = "otlp")]
mod otlp;
mod request_id;
mod stderr;

use std::{
    borrow::Cow,
    io::{self, Write},
};

use clap::ValueEnum;
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer as _,
    filter::Targets,
    fmt::{self, MakeWriter},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

#[cfg(feature = "otlp")]
pub use self::otlp::{continue_trace, flush};
pub use self::request_id::{RequestId, span_of_request};
use crate::{
    redact::Redactor,
    text::{escaped, escaped_json},
};

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Plain text, for people.
    #[default]
    Text,
    /// One JSON object a line, for log collectors.
    Json,
}

/// Starts logging to stderr at `level`, and reports panics there without their messages. Other crates log at most at
/// `error`: some print whole requests, results and SQL at lower levels. The log of a server that a host has started is
/// lost where the host does not read it.
#[expect(clippy::disallowed_methods, reason = "what passes here is escaped and redacted")]
pub fn init(level: LevelFilter, format: LogFormat, redactor: Redactor, is_started_by_host: bool) {
    #[cfg(feature = "otlp")]
    let (otlp, problem) = match otlp::layer(redactor.clone()) {
        Ok(layer) => (layer, None),
        Err(problem) => (None, Some(problem)),
    };
    let sink = move || -> Box<dyn Write> {
        if is_started_by_host { Box::new(stderr::HostsStderr) } else { Box::new(io::stderr()) }
    };
    let subscriber = subscriber(level, format, redactor, sink);
    #[cfg(feature = "otlp")]
    let subscriber = subscriber.with(otlp);
    if subscriber.try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string);
            tracing::error!(place, "a panic was caught; this is a bug, please report it");
        }));
    }
    #[cfg(feature = "otlp")]
    if let Some(problem) = problem {
        tracing::error!(%problem, "OpenTelemetry");
    }
}

/// Writes events as lines to what `sink` opens, with one write per line.
fn subscriber<W: Write>(
    level: LevelFilter,
    format: LogFormat,
    redactor: Redactor,
    sink: impl Fn() -> W + Send + Sync + 'static,
) -> impl Subscriber + for<'span> LookupSpan<'span> + Send + Sync {
    let filter = Targets::new()
        .with_default(level.min(LevelFilter::ERROR))
        .with_target(env!("CARGO_CRATE_NAME"), level);
    let layer = fmt::layer().with_writer(LineWriter { format, redactor, sink });
    let layer = match format {
        LogFormat::Text => layer.with_ansi(false).boxed(),
        LogFormat::Json => layer.json().boxed(),
    };
    // A filter for all layers costs less, but what goes to a collector is not filtered as the log is.
    #[cfg(feature = "otlp")]
    return tracing_subscriber::registry().with(layer.with_filter(filter));
    #[cfg(not(feature = "otlp"))]
    tracing_subscriber::registry().with(filter).with(layer)
}

/// A log file or terminal behind the redactor. Each log line is written whole, in one write.
struct LineWriter<S> {
    format: LogFormat,
    redactor: Redactor,
    sink: S,
}

impl<S> LineWriter<S> {
    /// Returns the line without secrets and without characters that would end it early or act on a terminal.
    fn cleaned<'a>(&self, line: &'a str) -> Cow<'a, str> {
        let line = self.redactor.redact(line);
        let escape = match self.format {
            LogFormat::Text => escaped,
            LogFormat::Json => escaped_json,
        };
        match escape(&line) {
            Cow::Owned(escaped) => escaped.into(),
            Cow::Borrowed(_) => line,
        }
    }
}

impl<'a, W: Write, S: Fn() -> W + 'a> MakeWriter<'a> for LineWriter<S> {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl<W: Write, S: Fn() -> W> Write for &LineWriter<S> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = self.cleaned(text.strip_suffix('\n').unwrap_or(&text));
        (self.sink)().write_all(format!("{text}\n").as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        (self.sink)().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    const HOSTILE: &str =
        "a\r\n2026-01-01T00:00:00Z ERROR forged\u{1b}]0;x\u{7}\u{202e}\u{200b}\u{9b}\u{2028}";

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Logs an event with hostile fields and a secret; returns the log.
    fn logged(format: LogFormat) -> String {
        let redactor = Redactor::default();
        redactor.remember(&"correct horse".into());
        let buffer = Buffer::default();
        let sink = buffer.clone();
        let subscriber = subscriber(LevelFilter::TRACE, format, redactor, move || sink.clone());
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("call", name = HOSTILE);
            let _entered = span.enter();
            tracing::warn!(text = HOSTILE, shown = %HOSTILE, quoted = ?HOSTILE, "message {HOSTILE} correct horse");
        });
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_event_is_one_line_that_nothing_in_it_can_forge() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let log = logged(format);
            assert_eq!(log.matches('\n').count(), 1, "{log}");
            let line = log.strip_suffix('\n').unwrap();
            assert_eq!(escaped(line), line, "{format:?}");
            assert!(line.contains("forged") && line.contains("[redacted]"), "{line}");
        }
    }

    #[test]
    fn a_json_log_line_says_what_was_logged() {
        let line: serde_json::Value = serde_json::from_str(&logged(LogFormat::Json)).unwrap();
        assert_eq!(line["fields"]["text"], HOSTILE);
    }
}
