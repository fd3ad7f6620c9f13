//! Presets for kinds of text. A preset is a set of flags with values, which everything that is given overrides.

use crate::flags::layer::Layer;

/// The flags of a preset, without its prompts.
pub(crate) fn preset(name: &str) -> Layer {
    Layer::of(match name {
        "abc" => &[("tokenizer", "char"), ("layers", "4"), ("dim", "128"), ("heads", "4"), ("block", "256")],
        "chords" => &[("tokenizer", "word"), ("layers", "3"), ("dim", "64"), ("heads", "4"), ("block", "64")],
        "novels" => &[("tokenizer", "bpe"), ("layers", "6"), ("dim", "128"), ("heads", "8"), ("block", "128")],
        "concordance" => &[
            ("tokenizer", "bpe-64k"),
            ("layers", "12"),
            ("dim", "768"),
            ("heads", "12"),
            ("block", "1024"),
            ("lr", "6e-4"),
            ("batch", "4"),
        ],
        "chat" => &[
            ("tokenizer", "bpe-4k"),
            ("layers", "6"),
            ("dim", "256"),
            ("heads", "8"),
            ("block", "256"),
            ("dropout", "0.1"),
            ("lr", "5e-5"),
        ],
        "fine_corpus" => &[
            ("tokenizer", "bpe-8k"),
            ("layers", "8"),
            ("dim", "384"),
            ("heads", "6"),
            ("block", "512"),
            ("lr", "6e-4"),
        ],
        _ => &[],
    })
}

/// The prompts of a domain; without a domain, the three built-in ones.
pub(crate) fn prompts(name: Option<&str>) -> Vec<String> {
    let prompts: &[&str] = match name {
        Some("abc") => &["X:1\nT:", "X:1\nT:The Blackbird\nM:6/8\nL:1/8\nK:G\n", "M:4/4\nL:1/8\nK:D\n"],
        Some("chords") => &["C G Am F", "Dm7 G7", "E"],
        Some("novels") => &["It was ", "The old man ", "\"I do not know,\" said "],
        Some("concordance") => &["In the beginning ", "The word ", "Love, "],
        Some("chat") => &["Hello, ", "How do I ", "What is "],
        _ => &["The ", "Once upon a time", "In "],
    };
    prompts.iter().map(|&prompt| prompt.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::train::DOMAINS;

    #[test]
    fn every_preset_parses_and_has_a_shape() {
        for &name in DOMAINS {
            let flags = preset(name).parse().unwrap();
            assert!(preset(name).has("layers") && flags.shape.dim.is_multiple_of(flags.shape.heads), "{name}");
            assert_eq!(prompts(Some(name)).len(), 3);
        }
    }
}
