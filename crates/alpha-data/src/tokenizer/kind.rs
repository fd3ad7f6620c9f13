//! The names of the tokenizers: the values of `--tokenizer`.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::DataError;

/// A kind of tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One id a character.
    Char,
    /// One id a byte.
    Byte,
    /// One id a word.
    Word,
    /// Byte-level BPE.
    Bpe {
        /// Requested number of ids, including 256 bytes and the end-of-text token.
        vocab: usize,
    },
    /// A `tokenizer.json`.
    File(PathBuf),
}

impl Default for Kind {
    fn default() -> Kind {
        Kind::Bpe { vocab: 2000 }
    }
}

/// `bpe` has 2000 ids; the others count in units of 1024, so that 64k just fits into 16 bits.
const NAMES: [(&str, Kind); 9] = [
    ("char", Kind::Char),
    ("byte", Kind::Byte),
    ("word", Kind::Word),
    ("bpe", Kind::Bpe { vocab: 2000 }),
    ("bpe-4k", Kind::Bpe { vocab: 4096 }),
    ("bpe-8k", Kind::Bpe { vocab: 8192 }),
    ("bpe-16k", Kind::Bpe { vocab: 16_384 }),
    ("bpe-32k", Kind::Bpe { vocab: 32_768 }),
    ("bpe-64k", Kind::Bpe { vocab: 65_536 }),
];

impl FromStr for Kind {
    type Err = DataError;

    /// A name, or the path of a `tokenizer.json`: it ends in `.json`, has a `/`, or is a file.
    fn from_str(name: &str) -> Result<Kind, DataError> {
        if let Some((_, kind)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(kind.clone());
        }
        let path = PathBuf::from(name);
        if path.extension().is_some_and(|extension| extension == "json") || name.contains('/') || path.is_file() {
            return Ok(Kind::File(path));
        }
        Err(DataError::UnknownTokenizer { name: name.to_owned() })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Kind::File(path) = self {
            return write!(f, "{}", path.display());
        }
        match (NAMES.iter().find(|(_, kind)| kind == self), self) {
            (Some((name, _)), _) => f.write_str(name),
            (None, Kind::Bpe { vocab }) => write!(f, "bpe ({vocab})"),
            (None, _) => unreachable!("every kind without a number has a name"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_print() {
        for (name, kind) in NAMES {
            assert_eq!(name.parse::<Kind>().unwrap(), kind);
            assert_eq!(kind.to_string(), name);
        }
        assert_eq!("a/tokenizer.json".parse::<Kind>().unwrap(), Kind::File("a/tokenizer.json".into()));
        assert_eq!(Kind::Bpe { vocab: 300 }.to_string(), "bpe (300)");
        assert_eq!(Kind::default(), "bpe".parse().unwrap());
        let error = "bep".parse::<Kind>().unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("`bep`"));
    }
}
