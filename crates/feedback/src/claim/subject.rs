//! The subject of a commit, and the gain that it claims.

/// The gain in per cent that a subject claims: `perf: … (+X.XX% tok/s)`, the last if there are several.
pub fn claimed_pct(subject: &str) -> Option<f64> {
    let subject = subject.trim_start();
    let (kind, mut rest) = subject.split_at_checked("perf".len())?;
    if !kind.eq_ignore_ascii_case("perf") {
        return None;
    }
    if let Some(scope) = rest.strip_prefix('(') {
        rest = scope.split_once(')')?.1;
    }
    let rest = rest.strip_prefix('!').unwrap_or(rest).strip_prefix(':')?;
    rest.rmatch_indices('%').find_map(|(place, sign)| {
        let unit = rest[place + sign.len()..].split(')').next()?.to_ascii_lowercase();
        let is_throughput = unit.contains("tok/s") || unit.contains("tokens/s");
        is_throughput.then(|| number_at_end(&rest[..place]))?
    })
}

/// The first paragraph as one line, as git takes it.
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
    // In `3-5%` it is no sign.
    let is_negative = unsigned.len() < before.len() && !unsigned.ends_with(|c: char| c.is_ascii_digit());
    let value = if is_negative { -value } else { value };
    (value.is_finite() && value > -100.0).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn claims_are_found_however_they_are_spelled() {
        for (subject, pct) in [
            ("perf: fuse AdamW's passes (+1.50% tok/s)", 1.5),
            ("perf: x (+1.5% tok/s)", 1.5),
            ("perf: x (+12.34 % tok/s)", 12.34),
            ("perf: x (+12.34\u{202f}% tok/s)", 12.34),
            ("perf: x (-0.3% tok/s)", -0.3),
            ("perf: x (\u{2212}0.3% tok/s)", -0.3),
            ("perf: x (\u{2013} 0.3% tok/s)", -0.3),
            ("perf: x (0.3% tok/s)", 0.3),
            ("perf: x (+.3% tok/s)", 0.3),
            ("perf: x (+0% tok/s)", 0.0),
            ("perf: x (+1,5% tok/s)", 1.5),
            ("perf: x (+1,234% tok/s)", 1234.0),
            ("perf: x (+1,234.5% tok/s)", 1234.5),
            ("perf: x (+1.234,5% tok/s)", 1234.5),
            ("perf: x (~3-5% tok/s)", 5.0),
            ("perf: x (+3% tok/sec)", 3.0),
            ("perf: x (+3% median Tokens/s)", 3.0),
            ("perf: x, +3% tok/s", 3.0),
            ("perf: x (+3% tok/s, 7% less memory)", 3.0),
            ("perf: skip 20% of passes (+3% tok/s)", 3.0),
            ("perf(optimizer): x (+3% tok/s)", 3.0),
            ("Perf!: x (+3% tok/s)", 3.0),
            ("  perf(a)!: x (+3% tok/s) [w1]", 3.0),
        ] {
            assert_eq!(claimed_pct(subject), Some(pct), "{subject}");
        }
    }

    #[test]
    fn what_claims_nothing_is_no_claim() {
        for subject in [
            "",
            "per",
            "perf",
            "perf: x",
            "perf: x (+% tok/s)",
            "perf: x (-100% tok/s)",
            "perf: x (+3%)",
            "perf: x (+3%) and count tok/s",
            "perf: 3% fewer dispatches",
            "perf: print tok/s (was hidden)",
            "performance: x (+3% tok/s)",
            "perf x (+3% tok/s)",
            "docs: x (+3% tok/s)",
            "Revert \"perf: x (+3% tok/s)\"",
            "fixup! perf: x (+3% tok/s)",
            "péré: x (+3% tok/s)",
        ] {
            assert_eq!(claimed_pct(subject), None, "{subject}");
        }
    }

    proptest! {
        #[test]
        fn any_subject_is_read(text in any::<String>(), number in "[ 0-9.,%+\u{2212}()-]{0,20}") {
            for subject in [&text, &format!("perf: {text}% tok/s"), &format!("perf: {number}% tok/s")] {
                prop_assert!(claimed_pct(subject).is_none_or(|pct| pct.is_finite() && pct > -100.0));
            }
        }
    }
}
