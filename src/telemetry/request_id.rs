//! Names of requests, by which the log lines of one are found.

use std::sync::Arc;

use http::{Extensions, Method};
use tracing::Span;
use uuid::Uuid;

/// Longest accepted id of a proxy, in characters.
const MAX_LENGTH: usize = 64;

/// Names one HTTP request in the log and in its answer. An extension of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4().simple().to_string().into())
    }

    /// Reads an id that a proxy has given; `None` if it is not a plain word.
    #[must_use]
    pub fn given(text: &str) -> Option<Self> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'=');
        let is_plain = (1..=MAX_LENGTH).contains(&text.len()) && text.bytes().all(is_word);
        is_plain.then(|| Self(text.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Makes the span of the request, which is on at every level of the log. The path is left out: that of a sign-in page
    /// is known to its person only.
    #[must_use]
    pub fn span(&self, method: &Method) -> Span {
        tracing::error_span!("http", request_id = %self.0, %method)
    }
}

/// Returns the span in the extensions of an HTTP request; a disabled one if there is none.
#[must_use]
pub fn span_of_request(extensions: &Extensions) -> Span {
    extensions.get().cloned().unwrap_or_else(Span::none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_a_proxy_is_a_plain_word() {
        for good in
            ["0af7651916cd43dd8448eb211c80319c", "1-67891233-abcdef012345678912345678", "Root=1-6789.a_b"]
        {
            assert_eq!(RequestId::given(good).unwrap().as_str(), good);
        }
        for wrong in ["", "a b", "a\nb", "a\"b", "ä", "{}", &"a".repeat(65)] {
            assert_eq!(RequestId::given(wrong), None, "{wrong}");
        }
        assert_ne!(RequestId::random(), RequestId::random());
        assert!(RequestId::given(RequestId::random().as_str()).is_some());
    }
}
