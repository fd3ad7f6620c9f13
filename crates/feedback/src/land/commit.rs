//! Landing: runs the remaining gates on exactly the tree that was compared, then commits it.
//!
//! A claim needs FASTER, parity, guards, attribution to the declared area, and a confirmation, whose estimate is the
//! number in the subject. A commit without a claim (LEANER, or on request) has no percentage. A change of the
//! instrument has its own kind of commit.

use std::time::Instant;

use pairbench::verdict::{Estimate, Verdict};
use serde::Serialize;

use crate::{
    ErrorKind, LoopError, Progress,
    attempt::{Attempt, RULES, confirmation::claimed, corroboration::Corroboration, reference::Reference},
    compare::{
        self, CompareOptions,
        built_arms::{self, BuiltArms},
        same_training, trace_runs,
    },
    confirm::{self, anchor, plain},
    ledger::RecordId,
    parity::Tier,
    records::{
        claim::{self, Claim, Message},
        evidence,
    },
    review::{
        recompute::{self, Asked, Lands, WIDENED},
        reference, verify,
        weakened::{self, Weakened},
    },
    store::session::Session,
    trace::attribution::{self, Finding},
    visible::{self, short},
};

/// Version of [`Landed`].
pub const SCHEMA: &str = "alpha.loop.commit/1";
/// Characters of a line of the body, before it is wrapped.
const MAX_LINE_CHARS: usize = 2_000;
/// The hint for a change that does not land.
const HOW_TO_END: &str = "`alpha loop drop` ends the cycle and keeps its record";

/// How to commit.
#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// The change in a few words.
    pub summary: String,
    /// Commit without a percentage.
    pub no_claim: bool,
    /// Commit a change of the instrument.
    pub instrument: bool,
    /// Why gains outside the declared area are all right.
    pub widen: Option<String>,
    /// Why a change of the instrument may ask for less than before.
    pub weakens: Option<String>,
}

/// A commit that was made.
#[derive(Clone, Debug, Serialize)]
pub struct Landed {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The commit.
    pub commit: String,
    /// Its subject.
    pub subject: String,
    /// The gain that it claims, if it claims one.
    pub claim_pct: Option<f64>,
    /// How it compares with the best commit accepted before, where that is not its parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Id of the record with its evidence.
    pub record: Option<String>,
    /// Whether an audit is due: after every tenth accepted commit.
    pub audit_is_due: bool,
}

/// Runs the missing gates and commits.
pub fn commit(session: &mut Session, options: &CommitOptions, progress: &dyn Progress) -> Result<Landed, LoopError> {
    claim::check_summary(&options.summary)?;
    if let Some(reason) = &options.widen {
        visible::check_length("the reason of `--widen`", reason)?;
    }
    if options.instrument {
        return instrument(session, options, progress);
    }
    if options.weakens.is_some() {
        return Err(LoopError::usage("`--weakens` is about a change of the instrument")
            .hint("`alpha loop commit --instrument --weakens=<why> -m …`; a gain outside its area takes `--widen`"));
    }
    let mut built_arms = built_arms::of_working_tree(session, &CompareOptions::default(), progress)?;
    // The programs may be those that were compared while the instrument has changed.
    if let Some(finding) = built_arms.sealed(session) {
        return Err(LoopError::refused(finding.to_string())
            .hint("`alpha loop commit --instrument -m …` commits it, without a claim; take it out of the working tree for the gain"));
    }
    let mut attempt = compare::identity::known(session, &built_arms)?.ok_or_else(|| {
        LoopError::refused("this tree has not been compared with its baseline")
            .hint("`alpha loop compare` first; what was changed since the last comparison counts as another tree")
    })?;
    stand_on_head(session, &mut built_arms)?;
    untouched(session, &attempt)?;
    same_walls(session, &attempt)?;
    may_land(session, &built_arms, &mut attempt, options, progress)?;
    let claims = !options.no_claim && attempt.verdict == Some(Verdict::Faster);
    let lands = Lands::of(attempt.verdict, claims);
    let passed = match lands {
        Lands::Claim => gates(session, &built_arms, &mut attempt, options, progress),
        Lands::Leaner => counted(session, &built_arms, &mut attempt, progress),
        Lands::Plain => Ok(()),
    };
    let passed = match passed {
        Ok(()) if !claims || attempt.is_confirmed() => {
            beside_others(session, &built_arms, &mut attempt, claims, progress)
        }
        passed => passed,
    };
    // Before it is recorded: an edited attempt gets no record.
    if passed.is_ok() && (!claims || attempt.is_confirmed()) {
        recomputed(session, &built_arms, &attempt, lands, progress)?;
    }
    // A refused attempt is recorded too.
    let record = match &passed {
        Err(error) if !matches!(error.kind, ErrorKind::Refused) => None,
        _ => Some(evidence::record(session, &attempt)?),
    };
    passed?;
    if claims && !attempt.is_confirmed() {
        return Err(not_confirmed(&attempt));
    }
    let record = record.ok_or_else(|| LoopError::failed("the attempt has no record"))?;
    land(session, &built_arms, &attempt, options, record)
}

