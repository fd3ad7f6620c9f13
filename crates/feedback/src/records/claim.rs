//! The message of a performance commit: `perf: <summary> (+X.XX% tok/s)`, a body, and trailers that lead to the
//! record behind the number.
//!
//! Writing is strict, reading is lenient: anything that a person would take for a claim of speed is one, however it is
//! spelled, and one of another form is refused, see [`unclear`]. Only the subject is read: a body may speak of numbers,
//! as the loop's own do. Number and interval are the confirmation's, so the comparison did not select them. The
//! confirmation's own test did, since only a gain that passes is published; that is corrected for, see
//! [`pairbench::stats::conditional`].

mod plain;
mod speedup;
mod subject;
mod words;

use std::fmt;

use serde::{Deserialize, de::IgnoredAny};

pub use self::subject::{Reading, read};
use self::subject::{number_at_end, subject};
use pairbench::verdict::{Estimate, Verdict};

use crate::{LoopError, attempt::Revision, ledger::RecordId, records::evidence::ConfirmationOutcome, visible};

/// Most characters of a summary: the subject then has at most 100, with any gain below 100 000 %.
pub const MAX_SUMMARY_CHARS: usize = 75;

/// Most characters of a line of the body.
const MAX_LINE_CHARS: usize = 100;

/// The trailer that names the record.
pub const RECORD: &str = "Alpha-Record";
const INTERVAL: &str = "Alpha-Interval";
const PAIRS: &str = "Alpha-Pairs";

/// A commit's statement about speed, and where the evidence is.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Change of throughput in per cent; positive is faster. In a message it has two decimals.
    pub speedup_pct: f64,
    /// Id of the record, or its first digits.
    pub record: Option<String>,
    /// Interval of the confirmation, in per cent.
    pub interval_pct: Option<(f64, f64)>,
    /// Pairs of the comparison and of its confirmation.
    pub pairs: Option<(usize, usize)>,
}

/// A commit message that is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The change in a few words, see [`check_summary`].
    pub summary: String,
    /// The gain, if one is claimed.
    pub speedup_pct: Option<f64>,
    /// The change, its reason, the command and its results. Only lines above 100 characters are wrapped.
    pub body: String,
    /// Names and values of the last lines, such as [`Claim::trailers`].
    pub trailers: Vec<(String, String)>,
}

/// The part of an attempt's record that a claim rests on; see [`crate::records::evidence::AttemptRecord`].
#[derive(Clone, Debug, Deserialize)]
pub struct AttemptClaim {
    /// Must be FASTER for a gain.
    pub verdict: Option<Verdict>,
    /// Result of the fresh pairs.
    pub confirmation: Option<ConfirmationOutcome>,
    /// The estimate that may be claimed, if the record has a field for it.
    #[serde(default)]
    pub claim: Option<Estimate>,
    /// The commit that it was measured against.
    pub baseline: Revision,
    /// The commit that was measured.
    pub candidate: Revision,
    attempt: Compared,
}

#[derive(Clone, Debug, Deserialize)]
struct Compared {
    pairs: Vec<IgnoredAny>,
    #[serde(default)]
    rules: u32,
}

impl Claim {
    /// Reads a commit message; `None` if it claims nothing, or not in the form of a claim ([`unclear`]). Of a repeated
    /// trailer, the last counts.
    pub fn parse(message: &str) -> Option<Claim> {
        let Reading::Claim(speedup_pct) = read(&subject(message)) else { return None };
        let mut claim = Claim { speedup_pct, record: None, interval_pct: None, pairs: None };
        for (name, value) in message.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case(RECORD) {
                claim.record = Some(value.to_owned());
            } else if name.eq_ignore_ascii_case(INTERVAL) {
                let end = |text: &str| text.trim().strip_suffix('%').and_then(number_at_end);
                claim.interval_pct = value.split_once("..").and_then(|(low, high)| end(low).zip(end(high)));
            } else if name.eq_ignore_ascii_case(PAIRS) {
                let count = |text: &str| text.trim().parse().ok();
                claim.pairs = value.split_once('+').and_then(|(all, fresh)| count(all).zip(count(fresh)));
            }
        }
        Some(claim)
    }

    /// The trailers that lead from a message to the evidence.
    pub fn trailers(&self) -> Vec<(String, String)> {
        let interval = self.interval_pct.map(|interval| (INTERVAL, interval_text(interval)));
        let pairs = self.pairs.map(|pairs| (PAIRS, pairs_text(pairs)));
        let record = self.record.clone().map(|record| (RECORD, record));
        [interval, pairs, record].into_iter().flatten().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Whether it claims a gain.
    pub fn is_gain(&self) -> bool {
        self.speedup_pct >= 0.0
    }

    /// Checks that this claims nothing beyond `supported`; numbers are compared as they are written.
    pub fn check_against(&self, supported: &Claim) -> Result<(), Difference> {
        let same = |claimed: String, recorded: String| {
            if claimed == recorded { Ok(()) } else { Err(Difference { claimed, recorded }) }
        };
        same(Percent(self.speedup_pct).to_string(), Percent(supported.speedup_pct).to_string())?;
        if let (Some(said), Some(found)) = (self.interval_pct, supported.interval_pct) {
            same(interval_text(said), interval_text(found))?;
        }
        if let (Some(said), Some(found)) = (self.pairs, supported.pairs) {
            same(pairs_text(said), pairs_text(found))?;
        }
        Ok(())
    }
}

