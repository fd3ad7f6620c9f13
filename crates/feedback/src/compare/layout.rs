//! Luck of layout: where functions and data lie changes speed, whatever the change is, and fresh pairs of the same two
//! programs agree about it. Mytkowicz et al., Producing wrong data without doing anything obviously wrong, ASPLOS 2009;
//! Curtsinger and Berger, Stabilizer, ASPLOS 2013.
//!
//! A build command that has `{layout}` can make the same source in other layouts; 0 is the one that is written. The
//! self-test measures how much they differ. A gain must exceed what two layouts may differ by. One beyond all doubt needs
//! nothing more; any other is confirmed over several layouts of both sides, and so is every gain where noise hides how much
//! layouts differ. Where layouts cannot be varied, a fixed floor takes their place.

mod spread;

use std::{
    collections::BTreeSet,
    fmt,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

pub use self::spread::{FEWEST, LayoutNoise, MOST, layouts_within, log_floor};
use pairbench::{
    Arm,
    draws::{Purpose, Randomization},
    process::sandbox::SandboxSpec,
    stats::confirmation::{Confirmation, confirm},
};

use crate::{
    LoopError, Watch,
    compare::sides::Contest,
    config::LoopConfig,
    store::{build::Built, session::Session},
};

/// Longest measurement of layouts in a self-test, builds aside.
pub const LIMIT: Duration = Duration::from_secs(60);
/// In a build command: the number of the layout.
pub const PLACEHOLDER: &str = "{layout}";
/// Layouts of each side that a claim is confirmed over.
pub const CONFIRMED_OVER: usize = 10;
/// What a gain must exceed where layouts are not measured and the configuration does not say.
pub const DEFAULT_FLOOR_PCT: f64 = 1.0;

/// What a gain must exceed, by an estimate of one layout of each side.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Floors {
    /// Less is not called faster.
    pub faster_pct: f64,
    /// More is confirmed without other layouts; the largest number there is where nothing is.
    pub sure_pct: f64,
    /// Where the floors come from.
    pub basis: Basis,
}

/// What floors rest on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The self-test's layouts.
    Measured(LayoutNoise),
    /// The self-test's layouts ran in an hour too noisy to see how they differ: less than with [`Basis::Fixed`] is not called
    /// faster, and everything is confirmed over other layouts.
    Unresolved(LayoutNoise),
    /// Builds can be had in other layouts, but the self-test has not measured how they differ, since it would take long or they
    /// do not build: as with [`Basis::Unresolved`].
    Unmeasured,
    /// Layouts cannot be varied: [`DEFAULT_FLOOR_PCT`], or `layout_floor_pct` of the configuration.
    Fixed,
}

/// What a gain needs, as far as layouts go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Two layouts may differ by as much: it is not faster.
    More,
    /// Confirmation over several layouts of both sides.
    OtherLayouts,
    /// Nothing.
    Nothing,
}

impl Floors {
    /// Of a configuration and what its self-test measured.
    pub fn of(config: &LoopConfig, measured: Option<LayoutNoise>) -> Floors {
        if let Some(noise) = measured.filter(LayoutNoise::is_resolved) {
            let (faster_pct, sure_pct) = (noise.faster_floor_pct(), noise.sure_floor_pct());
            return Floors { faster_pct, sure_pct, basis: Basis::Measured(noise) };
        }
        let faster_pct = config.layout_floor_pct.unwrap_or(DEFAULT_FLOOR_PCT);
        match measured {
            Some(noise) => Floors { faster_pct, sure_pct: f64::MAX, basis: Basis::Unresolved(noise) },
            None if is_varied(config) => Floors { faster_pct, sure_pct: f64::MAX, basis: Basis::Unmeasured },
            None => Floors { faster_pct, sure_pct: faster_pct, basis: Basis::Fixed },
        }
    }

    /// The same again, from what they rest on.
    #[must_use]
    pub fn again(&self, config: &LoopConfig) -> Floors {
        match self.basis {
            Basis::Measured(noise) | Basis::Unresolved(noise) => Floors::of(config, Some(noise)),
            Basis::Unmeasured => Floors::of(config, None),
            // Of records from before there was another word for it.
            Basis::Fixed => {
                let faster_pct = config.layout_floor_pct.unwrap_or(DEFAULT_FLOOR_PCT);
                Floors { faster_pct, sure_pct: faster_pct, basis: Basis::Fixed }
            }
        }
    }

    /// What an estimate needs.
    pub fn needs(&self, speedup_pct: f64) -> Needs {
        if speedup_pct <= self.faster_pct {
            Needs::More
        } else if speedup_pct <= self.sure_pct {
            Needs::OtherLayouts
        } else {
            Needs::Nothing
        }
    }
}

