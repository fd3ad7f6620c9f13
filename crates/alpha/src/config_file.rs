//! `--config=FILE`: flags from a file, TOML or flat JSON, told apart by the first character
//! (only JSON begins with a brace). Keys are the flags' names, in either spelling. A list
//! gives a flag several times; a JSON `null` leaves it out, so that a run folder's
//! `config.json` can be given back.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use crate::{
    exit::Failure,
    flags::layer::{self, Layer},
};

/// Reads and checks the file: every key is a flag, every value one that the flag takes.
pub(crate) fn read(file: &Path) -> Result<Layer, Failure> {
    let place = format!("`{}`", file.display());
    let bytes = fs::read(file).map_err(|error| {
        Failure::failed(format!("cannot read {place}: {error}")).hint("`--config` takes a TOML or JSON file with flags")
    })?;
    parse(&bytes).map_err(|failure| failure.within(&place))
}

/// [`read`], of a file's content.
pub(crate) fn parse(bytes: &[u8]) -> Result<Layer, Failure> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Failure::usage(format!("byte {} is not UTF-8", error.valid_up_to())).hint(FORM))?;
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text); // Windows programs begin files with it
    let layer = if text.trim_start().starts_with('{') {
        let Entries(entries) = serde_json::from_str(text)
            .map_err(|error| Failure::usage(format!("not valid JSON: {error}")).hint(FORM))?;
        from_entries(entries.iter().map(|(key, value)| (key, value)))?
    } else {
        let table: toml::Table = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            Failure::usage(format!("line {line} is not valid TOML: {}", error.message())).hint(FORM)
        })?;
        from_toml(&table)?
    };
    layer.parse()?;
    Ok(layer)
}

const FORM: &str = "a line is a flag with its value: `steps = 100` (TOML), `{\"steps\": 100}` (JSON)";

/// The flags of a JSON object, unparsed.
pub(crate) fn from_json(object: &serde_json::Map<String, serde_json::Value>) -> Result<Layer, Failure> {
    from_entries(object)
}

/// A JSON object as it is written, repeated keys included.
struct Entries(Vec<(String, serde_json::Value)>);

impl<'de> serde::Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
        struct Read;
        impl<'de> serde::de::Visitor<'de> for Read {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// Keys that were read, by the flags that they mean. A flag that was given twice is an error.
#[derive(Default)]
struct Seen(BTreeMap<String, String>);

impl Seen {
    fn flag(&mut self, key: &str) -> Result<String, Failure> {
        let name = flag_name(key)?;
        match self.0.insert(name.clone(), key.to_owned()) {
            None => Ok(name),
            Some(first) if first == key => Err(Failure::usage(format!("`{key}` is there twice")).hint(ONCE)),
            Some(first) => Err(Failure::usage(format!("`{first}` and `{key}` are one flag")).hint(ONCE)),
        }
    }
}

const ONCE: &str = "keep one of the two";

fn from_entries<'a>(entries: impl IntoIterator<Item = (&'a String, &'a serde_json::Value)>) -> Result<Layer, Failure> {
    use serde_json::Value;
    let (mut layer, mut seen) = (Layer::default(), Seen::default());
    for (key, value) in entries {
        let name = seen.flag(key)?;
        let values = if let Value::Array(values) = value { values.as_slice() } else { std::slice::from_ref(value) };
        for value in values {
            match value {
                Value::Null => {}
                Value::Bool(value) => layer.add(&name, value.to_string()),
                Value::Number(value) => layer.add(&name, value.to_string()),
                Value::String(value) => layer.add(&name, value),
                Value::Array(_) | Value::Object(_) => return Err(nested(key)),
            }
        }
    }
    Ok(layer)
}

fn from_toml(table: &toml::Table) -> Result<Layer, Failure> {
    use toml::Value;
    let (mut layer, mut seen) = (Layer::default(), Seen::default());
    for (key, value) in table {
        let name = seen.flag(key)?;
        let values = if let Value::Array(values) = value { values.as_slice() } else { std::slice::from_ref(value) };
        for value in values {
            match value {
                Value::Boolean(value) => layer.add(&name, value.to_string()),
                Value::Integer(value) => layer.add(&name, value.to_string()),
                Value::Float(value) => layer.add(&name, value.to_string()),
                Value::String(value) => layer.add(&name, value),
                Value::Datetime(value) => layer.add(&name, value.to_string()),
                Value::Array(_) | Value::Table(_) => return Err(nested(key)),
            }
        }
    }
    Ok(layer)
}

fn flag_name(key: &str) -> Result<String, Failure> {
    match layer::documented_name(key) {
        Some(name) if name == "config" => {
            Err(Failure::usage("`config` inside a config file").hint("put all flags into one file"))
        }
        Some(name) => Ok(name),
        None => Err(layer::unknown_name(key)),
    }
}

fn nested(key: &str) -> Failure {
    Failure::usage(format!("`{key}` holds more than a value")).hint(FORM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().text()
    }

    #[test]
    fn toml_and_json_say_the_same() {
        let toml = "steps = 5\naccum-steps = 2\nlr = 3e-4\ntie = false\nsamplePrompts = ['a', '-b']\n";
        let json = r#"{"steps":5,"accumSteps":2,"lr":0.0003,"tie":false,"samplePrompts":["a","-b"],"init":null}"#;
        assert_eq!(parse(toml.as_bytes()), parse(json.as_bytes()));
        let flags = parse(toml.as_bytes()).unwrap().parse().unwrap();
        assert_eq!((flags.steps, flags.accum_steps, flags.shape.tie), (5, 2, false));
        assert_eq!(flags.sample_prompts, ["a", "-b"]);
    }

    #[test]
    fn errors_name_the_key() {
        assert!(error("stepz = 5").contains("unknown flag `--stepz`\n\nhint: did you mean `--steps`?"));
        assert!(error("help = true").contains("unknown flag `--help`"));
        assert!(error("\"steps=5 \" = 1").contains("unknown flag `--steps`"));
        assert!(error("\"\" = 1").contains("unknown"));
        assert!(error("syncEvery = 1").contains("`--syncEvery` is gone"));
        assert!(error("[model]\nlayers = 1").contains("unknown flag `--model`"));
        assert!(error("[steps]\nlayers = 1").contains("`steps` holds more than a value"));
        assert!(error("steps = 'five'").contains("`--steps=five`: is not a whole number"));
        assert!(error("config = 'x'").contains("`config` inside a config file"));
        assert!(error("\n\nsteps ==").contains("line 3 is not valid TOML"));
        assert!(error("{\"steps\":").contains("not valid JSON"));
        assert!(error("{\"lr\":0.001,\"lr\":0.01}").contains("`lr` is there twice"));
        assert!(error("accumSteps = 2\naccum-steps = 4").contains("are one flag"));
        assert!(error("{\"accumSteps\":2,\"accum-steps\":4}").contains("`accumSteps` and `accum-steps` are one flag"));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_layer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_key_and_value_give_a_layer_or_an_error(key in "\\PC{0,12}", value in "\\PC{0,12}") {
            let _ = parse(serde_json::json!({ key: value }).to_string().as_bytes());
        }

        #[test]
        fn any_text_like_toml_gives_a_layer_or_an_error(
            key in "steps|lr|tie|samplePrompts|help|-|a b", value in "[-0-9a-z.\"'\\[\\]{}=]{0,12}"
        ) {
            let _ = parse(format!("{key} = {value}").as_bytes());
        }
    }
}
