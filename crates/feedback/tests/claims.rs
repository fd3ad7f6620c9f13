//! Subjects as people write them, about speed and about everything else, in two files.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use feedback::records::claim::{Claim, Reading, read, unclear};

const GAINS: &str = include_str!("claims/gains.txt");
const OTHERS: &str = include_str!("claims/others.txt");

fn subjects(file: &str) -> Vec<String> {
    file.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(unescaped).collect()
}

/// Replaces `\u{…}` by its character.
fn unescaped(line: &str) -> String {
    let mut parts = line.split("\\u{");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let (code, rest) = part.split_once('}').unwrap();
        text + char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap().encode_utf8(&mut [0; 4]) + rest
    })
}

#[test]
fn what_anybody_reads_as_a_claim_is_not_let_through() {
    let gains = subjects(GAINS);
    assert!(gains.len() >= 240, "{}", gains.len());
    let missed: Vec<_> = gains.iter().filter(|subject| !matches!(read(subject), Reading::Unclear(_))).collect();
    assert!(missed.is_empty(), "{missed:#?}");
    for subject in &gains {
        // Line ends and a body do not change a subject's meaning, and a record does not excuse another form.
        let message = format!("\n{}\n\nbody\n\nAlpha-Record: {}\n", subject.replace(", ", ",\n"), "ab".repeat(32));
        assert_eq!(Claim::parse(&message), None, "{subject}");
        assert!(unclear(&message).unwrap().contains("`perf: <summary> (+X.XX% tok/s)`"), "{subject}");
    }
}

#[test]
fn honest_subjects_are_let_through() {
    let others = subjects(OTHERS);
    assert!(others.len() >= 240, "{}", others.len());
    let is_free = |subject: &String| match read(subject) {
        Reading::Nothing => true,
        Reading::Claim(pct) => pct < 0.0,
        Reading::Unclear(_) => false,
    };
    let alarms: Vec<_> =
        others.iter().filter(|subject| !is_free(subject)).map(|subject| (subject, read(subject))).collect();
    assert!(alarms.is_empty(), "{alarms:#?}");
}

/// The bodies that the loop and people write below a subject may speak of speed.
#[test]
fn a_body_may_speak_of_speed() {
    let body = "Comparison: +4.54 % (+3.93 to +5.23) over 8 pairs in turns\n30% faster, twice the throughput\n\nperf: y (+3% tok/s)";
    for subject in ["perf: x", "docs: x", "instrument: x"] {
        assert_eq!(unclear(&format!("{subject}\n\n{body}\n")), None);
        assert_eq!(Claim::parse(&format!("{subject}\n\n{body}\n")), None);
    }
    let claim = Claim::parse(&format!("perf: x (+4.54% tok/s)\n\n{body}\n")).unwrap();
    assert_eq!(claim.speedup_pct.to_bits(), 4.54f64.to_bits());
}