/// Refuses a verdict that does not land. One without a gain lands without a claim, if the training is the same.
fn may_land(
    session: &Session,
    built_arms: &BuiltArms,
    attempt: &mut Attempt,
    options: &CommitOptions,
    progress: &dyn Progress,
) -> Result<(), LoopError> {
    match attempt.verdict {
        None => Err(LoopError::refused("the comparison has not ended").hint("`alpha loop compare` goes on")),
        Some(Verdict::Faster | Verdict::Leaner) => Ok(()),
        Some(Verdict::Same | Verdict::Undecided) if options.no_claim => {
            let refusal = same_training::without_a_gain(session, built_arms, attempt, progress)?;
            session.attempts().save(attempt)?;
            match refusal {
                None => Ok(()),
                Some(refusal) => Err(LoopError::refused(refusal).hint(HOW_TO_END)),
            }
        }
        Some(verdict) => {
            let refused = LoopError::refused(format!("the verdict is {}: {}", verdict.name(), attempt.reason));
            Err(match verdict {
                Verdict::Same | Verdict::Undecided if attempt.pairs.is_empty() => {
                    refused.hint("both build the same program: `git commit` it, nothing is to be measured")
                }
                Verdict::Same | Verdict::Undecided => refused.hint("`--no-claim` commits it without a percentage"),
                _ => refused.hint(HOW_TO_END),
            })
        }
    }
}

/// The confirmation must run behind the same walls as the comparison that it is recorded with.
fn same_walls(session: &Session, attempt: &Attempt) -> Result<(), LoopError> {
    let [then, now] = [&attempt.manifest.protection, &session.isolation.protection()];
    if (&then.walls, then.cgroup) == (&now.walls, now.cgroup) {
        return Ok(());
    }
    Err(LoopError::refused(format!("the walls of the comparison were {then}, here they are {now}"))
        .hint("run `alpha loop commit` as `alpha loop compare` ran, or compare again here"))
}

/// The attempt on disk must be the one that the ledger has, with rows added.
fn untouched(session: &Session, attempt: &Attempt) -> Result<(), LoopError> {
    let mut departures = Vec::new();
    for record in session.ledger.records().iter().filter(|record| record.kind == evidence::KIND) {
        // This program cannot read attempts of another format.
        let Ok(body) = record.body::<evidence::AttemptRecord>() else { continue };
        if body.attempt.key == attempt.key {
            departures.extend(recompute::departures(attempt, &body.attempt));
        }
    }
    does_not_follow(&departures)
}

/// Recomputes everything from the rows, and parity from the pairs' evidence.
fn recomputed(
    session: &Session,
    built_arms: &BuiltArms,
    attempt: &Attempt,
    lands: Lands,
    progress: &dyn Progress,
) -> Result<(), LoopError> {
    let target = attempt.manifest.target.as_deref();
    let config = verify::config_at(session, &built_arms.revisions[0].tree, target)?;
    let asked = Asked {
        config: &config,
        lands,
        earlier_attempts: recompute::earlier_attempts(&session.ledger, attempt),
        message: None,
    };
    let mut problems = recompute::problems(&Attempt { rules: RULES, ..attempt.clone() }, &asked);
    if attempt.rules != RULES {
        problems.push(format!("it was judged by rules {}, this program's are {RULES}", attempt.rules));
    }
    if attempt.tier == Tier::T2 {
        problems.extend(anchor::problems(session, attempt, &built_arms.revisions[0].commit)?);
    }
    problems.extend(same_training::again(session, built_arms, attempt, progress)?);
    does_not_follow(&problems)
}

