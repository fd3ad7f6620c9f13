//! Luck of layout: the place of functions and data in memory changes speed, whatever the change is, and fresh pairs of
//! the same two programs cannot tell it from a gain. Mytkowicz et al., Producing wrong data without doing anything
//! obviously wrong, ASPLOS 2009; Curtsinger and Berger, Stabilizer, ASPLOS 2013.
//!
//! A build command with `{layout}` can build the same source in other layouts; 0 is the source's own order. The
//! self-test measures how much they differ. A gain must exceed what two layouts may differ by. One beyond all doubt
//! needs nothing more; any other is confirmed over several layouts of both arms, and so is every gain where noise
//! hides how much layouts differ. Where layouts cannot be varied, a fixed floor takes their place.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use pairbench::{
    Arm,
    draws::{Purpose, Randomization},
    process::sandbox::SandboxSpec,
};

use crate::{
    ErrorKind, LoopError, Progress,
    attempt::layout::{CONFIRMED_OVER, LayoutNoise, MOST},
    compare::built_arms::BuiltArms,
    store::{
        build::{Built, Wanted},
        session::Session,
    },
};

/// Time limit for measuring layouts in a self-test, builds aside.
pub const LIMIT: Duration = Duration::from_secs(60);
/// What layouts are drawn for: a confirmation in the comparison's layouts would confirm their luck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A comparison over several layouts.
    Comparison,
    /// The confirmation of a claim.
    Confirmation,
}

/// Layouts of both arms for a stage, by [`Arm::index`]. The baseline's are the same numbers each time, in drawn order,
/// so that they are built once for all attempts on it; the candidate's are drawn, so that nobody can choose a source
/// that does well in them. No two stages share one.
pub fn drawn(draws: Randomization, stage: Stage) -> [Vec<u32>; 2] {
    let stage = stage as u32;
    let mut of_baseline: Vec<u32> = (1..=CONFIRMED_OVER as u32).map(|layout| layout + stage * MOST).collect();
    let order = 2 * u64::from(stage);
    for last in (1..of_baseline.len()).rev() {
        of_baseline.swap(last, draws.below(last as u64 + 1, Purpose::Layout, order, last as u64) as usize);
    }
    let mut of_candidate = Vec::with_capacity(CONFIRMED_OVER);
    for draw in 0.. {
        // Past those of the baseline and the self-test, and fit for an i32, as linkers want it; odd in one stage.
        let layout = (1 << 10) + 2 * draws.below(1 << 29, Purpose::Layout, order + 1, draw) as u32 + stage;
        if !of_candidate.contains(&layout) {
            of_candidate.push(layout);
        }
        if of_candidate.len() == CONFIRMED_OVER {
            break;
        }
    }
    [of_baseline, of_candidate]
}

/// What both arms run in a stage, layout by layout.
#[derive(Debug)]
pub struct LayoutSpecs {
    layouts: [Vec<u32>; 2],
    specs: [Vec<SandboxSpec>; 2],
    /// Seconds of builds that were not cached.
    pub build_s: f64,
}

impl LayoutSpecs {
    /// Builds all of them, one after the other: builds share one stage folder, and nothing is timed meanwhile.
    ///
    /// # Errors
    /// [`LoopError::refused`] where the candidate's build makes the same program in two layouts.
    pub fn build(
        session: &Session,
        built_arms: &BuiltArms,
        draws: Randomization,
        stage: Stage,
        progress: &dyn Progress,
    ) -> Result<LayoutSpecs, LoopError> {
        let layouts = drawn(draws, stage);
        let mut specs = [Vec::new(), Vec::new()];
        let mut build_s = 0.0;
        for arm in Arm::BOTH {
            let (made, seconds) = specs_of(session, built_arms, arm, &layouts[arm.index()], progress)?;
            specs[arm.index()] = made;
            build_s += seconds;
        }
        Ok(LayoutSpecs { layouts, specs, build_s })
    }

    /// The specs of a stage's pair `index`, counted from 0, by [`Arm::index`].
    pub fn of_pair(&self, index: usize) -> [&SandboxSpec; 2] {
        self.specs.each_ref().map(|specs| &specs[index % CONFIRMED_OVER])
    }

    /// Its layouts.
    pub fn layouts_of_pair(&self, index: usize) -> [u32; 2] {
        self.layouts.each_ref().map(|layouts| layouts[index % CONFIRMED_OVER])
    }
}

