//! One line of jsonl.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};

/// The string `text` of a JSON object.
pub(crate) fn document(line: &[u8]) -> serde_json::Result<Cow<'_, str>> {
    serde_json::from_slice::<Document>(line).map(|document| document.0)
}

struct Document<'a>(Cow<'a, str>);

/// By hand, because a derived implementation would accept a list in place of an object.
impl<'de> Deserialize<'de> for Document<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Document<'de>, D::Error> {
        deserializer.deserialize_map(Object)
    }
}

struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Document<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document<'de>, A::Error> {
        #[derive(Deserialize)]
        struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);
        let mut found: Option<Cow<'de, str>> = None;
        while let Some(Borrowed(key)) = map.next_key()? {
            if key != "text" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let Borrowed(text) = map.next_value()?;
            if found.replace(text).is_some() {
                return Err(A::Error::custom("`text` occurs twice"));
            }
        }
        found.map(Document).ok_or_else(|| A::Error::custom("it has no `text`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_object_and_of_nothing_else() {
        assert_eq!(document(br#"{"id": [1, {"text": 3}], "text": "a\nb"}"#).unwrap(), "a\nb");
        assert_eq!(document(br#"{"te\u0078t": "escaped"}"#).unwrap(), "escaped");
        for (line, why) in [
            (r#"["a list"]"#, "an object"),
            (r#""a string""#, "an object"),
            (r#"{"text": 3}"#, "invalid type"),
            (r#"{"text": null}"#, "invalid type"),
            (r#"{"a": "b"}"#, "it has no `text`"),
            (r#"{"text": "a", "text": "b"}"#, "occurs twice"),
            (r#"{"text": "\ud800"}"#, "hex escape"),
            (r#"{"text": "a"} x"#, "trailing"),
            (r#"{"text": "#, "EOF"),
        ] {
            let found = document(line.as_bytes()).unwrap_err();
            assert!(found.to_string().contains(why), "{line}: {found}");
        }
    }
}