impl fmt::Display for Floors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Floors { faster_pct, sure_pct, basis } = self;
        match basis {
            Basis::Measured(noise) => write!(
                f,
                "{} layouts differ by {:.2} % (sd): up to {faster_pct:.2} % is luck of layout; up to {sure_pct:.2} % a gain is \
                 confirmed over {CONFIRMED_OVER} layouts of both sides",
                noise.layouts, noise.sd_pct
            ),
            Basis::Unresolved(noise) => write!(
                f,
                "{} layouts ran, but noise of {:.1} % a pair hides how they differ: up to {faster_pct:.2} % counts as luck of \
                 layout, and every gain is confirmed over {CONFIRMED_OVER} layouts of both sides; `alpha loop selftest` in a \
                 quiet hour measures them",
                noise.layouts, noise.pair_sd_pct
            ),
            Basis::Unmeasured => write!(
                f,
                "the self-test has not measured how layouts differ: up to {faster_pct:.2} % counts as luck of layout, and every gain \
                 is confirmed over {CONFIRMED_OVER} layouts of both sides"
            ),
            Basis::Fixed => write!(f, "layout is not varied: up to {faster_pct:.2} % counts as luck of it"),
        }
    }
}

/// Whether a configuration's builds can be had in other layouts.
pub fn is_varied(config: &LoopConfig) -> bool {
    config.build.command.contains(PLACEHOLDER)
}

/// What layouts are drawn for: a confirmation in those of the comparison would confirm their luck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A comparison over several layouts.
    Comparison,
    /// The confirmation of a claim.
    Confirmation,
}

/// Layouts of both sides for a stage, by [`Arm::index`]. The baseline's are the same numbers each time, in drawn order, so that
/// they are built once for all attempts on it; the candidate's are drawn, so that nobody can choose a source that does
/// well in them. No two stages share one.
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

/// Pairs of a confirmation over layouts that was to have so many: every pair of layouts has equally many.
pub fn pairs_over_layouts(planned: usize) -> usize {
    planned.next_multiple_of(CONFIRMED_OVER)
}

/// Judges a confirmation over layouts: pair number i of the confirmation, from 0, ran in layouts i modulo
/// [`CONFIRMED_OVER`]. Pairs of the same two layouts share their luck, so it is their means that are independent.
pub fn confirm_over_layouts(d: &[f64], level: f64) -> Confirmation {
    let mean = |place: usize| {
        let of_place: Vec<f64> = d.iter().skip(place).step_by(CONFIRMED_OVER).copied().collect();
        of_place.iter().sum::<f64>() / of_place.len() as f64
    };
    confirm(&(0..CONFIRMED_OVER.min(d.len())).map(mean).collect::<Vec<f64>>(), level)
}

/// What both sides of a stage run, layout by layout.
#[derive(Debug)]
pub struct LayoutSpecs {
    layouts: [Vec<u32>; 2],
    specs: [Vec<SandboxSpec>; 2],
    /// Seconds of builds that were not there.
    pub build_s: f64,
}

