//! Claims beside what is measured: HEAD against an anchor directly, and the product of the claims between.

use std::time::Duration;

use serde::Serialize;

use crate::{
    LoopError, Watch,
    confirm::{attempts_on, expected_false_commits},
    contest, evidence,
    measure::{self, Measurement},
    session::Session,
    verdict::{Estimate, Verdict},
    verify::{self, Agreement, Rerun},
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
    /// Attempts that the ledger knows.
    pub attempts: usize,
    /// False commits to expect of them, if none had an effect.
    pub expected_false_commits: f64,
}

/// Audits from `anchor`, or from the parent of the first commit with a claim.
pub fn audit(
    session: &mut Session,
    anchor: Option<&str>,
    budget: Duration,
    watch: &dyn Watch,
) -> Result<Audit, LoopError> {
    let head = session.repository.head()?.commit;
    let verifications = match anchor {
        Some(anchor) => verify::verify(session, &format!("{anchor}..HEAD"))?,
        None => verify::verify_all(session)?,
    };
    let anchor = match (anchor, verifications.first()) {
        (Some(anchor), _) => session.repository.resolve(anchor)?,
        (None, Some(first)) => session.repository.resolve(&format!("{}^", first.commit))?,
        (None, None) => {
            return Err(LoopError::Usage("no commit of this branch claims a gain: there is nothing to audit".into())
                .hint("name where to begin: `alpha loop audit --anchor=<commit>`"));
        }
    };
    let claims_product: f64 =
        verifications.iter().filter_map(|claim| claim.claim_pct).map(|pct| 1.0 + pct / 100.0).product();
    let claims_pct = (claims_product - 1.0) * 100.0;
    let contest = contest::of_commits(session, &anchor, &head, watch)?;
    let (measured, agreement) = if contest.sides[0].binary == contest.sides[1].binary {
        (None, None)
    } else {
        let Measurement { estimate, verdict, .. } =
            measure::run(session, &contest, "audit", budget, session.config.epsilon_pct, watch)?;
        let mut agreement = verify::agreement((claims_pct, claims_pct), estimate);
        if verifications.is_empty() && verdict == Verdict::Same {
            agreement.outcome = Agreement::Agrees;
        }
        (estimate, Some(agreement))
    };
    let attempts = evidence::attempts(session);
    let mut baselines: Vec<&str> = attempts.iter().map(|(_, record)| record.baseline.measured_tree.as_str()).collect();
    baselines.sort_unstable();
    baselines.dedup();
    let expected = baselines.iter().map(|tree| expected_false_commits(attempts_on(session, tree), 0.025)).sum();
    Ok(Audit {
        schema: SCHEMA,
        anchor,
        head,
        claims: verifications.len(),
        broken_claims: verifications.iter().filter(|claim| !claim.holds()).map(|claim| claim.commit.clone()).collect(),
        claims_product,
        claims_pct,
        measured,
        agreement,
        attempts: attempts.len(),
        expected_false_commits: expected,
    })
}