fn does_not_follow(problems: &[String]) -> Result<(), LoopError> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(LoopError::refused(format!("the attempt does not follow from what was measured: {}", problems.join("; ")))
        .hint("its file in the loop's state folder was changed; nothing of it lands. `alpha loop drop` ends the cycle"))
}

/// Checks with traces of both arms that counters fell.
fn counted(
    session: &Session,
    built_arms: &BuiltArms,
    attempt: &mut Attempt,
    progress: &dyn Progress,
) -> Result<(), LoopError> {
    if session.config.trace.is_none() {
        return Ok(());
    }
    if attempt.leaner.is_none() {
        attempt.leaner = Some(trace_runs::corroborate(session, built_arms, attempt, progress)?);
        session.attempts().save(attempt)?;
    }
    match attempt.leaner.as_ref().filter(|found| !found.contradicted.is_empty()) {
        Some(found) => Err(LoopError::refused(format!("counters fell by the trainer's own word alone: {found}"))
            .hint("`--no-claim` commits it as a change that is as fast; `alpha loop drop` ends the cycle")),
        None => Ok(()),
    }
}

/// Compares with more than the baseline: all T2s together with their anchor, and a gain with the best accepted tree.
fn beside_others(
    session: &mut Session,
    built_arms: &BuiltArms,
    attempt: &mut Attempt,
    claims: bool,
    progress: &dyn Progress,
) -> Result<(), LoopError> {
    if let Some(refusal) = anchor::judge(session, built_arms, attempt, progress)? {
        return Err(LoopError::refused(refusal).hint(HOW_TO_END));
    }
    if claims { reference::measure(session, built_arms, attempt, progress) } else { Ok(()) }
}

/// Runs attribution and confirmation, unless they are done already.
pub fn gates(
    session: &Session,
    built_arms: &BuiltArms,
    attempt: &mut Attempt,
    options: &CommitOptions,
    progress: &dyn Progress,
) -> Result<(), LoopError> {
    if attempt.attribution.is_none() && session.config.trace.is_some() {
        let started = Instant::now();
        let attribution = trace_runs::attribute(session, built_arms, attempt, progress)?;
        attempt.seconds.attribution += started.elapsed().as_secs_f64();
        attempt.attribution = Some(attribution);
        session.attempts().save(attempt)?;
    }
    if let Some(attribution) = attempt.attribution.as_ref().filter(|found| found.finding == Finding::Outside)
        && options.widen.is_none()
    {
        return Err(LoopError::refused(format!("attribution: {}", attribution.explanation))
            .hint("`--widen=<why>` lets gains outside the declared area through; the reason goes into the commit"));
    }
    confirm::run(session, built_arms, attempt, progress)?;
    plain::run(session, built_arms, attempt, progress)
}

fn not_confirmed(attempt: &Attempt) -> LoopError {
    if let Some(why) = attempt.plain.as_ref().and_then(|plain| plain.refusal.as_ref()) {
        return LoopError::refused(why.clone())
            .hint("a user starts the trainer without the loop: a gain has to be there then; `alpha loop drop` ends the cycle and keeps its record");
    }
    let confirmation = attempt.confirmation.as_ref();
    let why = confirmation.and_then(|confirmation| {
        confirmation.refusal.clone().or_else(|| confirmation.estimate.map(|estimate| estimate.to_string()))
    });
    LoopError::refused(format!("fresh pairs do not confirm the gain: {}", why.as_deref().unwrap_or("nothing")))
        .hint("these two trees cannot be confirmed again; `alpha loop drop` ends the cycle and keeps its record")
}

/// The parent must be the baseline, which the gain was measured against. Where the baseline was another commit with the
/// same measured tree, HEAD takes its place, because earlier claims are looked for in HEAD's history.
fn stand_on_head(session: &Session, built_arms: &mut BuiltArms) -> Result<(), LoopError> {
    let head = session.repository.head()?;
    let measured = session.repository.measured_tree(&head.tree, &session.config.unmeasured())?;
    if measured == built_arms.revisions[0].measured_tree {
        (built_arms.revisions[0].commit, built_arms.revisions[0].tree) = (head.commit, head.tree);
        return Ok(());
    }
    Err(LoopError::refused(format!(
        "HEAD is `{}`, but the comparison was against `{}`",
        short(&head.commit),
        short(&built_arms.revisions[0].commit)
    ))
    .hint("`alpha loop compare --baseline=HEAD` measures against what is there now"))
}

