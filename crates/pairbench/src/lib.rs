//! Compares the speed of two commands so that the answer can be trusted.
//!
//! A run against a run says little: the load of other programs changes within seconds. Here both commands of a **pair**
//! run under the same load, in an order that a coin decides, and a pair's number is the logarithm of the ratio of their
//! times. A sequential test with fixed looks judges the pairs: its error rate (5 %, two-sided) holds however often one
//! looks. The answer is FASTER, SLOWER, SAME (the difference is below ε) or UNDECIDED, with an estimate and its
//! interval.
//!
//! Commands that speak the turn protocol (`docs/turns.md` in the repository) are alive at the same time and take turns
//! of some milliseconds; others are timed as whole processes, one after the other, which is far noisier. Each command
//! runs in its own folder, behind walls where the machine has bubblewrap.
//!
//! ```
//! use std::{fs, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};
//!
//! use pairbench::{Comparison, Quiet, comparison, pair::timed_command::{Sharing, TimedCommand}};
//! use pairbench::process::{isolation::Isolation, sandbox::SandboxSpec};
//!
//! // Two versions of one program, each in a folder with all that belongs to it.
//! let root = tempfile::tempdir()?;
//! let isolation = Arc::new(Isolation::detect(&[], &[]));
//! let version = |name: &str, script: &str| {
//!     let folder = root.path().join(name);
//!     fs::create_dir(&folder)?;
//!     fs::write(folder.join("program"), script)?;
//!     fs::set_permissions(folder.join("program"), fs::Permissions::from_mode(0o755))?;
//!     Ok::<_, Box<dyn std::error::Error>>(SandboxSpec::of_folder(&folder, &isolation)?)
//! };
//! let specs = [version("old", "#!/bin/sh\nsleep 0.02\n")?, version("new", "#!/bin/sh\nsleep 0.01\n")?];
//! let command = TimedCommand {
//!     line: "./program".to_owned(),
//!     steps: 1,
//!     sharing: Sharing::Whole,
//!     turn_timeout: Duration::from_secs(10),
//!     writes_weights: false,
//!     step_lines: None,
//! };
//! let compared = Comparison { command, specs, epsilon_pct: 1.0, budget: Duration::from_secs(5) };
//! let judgement = comparison::run(&compared, &root.path().join("work"), &Quiet)?;
//! println!("{}: {}", judgement.verdict.map_or("no answer", |verdict| verdict.name()), judgement.reason);
//! # assert_ne!(judgement.verdict, Some(pairbench::verdict::Verdict::Slower));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Modules, each built on those before it:
//!
//! - [`stats`]: pure functions of numbers; [`verdict`]: from numbers to an answer.
//! - [`draws`]: draws and seeds that anybody can recompute.
//! - [`process`]: families of processes behind walls, frozen, counted and ended as one.
//! - [`gpu`]: what disturbs on NVIDIA cards.
//! - [`pair`]: one pair, timed from outside; how a run is cut into turns; how many pairs.
//! - [`comparison`]: all of it in one call.

pub mod error;
pub mod progress;
pub mod arm;
pub mod files;
pub mod folder_content;
pub mod stats;
pub mod verdict;
pub mod draws;
pub mod process;
pub mod gpu;
pub mod pair;
pub mod comparison;

pub use self::{
    arm::Arm,
    comparison::Comparison,
    error::{ErrorKind, LoopError},
    progress::{Progress, Quiet},
};