impl LayoutSpecs {
    /// Builds all of them, one after the other: there is one stage, and nothing is timed meanwhile.
    ///
    /// # Errors
    /// [`LoopError::Refused`] where the candidate's build makes the same program in two layouts.
    pub fn build(
        session: &Session,
        contest: &Contest,
        draws: Randomization,
        stage: Stage,
        watch: &dyn Watch,
    ) -> Result<LayoutSpecs, LoopError> {
        let layouts = drawn(draws, stage);
        let mut specs = [Vec::new(), Vec::new()];
        let mut build_s = 0.0;
        for arm in Arm::BOTH {
            let (made, seconds) = kits_of(session, contest, arm, &layouts[arm.index()], watch)?;
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

/// Builds one side in some layouts; their specs, and seconds of builds that were not there.
///
/// # Errors
/// Where two layouts are the same program: nothing was varied.
pub fn kits_of(
    session: &Session,
    contest: &Contest,
    arm: Arm,
    layouts: &[u32],
    watch: &dyn Watch,
) -> Result<(Vec<SandboxSpec>, f64), LoopError> {
    let (repository, config) = (&session.repository, &session.config);
    let tree = &contest.sides[arm.index()].tree;
    let (mut specs, mut seconds, mut binaries) = (Vec::new(), 0.0, BTreeSet::new());
    for built in session.builds.build_layouts(repository, tree, config, layouts, watch)? {
        if !built.is_cached {
            seconds += built.seconds;
        }
        if !binaries.insert(built.binary_hash.clone()) {
            return Err(LoopError::Refused(format!(
                "the {} is the same program in two layouts: `{}` does not vary it",
                arm.name(),
                config.build.command
            ))
            .hint("each number that `{layout}` stands for makes another order of functions, or the command has no `{layout}`"));
        }
        let Built { folder: artifacts_from, binary_hash, .. } = built;
        specs.push(SandboxSpec { artifacts_from, binary_hash, ..contest.specs[arm.index()].clone() });
    }
    Ok((specs, seconds))
}

/// The d of a pair of specs, with the number of the pair.
pub type RunPair<'a> = &'a dyn Fn([&SandboxSpec; 2], u64) -> Result<f64, LoopError>;

/// Runs layouts of the baseline beside each other and says how much they differ. None where the layouts cannot be built.
pub fn measure(
    session: &Session,
    contest: &Contest,
    layouts: u32,
    watch: &dyn Watch,
    run: RunPair<'_>,
) -> Result<Option<LayoutNoise>, LoopError> {
    watch.note(&format!("building {layouts} layouts of the baseline, to see how much they differ"));
    // The baseline's of a confirmation begin with the same numbers.
    let numbers: Vec<u32> = (1..=layouts).collect();
    let (specs, build_s) = match kits_of(session, contest, Arm::Baseline, &numbers, watch) {
        Err(error @ LoopError::Interrupted(_)) => return Err(error),
        Err(error) => {
            watch.note(&format!("layout is not measured: {error}"));
            return Ok(None);
        }
        Ok(built) => built,
    };
    let began = Instant::now();
    let count = specs.len();
    let mut d = vec![vec![0.0; count]; count];
    // In rounds, each layout at most once in each: what the machine does for a while is not one layout's.
    for (number, (i, j)) in rounds(count).into_iter().enumerate() {
        d[i][j] = run([&specs[i], &specs[j]], number as u64)?;
    }
    Ok(Some(LayoutNoise::of_round_robin(&d, began.elapsed().as_secs_f64(), build_s)))
}

/// All pairs (i, j), i < j, of so many, by the circle method.
fn rounds(count: usize) -> Vec<(usize, usize)> {
    // Who meets the last of an odd number rests.
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

    const SMALL: &str = "schema = 1\n[build]\ncommand = \"make\"\nartifacts = [\"a\"]\n\
                         [workload]\ncommand = \"./a {steps}\"\nsteps = 50\ntokens_per_step = 8\n";

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

    /// Ten pairs of layouts of which two were lucky: twenty pairs that agree two by two prove no more than ten numbers do.
    #[test]
    fn pairs_of_the_same_layouts_count_once() {
        let luck = [0.01, 0.012, -0.002, -0.003, 0.004, -0.001, 0.001, -0.005, 0.002, -0.004];
        let d: Vec<f64> = (0..40).map(|pair| luck[pair % 10]).collect();
        let judged = confirm_over_layouts(&d, 0.025);
        assert!((judged.p - confirm(&luck, 0.025).p).abs() < 1e-12 && !judged.confirmed, "{judged:?}");
        assert_eq!(pairs_over_layouts(10), 10);
        assert_eq!(pairs_over_layouts(21), 30);
    }

    #[test]
    fn a_gain_needs_what_its_size_leaves_open() {
        let noise =
            LayoutNoise { layouts: 9, sd_pct: 0.2, spread_pct: 0.25, pair_sd_pct: 0.5, seconds: 50.0, build_s: 20.0 };
        let floors = Floors {
            faster_pct: noise.faster_floor_pct(),
            sure_pct: noise.sure_floor_pct(),
            basis: Basis::Measured(noise),
        };
        // 1.86 times √2 times 0.2 %, and 5.04 times √2 times 0.25 %.
        assert!((floors.faster_pct - 0.53).abs() < 0.01 && (floors.sure_pct - 1.80).abs() < 0.01, "{floors:?}");
        let config = LoopConfig::parse(SMALL, None).unwrap();
        assert_eq!(Floors::of(&config, Some(noise)), floors);
        let noisy = LayoutNoise { pair_sd_pct: 12.0, spread_pct: 5.0, ..noise };
        let of_noisy = Floors::of(&config, Some(noisy));
        assert_eq!((of_noisy.faster_pct, of_noisy.basis), (DEFAULT_FLOOR_PCT, Basis::Unresolved(noisy)));
        assert_eq!([0.9, 50.0].map(|pct| of_noisy.needs(pct)), [Needs::More, Needs::OtherLayouts]);
        assert_eq!([0.5, 1.0, 3.0].map(|pct| floors.needs(pct)), [Needs::More, Needs::OtherLayouts, Needs::Nothing]);
    }
}