/// Builds one arm in some layouts; returns their specs, and the seconds of builds that were not cached.
///
/// # Errors
/// Where two layouts are the same program: nothing was varied.
pub fn specs_of(
    session: &Session,
    built_arms: &BuiltArms,
    arm: Arm,
    layouts: &[u32],
    progress: &dyn Progress,
) -> Result<(Vec<SandboxSpec>, f64), LoopError> {
    let (repository, config) = (&session.repository, &session.config);
    let tree = &built_arms.revisions[arm.index()].tree;
    let (mut specs, mut seconds, mut binaries) = (Vec::new(), 0.0, BTreeSet::new());
    let wanted = Wanted { name: arm.name(), tree, config };
    for built in session.builds.build_layouts(repository, wanted, layouts, progress)? {
        if !built.is_cached {
            seconds += built.seconds;
        }
        if !binaries.insert(built.binary_hash.clone()) {
            return Err(LoopError::refused(format!(
                "the {} is the same program in two layouts: `{}` does not vary it",
                arm.name(),
                config.build.command
            ))
            .hint("each number that `{layout}` stands for makes another order of functions, or the command has no `{layout}`"));
        }
        let Built { folder: artifacts_from, binary_hash, .. } = built;
        specs.push(SandboxSpec { artifacts_from, binary_hash, ..built_arms.specs[arm.index()].clone() });
    }
    Ok((specs, seconds))
}

/// Measures d of a pair of specs, given the number of the pair.
pub type RunPair<'a> = &'a dyn Fn([&SandboxSpec; 2], u64) -> Result<f64, LoopError>;

/// Measures how much layouts of the baseline differ. None where the layouts cannot be built.
pub fn measure(
    session: &Session,
    built_arms: &BuiltArms,
    layouts: u32,
    progress: &dyn Progress,
    run: RunPair<'_>,
) -> Result<Option<LayoutNoise>, LoopError> {
    progress.note(&format!("building {layouts} layouts of the baseline, to see how much they differ"));
    // A confirmation's layouts of the baseline begin with the same numbers.
    let numbers: Vec<u32> = (1..=layouts).collect();
    let (specs, build_s) = match specs_of(session, built_arms, Arm::Baseline, &numbers, progress) {
        Err(error) if error.kind == ErrorKind::Interrupted => return Err(error),
        Err(error) => {
            progress.note(&format!("layout is not measured: {error}"));
            return Ok(None);
        }
        Ok(built) => built,
    };
    let began = Instant::now();
    let count = specs.len();
    let mut d = vec![vec![0.0; count]; count];
    // In rounds, each layout at most once a round: a slow spell of the machine then hits no single layout.
    for (number, (i, j)) in rounds(count).into_iter().enumerate() {
        d[i][j] = run([&specs[i], &specs[j]], number as u64)?;
    }
    Ok(Some(LayoutNoise::of_round_robin(&d, began.elapsed().as_secs_f64(), build_s)))
}

/// All pairs (i, j), i < j, of so many, by the circle method.
fn rounds(count: usize) -> Vec<(usize, usize)> {
    // With an odd count, the layout that meets the last one sits out the round.
    let even = count.next_multiple_of(2);
    let rounds = (0..even - 1).flat_map(|round| {
        (0..even / 2).map(move |place| {
            let at = |place: usize| if place == 0 { 0 } else { 1 + (place - 1 + round) % (even - 1) };
            let (one, other) = (at(place), at(even - 1 - place));
            (one.min(other), one.max(other))
        })
    });
    rounds.filter(|(_, other)| *other < count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_two_layouts_meet_once() {
        for count in 5..=12 {
            let met = rounds(count);
            let distinct: BTreeSet<_> = met.iter().collect();
            assert_eq!((met.len(), distinct.len()), (count * (count - 1) / 2, met.len()), "{count}");
            assert!(met.iter().all(|(i, j)| i < j && *j < count), "{met:?}");
        }
    }

    #[test]
    fn layouts_are_drawn_by_coins_and_differ() {
        let of = |seed, stage| drawn(Randomization { seed }, stage);
        let [of_baseline, of_candidate] = of(5, Stage::Comparison);
        assert_eq!([of_baseline.clone(), of_candidate.clone()], of(5, Stage::Comparison));
        assert_ne!(of_candidate, of(6, Stage::Comparison)[1]);
        for (one, other) in [&of_baseline, &of_candidate].into_iter().zip(of(5, Stage::Confirmation)) {
            assert!(other.iter().all(|layout| !one.contains(layout)), "{one:?} {other:?}");
        }
        let sorted: BTreeSet<u32> = of_baseline.into_iter().collect();
        assert!(sorted.into_iter().eq(1..=CONFIRMED_OVER as u32));
        let distinct: BTreeSet<u32> = of_candidate.iter().copied().collect();
        assert_eq!(distinct.len(), CONFIRMED_OVER);
        assert!(distinct.iter().all(|layout| *layout >= 1024));
    }
}
