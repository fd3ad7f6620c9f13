//! JSON files that Python programs write.

use serde_json::Value;

use crate::source::BYTE_ORDER_MARK;

/// Parses JSON as Python's `json` writes it: `NaN` and `Infinity` become `null`. There may be a byte order mark, which some
/// editors add.
pub fn python_json(bytes: &[u8]) -> serde_json::Result<Value> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    serde_json::from_slice(bytes).or_else(|error| match without_nonfinite(bytes) {
        Some(bytes) => serde_json::from_slice(&bytes),
        None => Err(error),
    })
}

/// The same with `null` in place of each number that is not finite, except in strings; none if there is no such number.
fn without_nonfinite(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let (mut rest, mut is_string, mut is_changed) = (bytes, false, false);
    while let [first, after @ ..] = rest {
        let word =
            [&b"-Infinity"[..], b"Infinity", b"NaN"].into_iter().find(|word| !is_string && rest.starts_with(word));
        if let Some(word) = word {
            out.extend_from_slice(b"null");
            (rest, is_changed) = (&rest[word.len()..], true);
            continue;
        }
        let taken = if is_string && *first == b'\\' { 2.min(rest.len()) } else { 1 };
        is_string ^= *first == b'"' && taken == 1;
        out.extend_from_slice(&rest[..taken]);
        rest = if taken == 1 { after } else { &rest[taken..] };
    }
    is_changed.then_some(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_that_are_not_finite_are_null_and_strings_stay() {
        for (text, expected) in [
            ("{\"a\": NaN}", json!({ "a": null })),
            ("[Infinity, -Infinity, 1]", json!([null, null, 1])),
            ("{\"a\": \"NaN \\\" Infinity\", \"b\": NaN}", json!({ "a": "NaN \" Infinity", "b": null })),
            ("\u{feff}{\"a\": 1}", json!({ "a": 1 })),
        ] {
            assert_eq!(python_json(text.as_bytes()).unwrap(), expected, "{text}");
        }
        for broken in ["{\"a\": NaN", "{\"a\": NaNs}", "nan", "{\"a\": \"NaN}", ""] {
            assert!(python_json(broken.as_bytes()).is_err(), "{broken}");
        }
    }
}
