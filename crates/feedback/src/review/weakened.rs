//! Rules of `loop.toml` that are weaker than they once were, each with its reason: shown with every claim until the
//! rule is restored.
//!
//! A commit of the instrument that weakens a rule needs a reason (`--weakens`), which goes into its message, with a
//! trailer for each rule. A rule that a plain commit weakened is found too, without a reason.

use std::{collections::BTreeSet, path::Path};

use serde::Serialize;

use crate::{
    LoopError,
    config::{
        FILE_NAME,
        weaker::{self, Weakening},
    },
    git::{LogEntry, Repository},
};

/// The trailer that names a weakened rule and the reason.
pub const TRAILER: &str = "Alpha-Weakens";
/// Most characters of a reason.
const MAX_REASON_CHARS: usize = 300;
/// Replaces a missing reason.
const NO_REASON: &str = "no reason was given";

/// A rule that is weaker than it once was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Weakened {
    /// The rule, in words.
    pub text: String,
    /// The reason that the commit gives.
    pub reason: Option<String>,
    /// That commit.
    pub commit: String,
}

impl Weakened {
    /// As the trailer has it.
    pub fn line(&self) -> String {
        line(&self.text, self.reason.as_deref())
    }
}

fn line(text: &str, reason: Option<&str>) -> String {
    format!("{text}: {}", reason.unwrap_or(NO_REASON))
}

/// Rules that are weaker at a commit than at any commit before it. Rules of other targets are left out.
pub fn at(repository: &Repository, commit: &str, target: Option<&str>) -> Result<Vec<Weakened>, LoopError> {
    let mut commits = repository.log_of(commit, Path::new(FILE_NAME))?;
    commits.reverse();
    let mut versions: Vec<(LogEntry, String)> = Vec::new();
    for entry in commits {
        if let Some(text) = text_at(repository, &entry.id)? {
            versions.push((entry, text));
        }
    }
    let Some(now) = text_at(repository, commit)? else { return Ok(Vec::new()) };
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (entry, before) in &versions {
        let weaker = match weaker::between(before, &now) {
            Ok(weaker) => weaker,
            Err(error) => vec![Weakening {
                item: format!("unreadable {}", entry.id),
                text: format!("`{FILE_NAME}` of an earlier commit cannot be compared ({})", first_line(&error)),
            }],
        };
        for weakening in weaker.into_iter().filter(|weakening| is_about(&weakening.item, target)) {
            if seen.insert(weakening.item.clone()) {
                found.push(since(&versions, weakening));
            }
        }
    }
    Ok(found)
}

/// The last commit that weakened the rule, with its reason.
fn since(versions: &[(LogEntry, String)], weakening: Weakening) -> Weakened {
    for pair in versions.windows(2).rev() {
        let [(_, before), (entry, after)] = pair else { continue };
        let Ok(weaker) = weaker::between(before, after) else { continue };
        if let Some(step) = weaker.into_iter().find(|step| step.item == weakening.item) {
            let reason = reason_in(entry, &step.text);
            return Weakened { text: weakening.text, reason, commit: entry.id.clone() };
        }
    }
    let commit = versions.last().map_or_else(String::new, |(entry, _)| entry.id.clone());
    Weakened { text: weakening.text, reason: None, commit }
}

fn reason_in(entry: &LogEntry, text: &str) -> Option<String> {
    let trailers = entry.trailers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(TRAILER));
    let mut reasons = trailers.filter_map(|(_, value)| value.strip_prefix(text)?.strip_prefix(": "));
    reasons.next().filter(|reason| *reason != NO_REASON).map(str::to_owned)
}

/// Trailers of a change of the instrument: the rules that it weakens, with the reason.
///
/// # Errors
/// [`LoopError::refused`] where a rule is weaker and there is no reason; [`LoopError::usage`] where the reason is not
/// usable.
pub fn trailers(
    repository: &Repository,
    trees: [&str; 2],
    reason: Option<&str>,
) -> Result<Vec<(String, String)>, LoopError> {
    let mut texts = Vec::new();
    for tree in trees {
        texts.push(text_at(repository, tree)?);
    }
    let weaker = match &texts[..] {
        [Some(old), Some(new)] => weaker::between(old, new)?,
        [Some(_), None] => vec![Weakening { item: "file".into(), text: format!("`{FILE_NAME}` is gone") }],
        _ => Vec::new(),
    };
    let reason = reason.map(check_reason).transpose()?;
    if weaker.is_empty() {
        return match reason {
            None => Ok(Vec::new()),
            Some(_) => Err(LoopError::usage("nothing of the instrument becomes weaker")
                .hint("leave `--weakens` out: it would stand in the message")),
        };
    }
    let Some(reason) = reason else {
        let list: Vec<&str> = weaker.iter().map(|weakening| weakening.text.as_str()).collect();
        return Err(LoopError::refused(format!("the change makes the instrument weaker: {}", list.join("; ")))
            .hint("`--weakens=<why>` commits it all the same; the reason and the list are shown with every claim until it is restored"));
    };
    Ok(weaker.iter().map(|weakening| (TRAILER.to_owned(), line(&weakening.text, Some(reason)))).collect())
}

/// Checks that a reason is a line of words.
fn check_reason(reason: &str) -> Result<&str, LoopError> {
    let reason = reason.trim();
    let found = if reason.is_empty() {
        "is empty".to_owned()
    } else if reason.contains(char::is_control) {
        "has a line end or another control character".to_owned()
    } else if reason.chars().count() > MAX_REASON_CHARS {
        format!("has {} characters, at most {MAX_REASON_CHARS} fit", reason.chars().count())
    } else {
        return Ok(reason);
    };
    Err(LoopError::usage(format!("the reason of `--weakens` {found}")).hint("say in a line why less is asked for"))
}

/// The file's text in a commit or tree.
fn text_at(repository: &Repository, revision: &str) -> Result<Option<String>, LoopError> {
    let tree = repository.tree_of(revision)?;
    let bytes = repository.read_file(&tree, FILE_NAME)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn is_about(item: &str, target: Option<&str>) -> bool {
    match item.strip_prefix("target ").and_then(|rest| rest.split_once(": ")) {
        Some((of, _)) => target == Some(of),
        None => true,
    }
}

fn first_line(error: &LoopError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
