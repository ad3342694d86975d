//! How much memory JSON takes once it is parsed: many times its length, if it is made for that.

/// Largest estimate with which JSON is parsed, in bytes.
pub const MAX_PARSED_BYTES: usize = 32 << 20;

// What the copies of a value in a request, rmcp's and ours, were measured to take together, in bytes. In an answer there
// are fewer of them.
const OBJECT_BYTES: usize = 1400;
const ARRAY_BYTES: usize = 700;
const VALUE_BYTES: usize = 200;

/// Whether JSON takes no more memory than it may.
#[must_use]
pub fn is_parsable(json: &[u8]) -> bool {
    parsed_bytes_at_most(json) <= MAX_PARSED_BYTES || parsed_bytes(json) <= MAX_PARSED_BYTES
}

/// Returns an upper bound of [`parsed_bytes`], faster: for what is far below any limit.
#[must_use]
pub fn parsed_bytes_at_most(json: &[u8]) -> usize {
    json.iter().filter(|byte| matches!(byte, b'{' | b'[' | b',')).count().saturating_mul(OBJECT_BYTES)
}

/// Returns an estimate of the memory that JSON takes once it is parsed, in bytes.
#[must_use]
pub fn parsed_bytes(json: &[u8]) -> usize {
    // The parser stops where anything else begins.
    if !matches!(json.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return 0;
    }
    let (mut bytes, mut is_text, mut is_escaped) = (0_usize, false, false);
    for byte in json {
        if is_text {
            (is_text, is_escaped) = (*byte != b'"' || is_escaped, *byte == b'\\' && !is_escaped);
            continue;
        }
        bytes = bytes.saturating_add(match byte {
            b'"' => {
                is_text = true;
                0
            }
            b'{' => OBJECT_BYTES,
            b'[' => ARRAY_BYTES,
            b',' => VALUE_BYTES,
            _ => 0,
        });
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_count_and_what_is_in_strings_does_not() {
        for (json, bytes) in [
            (r#"{"a": [1, 2]}"#, OBJECT_BYTES + ARRAY_BYTES + VALUE_BYTES),
            (r#"["{,[", "\\", "\"{", 1]"#, ARRAY_BYTES + 3 * VALUE_BYTES),
            (r#"  ["\\\"{"]"#, ARRAY_BYTES),
            ("time,value\n1,2\n", 0),
            ("", 0),
        ] {
            assert_eq!(parsed_bytes(json.as_bytes()), bytes, "{json}");
            assert!(parsed_bytes_at_most(json.as_bytes()) >= bytes, "{json}");
        }
    }

    #[test]
    fn what_is_large_is_parsed_and_what_is_made_to_be_larger_is_not() {
        let readings = vec![r#"{"time":"2026-11-30T00:00:00Z","value":71.5}"#; 10_000].join(",");
        assert!(is_parsable(format!("[{readings}]").as_bytes()));
        assert!(!is_parsable(format!("[{}]", r#"{"":0},"#.repeat(1 << 19)).as_bytes()));
    }
}
