//! How much of a gain may be luck of the program's place in memory.

mod spread;

use std::fmt;

use pairbench::stats::confirmation::{Confirmation, confirm};
use serde::{Deserialize, Serialize};

pub use self::spread::{FEWEST, LayoutNoise, MOST, layouts_within, log_floor};
use crate::config::{DEFAULT_FLOOR_PCT, LoopConfig, is_layout_varied};

/// Layouts of each side that a claim is confirmed over.
pub const CONFIRMED_OVER: usize = 10;

/// The gain that must be exceeded, if one layout of each side is measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Floors {
    /// A smaller gain is not called faster.
    pub faster_pct: f64,
    /// A larger gain is confirmed without other layouts; the largest number if every gain needs them.
    pub sure_pct: f64,
    /// Where the floors come from.
    pub basis: Basis,
}

/// The basis of the floors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The self-test's layouts.
    Measured(LayoutNoise),
    /// The self-test's layouts ran in an hour too noisy to see how they differ: the floor is that of [`Basis::Fixed`],
    /// and every gain is confirmed over other layouts.
    Unresolved(LayoutNoise),
    /// The build can make other layouts, but the self-test has not measured how they differ, because it would take long
    /// or they do not build: as with [`Basis::Unresolved`].
    Unmeasured,
    /// Layouts cannot be varied: [`DEFAULT_FLOOR_PCT`], or `layout_floor_pct` of the configuration.
    Fixed,
}

/// What a gain needs because of layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// A larger gain: two layouts may differ by as much.
    More,
    /// Confirmation over several layouts of both sides.
    OtherLayouts,
    /// Nothing.
    Nothing,
}

impl Floors {
    /// The floors of a configuration with the measurement of its self-test.
    pub fn of(config: &LoopConfig, measured: Option<LayoutNoise>) -> Floors {
        if let Some(noise) = measured.filter(LayoutNoise::is_resolved) {
            let (faster_pct, sure_pct) = (noise.faster_floor_pct(), noise.sure_floor_pct());
            return Floors { faster_pct, sure_pct, basis: Basis::Measured(noise) };
        }
        let faster_pct = config.layout_floor_pct.unwrap_or(DEFAULT_FLOOR_PCT);
        match measured {
            Some(noise) => Floors { faster_pct, sure_pct: f64::MAX, basis: Basis::Unresolved(noise) },
            None if is_layout_varied(config) => Floors { faster_pct, sure_pct: f64::MAX, basis: Basis::Unmeasured },
            None => Floors { faster_pct, sure_pct: faster_pct, basis: Basis::Fixed },
        }
    }

    /// Computes the floors again from their basis.
    #[must_use]
    pub fn again(&self, config: &LoopConfig) -> Floors {
        match self.basis {
            Basis::Measured(noise) | Basis::Unresolved(noise) => Floors::of(config, Some(noise)),
            Basis::Unmeasured => Floors::of(config, None),
            // Older records have this word for every unmeasured floor.
            Basis::Fixed => {
                let faster_pct = config.layout_floor_pct.unwrap_or(DEFAULT_FLOOR_PCT);
                Floors { faster_pct, sure_pct: faster_pct, basis: Basis::Fixed }
            }
        }
    }

    /// What a gain of this size needs.
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

/// `planned` pairs of a confirmation, rounded up so that all pairs of layouts have equally many.
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

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "schema = 1\n[build]\ncommand = \"make\"\nartifacts = [\"a\"]\n\
                         [workload]\ncommand = \"./a {steps}\"\nsteps = 50\ntokens_per_step = 8\n";

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
