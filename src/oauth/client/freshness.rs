//! How long an answer may be used again, and whether beyond that (HTTP caching: RFC 9111, section 4.2).

use std::time::Duration;

use http::{
    HeaderMap,
    header::{AGE, CACHE_CONTROL, DATE, EXPIRES, HeaderName},
};

/// The least, whatever the headers say: nobody makes this server fetch for every request.
const MIN_LIFETIME: Duration = Duration::from_mins(1);

/// The most, whatever the headers say.
const MAX_LIFETIME: Duration = Duration::from_hours(24);

/// What is assumed where the headers say nothing (RFC 9111, section 4.2.2).
const USUAL_LIFETIME: Duration = Duration::from_hours(1);

/// Returns how long an answer with these headers is fresh.
pub fn lifetime(headers: &HeaderMap) -> Duration {
    let stated = cache_control_lifetime(&cache_control(headers));
    let lifetime = stated.or_else(|| expires(headers)).unwrap_or(USUAL_LIFETIME);
    let age = text(headers, AGE).and_then(|age| age.trim().parse().ok()).map(Duration::from_secs);
    lifetime.saturating_sub(age.unwrap_or_default()).clamp(MIN_LIFETIME, MAX_LIFETIME)
}

/// Whether an answer with these headers may be used when it is no longer fresh (RFC 9111, section 4.2.4). This is a shared
/// cache, which `s-maxage` and `proxy-revalidate` are for.
pub fn may_be_used_stale(headers: &HeaderMap) -> bool {
    !cache_control(headers).iter().any(|directive| {
        matches!(&**directive, "no-store" | "no-cache" | "must-revalidate" | "proxy-revalidate")
            || directive.starts_with("s-maxage=")
    })
}

/// Returns the directives of all `Cache-Control` lines, in lower case.
fn cache_control(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|directive| directive.trim().to_ascii_lowercase()).collect()
}

fn cache_control_lifetime(directives: &[String]) -> Option<Duration> {
    if directives.iter().any(|directive| matches!(&**directive, "no-store" | "no-cache")) {
        return Some(Duration::ZERO);
    }
    // This is a shared cache: it serves everybody who uses the client.
    ["s-maxage", "max-age"].into_iter().find_map(|name| {
        let value =
            directives.iter().find_map(|directive| directive.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.trim_matches('"').parse().map_or(Duration::ZERO, Duration::from_secs))
    })
}

/// Returns the lifetime by `Expires`; what cannot be read has expired (RFC 9111, section 5.3).
fn expires(headers: &HeaderMap) -> Option<Duration> {
    let expires = text(headers, EXPIRES)?;
    let time = |text: &str| httpdate::parse_http_date(text).ok();
    let date = time(text(headers, DATE)?)?;
    Some(time(expires).and_then(|expires| expires.duration_since(date).ok()).unwrap_or_default())
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_decide_within_a_minute_and_a_day() {
        let date = ("date", "Sun, 29 Nov 2026 10:00:00 GMT");
        for (headers, seconds) in [
            (&[][..], 3600),
            (&[("cache-control", "public")], 3600),
            (&[("cache-control", "public, max-age=600")], 600),
            (&[("cache-control", "Max-Age=\"600\"")], 600),
            (&[("cache-control", "max-age=600, s-maxage=1200")], 1200),
            (&[("cache-control", "max-age=600"), ("age", "100")], 500),
            (&[("cache-control", "max-age=600"), ("age", "1000")], 60),
            (&[("cache-control", "max-age=0")], 60),
            (&[("cache-control", "max-age=x")], 60),
            (&[("cache-control", "no-store, max-age=600")], 60),
            (&[("cache-control", "no-cache")], 60),
            (&[("cache-control", "max-age=31536000, immutable")], 86400),
            (&[date, ("expires", "Sun, 29 Nov 2026 10:10:00 GMT")], 600),
            (&[date, ("expires", "Sun, 29 Nov 2026 09:00:00 GMT")], 60),
            (&[date, ("expires", "0")], 60),
            (&[date, ("expires", "0"), ("cache-control", "max-age=600")], 600),
        ] {
            let map: HeaderMap =
                headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            assert_eq!(lifetime(&map), Duration::from_secs(seconds), "{headers:?}");
        }
    }
}