/// A difference between a message and its record, as the rest of a sentence about the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// As the message has it.
    pub claimed: String,
    /// As the record has it.
    pub recorded: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "claims {}, the record has {}", self.claimed, self.recorded)
    }
}

/// Why an attempt supports no claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// Its verdict is not FASTER.
    Verdict(Option<Verdict>),
    /// It was not confirmed.
    Unconfirmed,
    /// Fresh pairs did not confirm it.
    Failed,
    /// It takes back a slowdown.
    NotAGain,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Unsupported::Verdict(found) => {
                let found = found.map_or("none", Verdict::name);
                write!(f, "its verdict is {found}, a gain needs {}", Verdict::Faster.name())
            }
            Unsupported::Unconfirmed => f.write_str("it was not confirmed"),
            Unsupported::Failed => f.write_str("its confirmation failed"),
            Unsupported::NotAGain => f.write_str("it takes back a slowdown, which is not a gain"),
        }
    }
}

/// The fault of a message that reads as a claim of speed but does not have the form of one, as a sentence about its
/// subject. None for a claim in the right form, and for a message that claims nothing.
pub fn unclear(message: &str) -> Option<String> {
    let Reading::Unclear(words) = read(&subject(message)) else { return None };
    let words = visible::line(&words);
    Some(format!(
        "subject reads as a claim of speed (`{words}`) without the form of one, which is `perf: <summary> (+X.XX% tok/s)` \
         and is written by `alpha loop commit`"
    ))
}

/// A change with its sign and two decimals.
struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:+.2}%", self.0)
    }
}

fn interval_text((low, high): (f64, f64)) -> String {
    format!("{} .. {}", Percent(low), Percent(high))
}

fn pairs_text((compared, fresh): (usize, usize)) -> String {
    format!("{compared}+{fresh}")
}

impl Message {
    /// The whole message, as git stores it.
    ///
    /// # Errors
    /// Those of [`check_summary`].
    pub fn render(&self) -> Result<String, LoopError> {
        let summary = check_summary(&self.summary)?;
        let gain = self.speedup_pct.map_or(String::new(), |pct| format!(" ({} tok/s)", Percent(pct)));
        let body = self.body.lines().map(wrapped).collect::<Vec<_>>().join("\n");
        let trailers: Vec<String> = self.trailers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let parts = [format!("perf: {summary}{gain}"), body, trailers.join("\n")];
        let parts = parts.iter().map(|part| part.trim_end().trim_start_matches('\n')).filter(|part| !part.is_empty());
        Ok(parts.collect::<Vec<_>>().join("\n\n") + "\n")
    }
}

/// Breaks a line that is too long between words. The rest is indented further, so that it cannot pass for a line of its
/// own, such as a trailer.
fn wrapped(line: &str) -> String {
    let line = line.trim_end();
    if line.chars().count() <= MAX_LINE_CHARS {
        return line.to_owned();
    }
    let indent = &line[..line.len() - line.trim_start().len()];
    let mut lines: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        match lines.last_mut() {
            Some(last) if last.chars().count() + 1 + word.chars().count() <= MAX_LINE_CHARS => {
                last.push(' ');
                last.push_str(word);
            }
            Some(_) => lines.push(format!("{indent}  {word}")),
            None => lines.push(format!("{indent}{word}")),
        }
    }
    lines.join("\n")
}

