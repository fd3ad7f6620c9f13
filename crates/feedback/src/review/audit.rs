//! Audits claims: HEAD is measured directly against an anchor and compared with the product of the claims in between.

use std::time::Duration;

use pairbench::verdict::{Estimate, Verdict, log_of_pct, pct_of_log};
use serde::Serialize;

use crate::{
    LoopError, Progress,
    attempt::confirmation::expected_false_commits,
    compare::built_arms,
    records::registry::Registry,
    review::{
        measure::{self, Measurement, Question},
        verify::{self, Agreement, Rerun, Verification},
        weakened::{self, Weakened},
    },
    store::session::Session,
};

/// Version of [`Audit`].
pub const SCHEMA: &str = "alpha.loop.audit/1";
/// Accepted commits after which an audit is due.
pub const EVERY: usize = 10;

/// What an audit found.
#[derive(Clone, Debug, Serialize)]
pub struct Audit {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// From where.
    pub anchor: String,
    /// To where.
    pub head: String,
    /// Claims between the two.
    pub claims: usize,
    /// Those that do not follow from their records.
    pub broken_claims: Vec<String>,
    /// Their product, as a factor of speed.
    pub claims_product: f64,
    /// Their product, as a percentage.
    pub claims_pct: f64,
    /// HEAD against the anchor, measured now.
    pub measured: Option<Estimate>,
    /// Whether the product lies within what was measured.
    pub agreement: Option<Rerun>,
    /// Records that an earlier commit of this history held and that are now missing.
    pub dropped_records: Vec<String>,
    /// Rules of the instrument that are weaker at HEAD than they once were.
    pub weaker: Vec<Weakened>,
    /// Known attempts on this target, over all baselines.
    pub attempts: usize,
    /// A warning, where a record counts more attempts than are known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts_missing: Option<String>,
    /// False commits to expect among them, if none had an effect.
    pub expected_false_commits: f64,
}

/// The interval of several claims together, each given as its number and interval in per cent. Errors of separate
/// measurements add up as squares.
fn together(claims: impl Iterator<Item = (f64, (f64, f64))>, product_pct: f64) -> (f64, f64) {
    let (mut below, mut above) = (0.0, 0.0);
    for (pct, (low, high)) in claims {
        below += (log_of_pct(pct) - log_of_pct(low)).powi(2);
        above += (log_of_pct(high) - log_of_pct(pct)).powi(2);
    }
    let product = log_of_pct(product_pct);
    (pct_of_log(product - below.sqrt()), pct_of_log(product + above.sqrt()))
}

/// Audits from `anchor`, or from the parent of the first commit with a claim.
pub fn audit(
    session: &mut Session,
    anchor: Option<&str>,
    budget: Duration,
    progress: &dyn Progress,
) -> Result<Audit, LoopError> {
    let head = session.repository.head()?.commit;
    let verifications = match anchor {
        Some(anchor) => verify::verify(session, &format!("{anchor}..HEAD"))?,
        None => verify::verify_all(session)?,
    };
    // Gains of other targets do not count, and a gain that is claimed twice counts once.
    let of_target = |commit: &&Verification| commit.target == session.config.target && commit.repeats.is_none();
    let claims: Vec<(f64, &Verification)> =
        verifications.iter().filter(of_target).filter_map(|commit| Some((commit.claim_pct?, commit))).collect();
    let anchor = match (anchor, claims.first()) {
        (Some(anchor), _) => session.repository.resolve(anchor)?,
        (None, Some((_, first))) => session.repository.resolve(&format!("{}^", first.commit))?,
        (None, None) => {
            return Err(LoopError::usage("no commit of this branch claims a gain: there is nothing to audit")
                .hint("name where to begin: `alpha loop audit --anchor=<commit>`"));
        }
    };
    let claims_product: f64 = claims.iter().map(|(pct, _)| 1.0 + pct / 100.0).product();
    let claims_pct = (claims_product - 1.0) * 100.0;
    let built_arms = built_arms::of_commits(session, &anchor, &head, progress)?;
    let (measured, agreement) = if built_arms.revisions[0].binary == built_arms.revisions[1].binary {
        (None, None)
    } else {
        let question = Question { purpose: "audit", budget, epsilon_pct: session.config.epsilon_pct };
        let Measurement { estimate, verdict, .. } = measure::run(session, &built_arms, &question, progress)?;
        let claimed = claims.iter().map(|(pct, claim)| (*pct, verify::claimed_interval(session, claim)));
        let mut agreement = verify::agreement(together(claimed, claims_pct), estimate);
        if claims.is_empty() && verdict == Verdict::Same {
            agreement.outcome = Agreement::Agrees;
        }
        (estimate, Some(agreement))
    };
    let known = Registry::read(session)?;
    let attempts = known.attempts(session);
    let weaker = weakened::at(&session.repository, &head, session.config.target.as_deref())?;
    Ok(Audit {
        schema: SCHEMA,
        dropped_records: verify::dropped_records(session)?,
        weaker,
        anchor,
        head,
        claims: claims.len(),
        broken_claims: verifications.iter().filter(|claim| !claim.holds()).map(|claim| claim.commit.clone()).collect(),
        claims_product,
        claims_pct,
        measured,
        agreement,
        attempts,
        attempts_missing: known.missing(session),
        expected_false_commits: expected_false_commits(attempts, 0.025),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_claims_add_up_as_squares() {
        let near = |found: (f64, f64), expected: (f64, f64)| {
            assert!(
                (found.0 - expected.0).abs() < 0.01 && (found.1 - expected.1).abs() < 0.01,
                "{found:?} {expected:?}"
            );
        };
        near(together([(4.54, (3.93, 5.23))].into_iter(), 4.54), (3.93, 5.23));
        near(together(std::iter::empty(), 0.0), (0.0, 0.0));
        // Four times +1 % ± 0.5: +4.06 % ± twice that, not four times.
        near(together([(1.0, (0.5, 1.5)); 4].into_iter(), 4.0604), (3.03, 5.09));
    }
}
