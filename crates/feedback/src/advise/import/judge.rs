//! Compares claims with the history that they came from.

use serde::Serialize;

use super::{
    claims::Claim,
    noise::Noise,
    rows::{Row, Status},
};

/// The claims, and how far the history supports them. Zeros and absent values without claims.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClaimsReport {
    /// Number of claims, also of no gain or a loss.
    pub claims: usize,
    /// … of a gain.
    pub claims_positive: usize,
    /// Π (1 + claim) over all claims.
    pub claims_product: Option<f64>,
    /// The product of as many gains if each were the same binary, run again until it was faster: the mean |ln| between
    /// neighbouring runs of one binary, once for each claimed gain.
    pub claims_product_by_chance: Option<f64>,
    /// Gains no larger than the 95 % band of one run against one run.
    pub claims_inside_noise: Option<usize>,
    /// Claims whose row was found.
    pub claims_with_row: usize,
    /// … and was the last attempt before the commit, as when a run is repeated until it looks good.
    pub claims_last_attempt: usize,
    /// … and has a status other than `ok`.
    pub claims_from_bad_rows: usize,
    /// … and was measured at the claiming commit, not before it.
    pub claims_at_own_commit: usize,
    /// Claims whose commit changed only the benchmark script, if the source tells.
    pub claims_benchmark_script: Option<usize>,
    /// Π (1 + claim) over these.
    pub claims_benchmark_script_product: Option<f64>,
}

/// Largest rounding error of a figure with two decimals.
const ROUNDING_PCT: f64 = 0.005_1;

/// `claims` in order of time.
pub fn judge(claims: &[Claim], rows: &[Row], noise: &Noise) -> ClaimsReport {
    let gains = || claims.iter().filter(|claim| claim.claim_pct > 0.0);
    let script = claims.iter().any(|claim| claim.only_benchmark_script.is_some());
    let of_script = || claims.iter().filter(|claim| claim.only_benchmark_script == Some(true));
    let mut report = ClaimsReport {
        claims: claims.len(),
        claims_positive: gains().count(),
        claims_product: product(claims.iter()),
        claims_product_by_chance: noise
            .mean_step
            .filter(|_| !claims.is_empty())
            .and_then(|step| finite((gains().count() as f64 * step).exp())),
        claims_inside_noise: noise
            .noise_band_pct
            .filter(|_| !claims.is_empty())
            .map(|band| gains().filter(|claim| claim.claim_pct <= band).count()),
        claims_benchmark_script: script.then(|| of_script().count()),
        claims_benchmark_script_product: product(of_script()),
        ..ClaimsReport::default()
    };
    let mut timed: Vec<&Row> = rows.iter().filter(|row| row.time.is_some()).collect();
    timed.sort_by_key(|row| row.time);
    let mut from = 0;
    for claim in claims.iter().filter(|claim| claim.time.is_some()) {
        let to = timed.partition_point(|row| row.time <= claim.time);
        let attempts = &timed[from..to];
        from = to;
        let is_claimed = |row: &&Row| row.speedup_pct.is_some_and(|pct| (pct - claim.claim_pct).abs() <= ROUNDING_PCT);
        let Some(at) = attempts.iter().rposition(is_claimed) else { continue };
        let row = attempts[at];
        report.claims_with_row += 1;
        report.claims_last_attempt += usize::from(at + 1 == attempts.len());
        report.claims_from_bad_rows += usize::from(row.status != Status::Ok);
        report.claims_at_own_commit += usize::from(is_same_commit(&row.commit, &claim.commit));
    }
    report
}

/// Absent without claims, and if it is too large for a number.
fn product<'a>(mut claims: impl Iterator<Item = &'a Claim>) -> Option<f64> {
    let first = claims.next()?;
    let ln: f64 = [first].into_iter().chain(claims).map(|claim| (claim.claim_pct / 100.0).ln_1p()).sum();
    finite(ln.exp())
}

fn finite(value: f64) -> Option<f64> {
    Some(value).filter(|value| value.is_finite())
}

/// One of the ids may be abbreviated.
fn is_same_commit(a: &str, b: &str) -> bool {
    a.len().min(b.len()) >= 7 && (a.starts_with(b) || b.starts_with(a))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advise::import::{Rows, claims_from_csv};

    fn judged(rows: &str, claims: &str, noise: &Noise) -> ClaimsReport {
        let rows = format!("timestamp,git_commit,steps,backend,compile_ms,avg_tok_s,speedup_pct,status\n{rows}");
        let claims = format!("commit,time,claim_pct,only_benchmark_script\n{claims}");
        let claims = claims_from_csv(claims.as_bytes()).unwrap();
        judge(&claims.claims, &Rows::parse(rows.as_bytes()).unwrap().rows, noise)
    }

    #[test]
    fn each_claim_is_looked_up_among_the_attempts_since_the_one_before() {
        let rows = "\
            20260101T100000Z,0000000,1,cpu,1,1,5.00,ok\n\
            20260101T100100Z,0000000,1,cpu,1,1,-3.00,ok\n\
            20260101T100200Z,0000000,1,cpu,1,1,5.00,unstable\n\
            20260101T110000Z,aaaaaaa,1,cpu,1,1,7.00,ok\n\
            20260101T110100Z,aaaaaaa,1,cpu,1,1,1.00,ok\n\
            20260101T120000Z,ccccccc,1,cpu,1,1,9.00,smoke_fail\n\
            20260101T130000Z,ccccccc,1,cpu,1,1,2.00,ok\n";
        let claims = "\
            aaaaaaa1,2026-01-01T10:30:00Z,5.00\n\
            bbbbbbb1,2026-01-01T11:30:00Z,7.00\n\
            ccccccc1,2026-01-01T12:30:00Z,9.00\n\
            ddddddd1,2026-01-01T12:40:00Z,5.00\n\
            eeeeeee1,never,2.00\n";
        let found = judged(rows, claims, &Noise::default());
        // `a` was the third of three, and unstable; `b` the first of two; `c` alone, marked, and at its own commit; `d`
        // has no attempt at all, and the time of `e` is unknown.
        assert_eq!(found.claims_with_row, 3);
        assert_eq!(found.claims_last_attempt, 2);
        assert_eq!(found.claims_from_bad_rows, 2);
        assert_eq!(found.claims_at_own_commit, 1);
        assert_eq!((found.claims_inside_noise, found.claims_product_by_chance), (None, None));
    }

    #[test]
    fn products_and_the_band() {
        let noise = Noise { noise_band_pct: Some(10.0), mean_step: Some(2.0_f64.ln()), ..Noise::default() };
        let claims = "a,,100,False\nb,,-50,True\nc,,10,\nd,,0,True\ne,,10.01,False\n";
        let found = judged("", claims, &noise);
        assert_eq!((found.claims, found.claims_positive), (5, 3));
        assert_eq!(found.claims_inside_noise, Some(1));
        let close = |found: Option<f64>, expected: f64| assert!((found.unwrap() / expected - 1.0).abs() < 1e-12);
        close(found.claims_product, 2.0 * 0.5 * 1.1 * 1.1001);
        close(found.claims_product_by_chance, 8.0);
        close(found.claims_benchmark_script_product, 0.5);
        assert_eq!(found.claims_benchmark_script, Some(2));
        assert_eq!(found.claims_with_row, 0);

        assert_eq!(judged("", "", &noise), ClaimsReport::default());
        let huge = judged("", &"a,,1e300\n".repeat(2), &noise);
        assert_eq!((huge.claims, huge.claims_product), (2, None));
    }
}
