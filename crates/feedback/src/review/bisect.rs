//! `alpha loop bisect`: which commit lost speed.
//!
//! Every commit in the middle is measured directly against the good end, so that errors do not add up. The question is
//! always the same: is it slower than the good end by at least half of the loss?

use std::time::Duration;

use pairbench::verdict::{Estimate, Verdict, log_of_pct, pct_of_log};
use serde::Serialize;

use crate::{
    ErrorKind, LoopError, Progress,
    compare::built_arms,
    review::measure::{self, Measurement, Question},
    store::session::Session,
    visible::short,
};

/// Version of [`Bisection`].
pub const SCHEMA: &str = "alpha.loop.bisect/1";

/// The result of a bisection.
#[derive(Clone, Debug, Serialize)]
pub struct Bisection {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The commit that lost speed.
    pub culprit: String,
    /// Its subject.
    pub subject: String,
    /// The loss from the good end to the bad end, in per cent of speed.
    pub lost_pct: f64,
    /// The commits that were measured against the good end.
    pub measured: Vec<Measured>,
    /// Commits that cannot be built or run: one of them may be the culprit if it is right before the reported one.
    pub skipped: Vec<String>,
}

/// A commit that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// The commit.
    pub commit: String,
    /// Its estimate against the good end.
    pub estimate: Option<Estimate>,
    /// Whether it has lost the speed.
    pub is_slow: bool,
}

/// Finds the first commit after `good` that is as slow as `bad`, along first parents.
pub fn bisect(
    session: &mut Session,
    good: &str,
    bad: &str,
    budget: Duration,
    progress: &dyn Progress,
) -> Result<Bisection, LoopError> {
    let (good, bad) = (session.repository.resolve(good)?, session.repository.resolve(bad)?);
    if !session.repository.is_ancestor(&good, &bad)? {
        return Err(LoopError::usage(format!("`{}` is not an ancestor of `{}`", short(&good), short(&bad)))
            .hint("`alpha loop bisect <good> <bad>`: the older, faster commit first"));
    }
    let mut commits: Vec<_> = session.repository.first_parents(&good, &bad)?;
    if commits.is_empty() {
        return Err(LoopError::usage("both ends are the same commit"));
    }
    let epsilon_pct = session.config.epsilon_pct;
    let question = Question { purpose: "bisect", budget, epsilon_pct };
    let whole = measure_against(session, &good, &bad, &question, progress)?;
    let lost_pct = match (whole.verdict, whole.estimate) {
        (Verdict::Slower, Some(estimate)) => -estimate.speedup_pct,
        _ => {
            return Err(LoopError::undecided(format!("no loss between the two ends is proved: {}", whole.reason))
                .hint("a longer `--budget` resolves less"));
        }
    };
    let half_pct = pct_of_log(log_of_pct(lost_pct) / 2.0);
    let question = Question { epsilon_pct: half_pct.max(epsilon_pct), ..question };
    let mut measured = vec![Measured { commit: bad, estimate: whole.estimate, is_slow: true }];
    // Everything before `low` is fast, the commit at `high` is slow.
    let (mut low, mut high) = (0, commits.len() - 1);
    let mut skipped = Vec::new();
    while low < high {
        let middle = low + (high - low) / 2;
        let commit = &commits[middle].id.clone();
        progress.note(&format!(
            "{} commits left; measuring {} {}",
            high - low + 1,
            short(commit),
            commits[middle].subject
        ));
        let found = match measure_against(session, &good, commit, &question, progress) {
            Err(error) if matches!(error.kind, ErrorKind::Failed | ErrorKind::Trainer(_)) => {
                progress.note(&format!("`{}` is left out: {error}", short(commit)));
                skipped.push(commit.clone());
                commits.remove(middle);
                high -= 1;
                continue;
            }
            found => found?,
        };
        let is_slow = found.estimate.is_some_and(|estimate| estimate.speedup_pct < -half_pct);
        if found.verdict == Verdict::Undecided {
            progress.note(&format!("undecided, taken as {}: {}", if is_slow { "slow" } else { "fast" }, found.reason));
        }
        measured.push(Measured { commit: commit.clone(), estimate: found.estimate, is_slow });
        if is_slow { high = middle } else { low = middle + 1 }
    }
    let culprit = &commits[high];
    let (culprit, subject) = (culprit.id.clone(), culprit.subject.clone());
    Ok(Bisection { schema: SCHEMA, culprit, subject, lost_pct, measured, skipped })
}

struct Found {
    verdict: Verdict,
    reason: String,
    estimate: Option<Estimate>,
}

fn measure_against(
    session: &mut Session,
    good: &str,
    commit: &str,
    question: &Question<'_>,
    progress: &dyn Progress,
) -> Result<Found, LoopError> {
    let built_arms = built_arms::of_commits(session, good, commit, progress)?;
    if built_arms.revisions[0].binary == built_arms.revisions[1].binary {
        return Ok(Found { verdict: Verdict::Same, reason: "the same program".to_owned(), estimate: None });
    }
    let Measurement { verdict, reason, estimate, .. } = measure::run(session, &built_arms, question, progress)?;
    Ok(Found { verdict, reason, estimate })
}