/// Checks the words between `perf:` and the gain, and trims them: a short line without a percentage. Commands call this
/// before they measure anything.
pub fn check_summary(text: &str) -> Result<&str, LoopError> {
    let text = text.trim();
    let chars = text.chars().count();
    let (found, hint) = if text.is_empty() {
        ("is empty".to_owned(), "say in a few words what was done: `-m \"<summary>\"`")
    } else if text.contains(visible::is_hidden) {
        ("has a line end or another character that cannot be seen".to_owned(), "details belong in the body")
    } else if text.match_indices('%').any(|(place, _)| number_at_end(&text[..place]).is_some()) {
        ("has a percentage".to_owned(), "leave it out: what was measured is put behind the summary")
    } else if let Reading::Unclear(words) = read(&format!("perf: {text}")) {
        (format!("claims a gain (`{words}`)"), "leave it out: what was measured is put behind the summary")
    } else if text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("perf:")) {
        ("begins with `perf:`".to_owned(), "leave it out: it is put before the summary")
    } else if chars > MAX_SUMMARY_CHARS {
        (format!("has {chars} characters, at most {MAX_SUMMARY_CHARS} fit"), "shorten it; details belong in the body")
    } else {
        return Ok(text);
    };
    Err(LoopError::usage(format!("the summary {found}, expected a short line such as `fuse the optimiser's passes`"))
        .hint(hint))
}

