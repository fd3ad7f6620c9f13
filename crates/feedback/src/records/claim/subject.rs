//! The subject of a commit, and whether it claims a gain: in the one form that the loop writes, in another, or not.

use super::{plain::plain, speedup};

/// A subject's statement about speed.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// None, or a loss that is mentioned.
    Nothing,
    /// `perf: <summary> (+X.XX% tok/s)`: a change of speed in per cent, also a loss.
    Claim(f64),
    /// A gain that is not in that form, with its words.
    Unclear(String),
}

/// Reads a subject as a person does: look-alike letters, number words and other units count.
pub fn read(subject: &str) -> Reading {
    let plain = plain(subject);
    let claim = of_form(subject);
    // A loss needs no evidence, however it is spelled.
    if let Some((pct, ..)) = claim.or_else(|| of_form(&plain)).filter(|(pct, ..)| *pct < 0.0) {
        return Reading::Claim(pct);
    }
    let unclear = |text: &str| speedup::speedup(text).map(|found| Reading::Unclear(found.to_owned()));
    match claim {
        // The record supports this number; a second number beside it has no evidence.
        Some((pct, summary, rest)) => {
            let beside = [summary, rest].into_iter().find_map(|text| unclear(&self::plain(text)));
            beside.unwrap_or(Reading::Claim(pct))
        }
        None => unclear(&without_names(&plain)).unwrap_or(Reading::Nothing),
    }
}

/// The number of a claim in the loop's form, with or without a scope and a reference behind it, and the texts before
/// and behind it.
fn of_form(subject: &str) -> Option<(f64, &str, &str)> {
    let (kind, rest) = speedup::split_kind(subject);
    if !kind.eq_ignore_ascii_case("perf") {
        return None;
    }
    let (before, rest) = rest.rsplit_once("% tok/s)")?;
    let (summary, number) = before.rsplit_once('(')?;
    let unsigned = number.strip_prefix(['+', '-'])?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let pct = number.parse().ok().filter(|_| digits(whole) && digits(fraction))?;
    (pct > -100.0).then_some((pct, summary, rest))
}

/// A subject in plain signs without names of other commits and branches that git has put there.
fn without_names(plain: &str) -> String {
    let trimmed = plain.trim_start();
    if ["fixup! ", "squash! ", "amend! "].iter().any(|mark| trimmed.starts_with(mark)) {
        return String::new();
    }
    if let Some(reverted) = trimmed.strip_prefix("revert") {
        let reverted = reverted.trim_start_matches([':', ' ']);
        if let Some(quoted) = reverted.strip_prefix('"') {
            return quoted.rsplit_once('"').map_or("", |(_, rest)| rest).to_owned();
        }
        if !speedup::split_kind(reverted).0.is_empty() {
            return String::new();
        }
    }
    if let Some(merged) = trimmed.strip_prefix("merge ") {
        let without_quotes: String = merged.split('\'').step_by(2).collect();
        let without_quotes = match without_quotes.split_once(" into ") {
            Some((before, into)) => format!("{before} {}", into.split_once(' ').map_or("", |(_, rest)| rest)),
            None => without_quotes,
        };
        return match without_quotes.strip_prefix("pull request ").and_then(|rest| rest.split_once(" from ")) {
            Some((_, from)) => from.split_once(' ').map_or("", |(_, rest)| rest).to_owned(),
            None => without_quotes,
        };
    }
    plain.to_owned()
}