fn land(
    session: &Session,
    built_arms: &BuiltArms,
    attempt: &Attempt,
    options: &CommitOptions,
    record: RecordId,
) -> Result<Landed, LoopError> {
    let claims = !options.no_claim
        && attempt.verdict == Some(Verdict::Faster)
        && attempt.reference.as_ref().is_none_or(Reference::allows_a_claim);
    let estimate = claimed(attempt).filter(|_| claims);
    let weaker =
        weakened::at(&session.repository, &built_arms.revisions[0].commit, attempt.manifest.target.as_deref())?;
    let message = Message {
        summary: options.summary.clone(),
        speedup_pct: estimate.map(|estimate| estimate.speedup_pct),
        body: body(session, built_arms, attempt, options)?,
        trailers: trailers(attempt, estimate, &weaker, record),
    };
    let text = message.render()?;
    let subject = text.lines().next().unwrap_or_default().to_owned();
    let commit = write(session, built_arms, &text, record)?;
    let log = session.repository.log("HEAD")?;
    let accepted =
        log.iter().filter(|entry| Claim::parse(&entry.message()).is_some_and(|claim| claim.is_gain())).count();
    session.state.close_cycle()?;
    // The evidence has served its purpose; if the attempt is committed again, its recorded judgement stands.
    session.attempts().save(&Attempt { evidence: String::new(), ..attempt.clone() })?;
    session.attempts().remove_evidence(&attempt.key, session.config.guards.keys())?;
    Ok(Landed {
        schema: SCHEMA,
        commit,
        subject,
        claim_pct: estimate.map(|estimate| estimate.speedup_pct),
        reference: attempt.reference.as_ref().map(ToString::to_string),
        record: Some(record.to_string()),
        audit_is_due: claims && accepted.is_multiple_of(crate::review::audit::EVERY),
    })
}

/// Commits the tree that was measured and the ledger's records, if the working tree is still the measured one. Other
/// unmeasured files, such as documents and runs, are not committed.
fn write(session: &Session, built_arms: &BuiltArms, message: &str, record: RecordId) -> Result<String, LoopError> {
    let repository = &session.repository;
    let unmeasured = session.config.unmeasured();
    let now = repository.snapshot(&unmeasured)?;
    if repository.measured_tree(&now.tree, &unmeasured)? != built_arms.revisions[1].measured_tree {
        return Err(LoopError::refused("the working tree was changed meanwhile")
            .hint("`alpha loop compare` measures it as it is now"));
    }
    let head = repository.head()?;
    if head.commit != built_arms.revisions[0].commit {
        return Err(LoopError::refused("HEAD was moved meanwhile").hint("`alpha loop commit` again"));
    }
    let ledger = &session.config.ledger;
    // The snapshot has unmeasured files as HEAD has them.
    let tree =
        repository.with_files(&now.tree, &session.ledger.files().map(|name| ledger.join(name)).collect::<Vec<_>>())?;
    let name = ledger.join(format!("{record}.json"));
    if repository.read_file(&tree, &name.to_string_lossy())?.is_none() {
        return Err(LoopError::failed(format!("the record `{}` did not get into the commit", name.display()))
            .hint("`ledger` of `loop.toml` must be a folder of this repository"));
    }
    repository.commit(&tree, message, &head)
}

fn trailers(
    attempt: &Attempt,
    claimed: Option<Estimate>,
    weaker: &[Weakened],
    record: RecordId,
) -> Vec<(String, String)> {
    let mut trailers = Vec::new();
    let mut add = |name: &str, value: String| trailers.push((name.to_owned(), value));
    if let Some((confirmation, estimate)) = attempt.confirmation.as_ref().zip(claimed) {
        if let Some((low, high)) = estimate.ci_low_pct.zip(estimate.ci_high_pct) {
            add("Alpha-Interval", format!("{low:+.2}% .. {high:+.2}%"));
        }
        add("Alpha-Pairs", format!("{}+{}", attempt.pairs.len(), confirmation.pairs.len()));
    }
    for weakened in weaker {
        add(weakened::TRAILER, weakened.line());
    }
    add("Alpha-Record", record.to_string());
    trailers
}