impl AttemptClaim {
    /// The claim that the attempt recorded as `record` supports.
    pub fn supported(&self, record: RecordId) -> Result<Claim, Unsupported> {
        if self.verdict != Some(Verdict::Faster) {
            return Err(Unsupported::Verdict(self.verdict));
        }
        let confirmation = self.confirmation.ok_or(Unsupported::Unconfirmed)?;
        let confirmed = confirmation.estimate.filter(|_| confirmation.accepted).ok_or(Unsupported::Failed)?;
        // The first records have no field for the claim.
        let estimate = match (self.claim, self.attempt.rules) {
            (Some(claim), _) => claim,
            (None, 0) => confirmed,
            (None, _) => return Err(Unsupported::NotAGain),
        };
        Ok(Claim {
            speedup_pct: estimate.speedup_pct,
            record: Some(record.to_string()),
            interval_pct: estimate.ci_low_pct.zip(estimate.ci_high_pct),
            pairs: Some((self.attempt.pairs.len(), confirmation.pairs)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_subject_is_the_first_paragraph() {
        assert_eq!(Claim::parse("docs: x\n\nperf: y (+3% tok/s)\n"), None);
        let claim =
            Claim::parse("\r\n\nperf: a long line\r\n(+2% tok/s)\r\n\r\nbody\r\n\r\nALPHA-record:  abcd \r\n").unwrap();
        assert_eq!((claim.speedup_pct, claim.record.as_deref()), (2.0, Some("abcd")));
        assert_eq!((claim.interval_pct, claim.pairs), (None, None));
    }

    fn claim() -> Claim {
        Claim {
            speedup_pct: 1.574_999,
            record: Some("ab".repeat(32)),
            interval_pct: Some((1.096, 2.0449)),
            pairs: Some((14, 10)),
        }
    }

    fn example() -> Message {
        Message {
            summary: " fuse the optimiser's passes ".into(),
            speedup_pct: Some(claim().speedup_pct),
            body: format!("One pass.\n\n  {}\n| a | table  |   \n", "long line ".repeat(14)),
            trailers: claim().trailers(),
        }
    }

    #[test]
    fn a_message_has_its_form() {
        let record = "ab".repeat(32);
        let long = "long line ".repeat(9);
        let text = format!(
            "perf: fuse the optimiser's passes (+1.57% tok/s)\n\nOne pass.\n\n  {long}long\n    line {}\n| a | table  |\n\n\
             Alpha-Interval: +1.10% .. +2.04%\nAlpha-Pairs: 14+10\nAlpha-Record: {record}\n",
            "long line ".repeat(4).trim_end(),
        );
        assert_eq!(example().render().unwrap(), text);
        let plain = Message { speedup_pct: None, body: String::new(), trailers: vec![], ..example() };
        assert_eq!(plain.render().unwrap(), "perf: fuse the optimiser's passes\n");
    }

    #[test]
    fn git_reads_the_trailers() {
        let mut git = Command::new("git")
            .args(["interpret-trailers", "--parse"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        git.stdin.take().unwrap().write_all(example().render().unwrap().as_bytes()).unwrap();
        let output = git.wait_with_output().unwrap();
        let lines: Vec<_> = claim().trailers().iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), lines.concat());
    }

    #[test]
    fn summaries_that_mislead_are_refused() {
        let fits = "é".repeat(MAX_SUMMARY_CHARS);
        let longest = Message { summary: fits.clone(), speedup_pct: Some(99_999.99), ..example() };
        assert_eq!(longest.render().unwrap().lines().next().unwrap().chars().count(), 100);
        for (text, named) in [
            (" \n", "is empty"),
            ("a\nb", "line end"),
            ("a\u{202e}b", "cannot be seen"),
            ("halve 3 % of it", "has a percentage"),
            ("twice as fast", "claims a gain (`twice as fast`)"),
            ("fuse gelu (1.3x)", "claims a gain (`1.3x`)"),
            ("Perf: x", "begins with `perf:`"),
            (&(fits + "é"), "has 76 characters"),
        ] {
            let error = Message { summary: text.into(), ..example() }.render().unwrap_err();
            assert_eq!(check_summary(text).unwrap_err().to_string(), error.to_string());
            assert!(error.to_string().contains(named) && error.to_string().contains("hint: "), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
        assert_eq!(check_summary(" use % of lanes ").unwrap(), "use % of lanes");
    }

    #[test]
    fn a_claim_says_what_its_record_does() {
        let record = "ab".repeat(32).parse().unwrap();
        let supported = |text: &str| serde_json::from_str::<AttemptClaim>(text).unwrap().supported(record);
        let side = r#"{"commit": "", "tree": "", "measured_tree": "", "patch_id": "", "binary": ""}"#;
        let pairs = "0,".repeat(13) + "0";
        let faster = format!(
            r#"{{"verdict": "FASTER", "baseline": {side}, "candidate": {side}, "other": 1, "attempt": {{"pairs": [{pairs}], "other": 2}},
            "confirmation": {{"pairs": 10, "p": 0.01, "accepted": true, "estimate":
            {{"speedup_pct": 1.574999, "ci_low_pct": 1.096, "ci_high_pct": 2.0449, "pairs": 10}}}}}}"#
        );
        assert_eq!(supported(&faster), Ok(claim()));
        let written = example().render().unwrap();
        assert_eq!(Claim::parse(&written).unwrap().check_against(&claim()), Ok(()));
        let without_trailers = Claim::parse(written.lines().next().unwrap()).unwrap();
        assert_eq!(without_trailers.check_against(&claim()), Ok(()));
        for (from, to, differs) in [
            ("+1.57%", "+1.58%", "claims +1.58%, the record has +1.57%"),
            ("+1.10%", "+1.11%", "claims +1.11% .. +2.04%, the record has +1.10% .. +2.04%"),
            ("14+10", "14+14", "claims 14+14, the record has 14+10"),
        ] {
            let other = Claim::parse(&written.replace(from, to)).unwrap();
            assert_eq!(other.check_against(&claim()).unwrap_err().to_string(), differs);
        }
        for (from, to, reason) in [
            (r#""FASTER""#, r#""LEANER""#, "its verdict is LEANER, a gain needs FASTER"),
            (r#""FASTER""#, "null", "its verdict is none, a gain needs FASTER"),
            ("confirmation", "else", "it was not confirmed"),
            ("true", "false", "its confirmation failed"),
        ] {
            assert_eq!(supported(&faster.replace(from, to)).unwrap_err().to_string(), reason);
        }
    }

    proptest! {
        #[test]
        fn what_is_rendered_is_read_back(
            summary in "[a-z][a-zé%(): #-]{0,60}[a-z]",
            body in "([a-zé(,#]{0,30}[ \n]{1,2}){0,40}",
            gain in prop::option::of(-99.99f64..99_999.0),
            record in prop::option::of("[0-9a-f]{64}"),
            interval_pct in prop::option::of((-99.99f64..999.0, -99.99f64..999.0)),
            pairs in prop::option::of((0..1000usize, 0..1000usize)),
        ) {
            let claim = Claim { speedup_pct: gain.unwrap_or(0.0), record, interval_pct, pairs };
            let message = Message { summary, speedup_pct: gain, body, trailers: claim.trailers() };
            let text = message.render().unwrap();
            let round = |pct: f64| format!("{pct:.2}").parse::<f64>().unwrap();
            let rounded = Claim {
                speedup_pct: round(claim.speedup_pct),
                interval_pct: claim.interval_pct.map(|(low, high)| (round(low), round(high))),
                ..claim
            };
            prop_assert_eq!(Claim::parse(&text), gain.map(|_| rounded));
            let lines: Vec<_> = text.lines().collect();
            prop_assert!(lines[0].chars().count() <= 100);
            prop_assert!(lines.iter().all(|line| line.chars().count() <= 100));
            prop_assert!(lines.len() == 1 || lines[1].is_empty());
            let body = text.split_once('\n').unwrap().1.split("Alpha-").next().unwrap();
            prop_assert!(body.split_whitespace().eq(message.body.split_whitespace()));
        }
    }
}
