//! Types of flag values, where the standard ones say too little or take too much.

use std::{path::PathBuf, str::FromStr};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use helios::{Variant, VariantError};

/// A count that is at least 1.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    match count(text) {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(size) => usize::try_from(size).map_err(|_| "is too large".to_owned()),
        Err(_) if text.parse::<f64>().is_ok_and(|number| number < 0.0) => Err("must be at least 1".to_owned()),
        Err(why) => Err(why),
    }
}

/// A count that is at least 1, of steps.
pub(crate) fn steps(text: &str) -> Result<u64, String> {
    size(text).map(|steps| steps as u64)
}

/// A count that may be 0.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    text.parse::<u64>().map_err(|_| match text.parse::<f64>() {
        Ok(number) if number < 0.0 => "must not be negative".to_owned(),
        Ok(number) if number.fract() == 0.0 && number.is_finite() && !text.contains(['.', 'e', 'E']) => {
            "is too large".to_owned()
        }
        _ => "is not a whole number".to_owned(),
    })
}

/// A whole number that may be negative.
pub(crate) fn whole(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| "is not a whole number".to_owned())
}

/// A number; `inf` and `nan` come through, for the message that names what is wrong with them.
pub(crate) fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "is not a number".to_owned())
}

/// A path. UTF-8, because it is written to `config.json`.
pub(crate) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("is empty".to_owned()) } else { Ok(PathBuf::from(text)) }
}

/// The name of a kernel.
pub(crate) fn matmul(text: &str) -> Result<Variant, VariantError> {
    text.parse()
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
            ("0", "must be at least 1"),
            ("-1", "must be at least 1"),
            ("-0.5", "must be at least 1"),
            ("1.5", "is not a whole number"),
            ("1e3", "is not a whole number"),
            ("ten", "is not a whole number"),
            ("", "is not a whole number"),
            ("nan", "is not a whole number"),
            ("99999999999999999999", "is too large"),
        ] {
            assert_eq!(size(text), Err(why.to_owned()), "{text}");
        }
        assert_eq!(count("-1"), Err("must not be negative".to_owned()));
    }
}