/// The body: change, reason, command, results.
fn body(
    session: &Session,
    built_arms: &BuiltArms,
    attempt: &Attempt,
    options: &CommitOptions,
) -> Result<String, LoopError> {
    let stat = session.repository.diff_stat(&built_arms.revisions[0].tree, &built_arms.revisions[1].tree)?;
    let mut lines = Vec::new();
    if let Some(hypothesis) = &attempt.hypothesis {
        lines.push(format!("Why: {hypothesis}"));
    }
    let files: Vec<String> = built_arms.changed.iter().take(6).map(|path| path.display().to_string()).collect();
    let more = if built_arms.changed.len() > files.len() { ", …" } else { "" };
    lines.push(format!("What: {}{more} (+{} -{} lines)", files.join(", "), stat.insertions, stat.deletions));
    lines.extend(attempt.manifest.target.as_ref().map(|target| format!("Target: {target}")));
    lines.push(format!("Command: {}", attempt.manifest.command));
    if let Some(estimate) = attempt.estimate {
        lines.push(format!("Comparison: {} over {} pairs in turns", estimate, attempt.pairs.len()));
    }
    if let Some((confirmation, estimate)) = attempt
        .confirmation
        .as_ref()
        .and_then(|confirmation| confirmation.estimate.map(|estimate| (confirmation, estimate)))
    {
        let (pairs, p) = (confirmation.pairs.len(), confirmation.p.unwrap_or(1.0));
        lines.push(format!("Confirmation: {estimate} over {pairs} fresh pairs (p = {p:.4})"));
    }
    if let Some(parity) = &attempt.parity {
        lines.push(format!("Parity: {parity}"));
    }
    for row in &attempt.counters {
        lines.push(format!("Counter: {} {} -> {}", row.name, row.baseline, row.candidate));
    }
    if attempt.verdict == Some(Verdict::Leaner) {
        let nothing = Corroboration::default();
        lines.push(format!("Leaner by the trainer's own counters; {}", attempt.leaner.as_ref().unwrap_or(&nothing)));
    }
    if let Some(reference) = &attempt.reference {
        lines.push(reference.to_string());
    }
    for guard in &attempt.guards {
        lines.push(format!("Guard: {guard}"));
    }
    if let Some(reason) = &options.widen {
        lines.push(format!("{WIDENED}{reason}"));
    }
    // Names, reasons and a trainer's own words stay within their line, so that they cannot pass for another one.
    let lines: Vec<String> = lines.iter().map(|line| visible::cut(&visible::line(line), MAX_LINE_CHARS)).collect();
    let mut text = lines.join("\n");
    if let Some(attribution) = &attempt.attribution {
        text.push_str("\n\n");
        text.push_str(&attribution::table(attribution));
    }
    Ok(text)
}

/// Commits a change of the instrument: no claim, but a measurement with both instruments, so that the series can be
/// joined.
fn instrument(session: &mut Session, options: &CommitOptions, progress: &dyn Progress) -> Result<Landed, LoopError> {
    let mut built_arms = built_arms::of_instrument(session, progress)?;
    stand_on_head(session, &mut built_arms)?;
    let trees = built_arms.revisions.each_ref().map(|revision| revision.tree.as_str());
    let weaker = weakened::trailers(&session.repository, trees, options.weakens.as_deref())?;
    let record = crate::land::instrument_change::measure(session, &built_arms, progress)?;
    let mut text = format!(
        "instrument: {}\n\nNo claim: the change touches files that measure. Old and new instrument beside each\nother: {}\n\n",
        options.summary, record.text
    );
    for (name, line) in weaker {
        text.push_str(&format!("{name}: {line}\n"));
    }
    text.push_str(&format!("Alpha-Record: {}\n", record.id));
    let subject = text.lines().next().unwrap_or_default().to_owned();
    let commit = write(session, &built_arms, &text, record.id)?;
    Ok(Landed {
        schema: SCHEMA,
        commit,
        subject,
        claim_pct: None,
        reference: None,
        record: Some(record.id.to_string()),
        audit_is_due: false,
    })
}
