//! Types of flag values, where the standard parsers accept too much or explain too little.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::builder::{PossibleValuesParser, TypedValueParser};

/// What is wrong with a flag's value. Whoever reports it names the flag and the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueError {
    /// A size below 1.
    BelowOne,
    /// A count below 0.
    Negative,
    /// A whole number that the type does not hold.
    TooLarge,
    /// Not a whole number.
    NotWhole,
    /// Not a number.
    NotANumber,
    /// An empty path.
    Empty,
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ValueError::BelowOne => "must be at least 1",
            ValueError::Negative => "must not be negative",
            ValueError::TooLarge => "is too large",
            ValueError::NotWhole => "is not a whole number",
            ValueError::NotANumber => "is not a number",
            ValueError::Empty => "is empty",
        })
    }
}

impl std::error::Error for ValueError {}

/// A count that is at least 1.
pub(crate) fn size(text: &str) -> Result<usize, ValueError> {
    match count(text) {
        Ok(0) | Err(ValueError::Negative) => Err(ValueError::BelowOne),
        Ok(size) => usize::try_from(size).map_err(|_| ValueError::TooLarge),
        Err(error) => Err(error),
    }
}

/// A count that is at least 1, of steps.
pub(crate) fn steps(text: &str) -> Result<u64, ValueError> {
    size(text).map(|steps| steps as u64)
}

/// A count that may be 0.
pub(crate) fn count(text: &str) -> Result<u64, ValueError> {
    text.parse::<u64>().map_err(|_| match text.parse::<f64>() {
        Ok(number) if number < 0.0 => ValueError::Negative,
        Ok(number) if number.fract() == 0.0 && number.is_finite() && !text.contains(['.', 'e', 'E']) => {
            ValueError::TooLarge
        }
        _ => ValueError::NotWhole,
    })
}

/// A whole number that may be negative.
pub(crate) fn whole(text: &str) -> Result<i64, ValueError> {
    text.parse().map_err(|_| ValueError::NotWhole)
}

/// A number; `inf` and `nan` are accepted here and refused later, with a better message.
pub(crate) fn number(text: &str) -> Result<f64, ValueError> {
    text.parse().map_err(|_| ValueError::NotANumber)
}

/// A path. UTF-8, because it is written to `config.json`.
pub(crate) fn path(text: &str) -> Result<PathBuf, ValueError> {
    if text.is_empty() { Err(ValueError::Empty) } else { Ok(PathBuf::from(text)) }
}

/// One of `names`.
pub(crate) fn named<T>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr + Clone + Send + Sync + 'static,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_say_what_is_wrong() {
        assert_eq!(size("12"), Ok(12));
        assert_eq!(count("0"), Ok(0));
        for (text, why) in [
            ("0", ValueError::BelowOne),
            ("-1", ValueError::BelowOne),
            ("-0.5", ValueError::BelowOne),
            ("1.5", ValueError::NotWhole),
            ("1e3", ValueError::NotWhole),
            ("ten", ValueError::NotWhole),
            ("", ValueError::NotWhole),
            ("nan", ValueError::NotWhole),
            ("99999999999999999999", ValueError::TooLarge),
        ] {
            assert_eq!(size(text), Err(why), "{text}");
        }
        assert_eq!(count("-1"), Err(ValueError::Negative));
    }
}