/// The first paragraph as one line, as git reads it.
pub(super) fn subject(message: &str) -> String {
    let lines = message.lines().map(str::trim).skip_while(|line| line.is_empty());
    lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The number that a text ends with, with or without a sign, with decimal point or comma.
pub(super) fn number_at_end(text: &str) -> Option<f64> {
    let text = text.trim_end();
    let before = text.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == ',');
    let number = text[before.len()..].trim_start_matches(',');
    // A comma before exactly three digits groups them: `1,024%`.
    let point = number.rfind(['.', ',']).filter(|&at| !number[at..].starts_with(',') || number.len() - at != 4);
    let (whole, fraction) = point.map_or((number, ""), |at| (&number[..at], &number[at + 1..]));
    let value: f64 = format!("{}.{fraction}", whole.replace(['.', ','], "")).parse().ok()?;
    let before = before.trim_end();
    let unsigned = before.trim_end_matches(['-', '\u{2212}', '\u{2012}', '\u{2013}', '\u{ff0d}', '\u{fe63}']);
    // In `3-5%` it is not a sign.
    let is_negative = unsigned.len() < before.len() && !unsigned.ends_with(|c: char| c.is_ascii_digit());
    let value = if is_negative { -value } else { value };
    (value.is_finite() && value > -100.0).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_claim_has_one_form() {
        for (subject, pct) in [
            ("perf: fuse AdamW's passes (+1.50% tok/s)", 1.5),
            ("perf: x (+1.5% tok/s)", 1.5),
            ("perf: x (+0% tok/s)", 0.0),
            ("perf: x (+1234.56% tok/s)", 1234.56),
            ("perf: O(n²) no more, half the passes, 2x unrolled (+3% tok/s)", 3.0),
            ("perf: skip passes of 4 (rows) (+3% tok/s)", 3.0),
            ("perf(optimizer): x (+3% tok/s)", 3.0),
            ("Perf!: x (+3% tok/s)", 3.0),
            ("  perf(a)!: x (+3% tok/s) [w1]", 3.0),
            ("perf: x (+3% tok/s) (#12)", 3.0),
            ("perf: x (-0.3% tok/s)", -0.3),
            // A loss in any spelling.
            ("perf: x (\u{2212}0.3％ tok/s)", -0.3),
            ("perf: 2x faster, but elsewhere (-0.3% tok/s)", -0.3),
        ] {
            assert_eq!(read(subject), Reading::Claim(pct), "{subject}");
        }
    }

    #[test]
    fn what_is_read_is_quoted() {
        for (subject, words) in [
            ("perf: x (+30％ tok/s)", "+30% tok/s"),
            ("speed: x (+30% tok/s)", "+30% tok/s"),
            ("perf: makes decode Twice\u{200b} as fast on CPU", "twice as fast"),
            ("perf: halve the step time", "halve the step time"),
            ("perf: x, 30% faster (+1.57% tok/s)", "30% faster"),
        ] {
            assert_eq!(read(subject), Reading::Unclear(words.to_owned()), "{subject}");
        }
    }

    #[test]
    fn what_claims_nothing_is_no_claim() {
        for subject in
            ["", "per", "perf", "perf: x", "perf: x (+% tok/s)", "perf: x (-100% tok/s)", "péré", "\u{200b}%", "x"]
        {
            assert_eq!(read(subject), Reading::Nothing, "{subject}");
        }
    }

    #[test]
    fn numbers_have_signs_and_points() {
        for (text, number) in [
            ("a +1.5", Some(1.5)),
            ("+.3", Some(0.3)),
            ("1,5", Some(1.5)),
            ("1,234", Some(1234.0)),
            ("1.234,5", Some(1234.5)),
            ("\u{2013} 0.3", Some(-0.3)),
            ("3-5", Some(5.0)),
            ("-100", None),
            ("+", None),
        ] {
            assert_eq!(number_at_end(text), number, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_subject_is_read(
            text in any::<String>(),
            words in "([ (+~-]|[0-9.,/x×%]{1,4}|tok/s|faster|perf:|half|times|→|a|of|by|twice|time|step|revert \"|merge '){0,12}",
        ) {
            for subject in [&text, &words, &format!("perf: {text}% tok/s)"), &format!("perf: x ({words}% tok/s)")] {
                if let Reading::Claim(pct) = read(subject) {
                    prop_assert!(pct.is_finite() && pct > -100.0);
                }
            }
        }
    }
}
