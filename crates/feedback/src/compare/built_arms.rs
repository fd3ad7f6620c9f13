//! The two arms of a comparison: two trees, built at the same path by the same command, with the baseline's inputs.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use globset::GlobSet;
use pairbench::{Arm, process::sandbox::SandboxSpec};

use crate::{
    LoopError, Progress,
    attempt::{
        Revision,
        gaming::{self, Finding},
    },
    compare::CompareOptions,
    config::{self, Guard, LoopConfig},
    store::{
        adapter,
        build::{Built, Wanted},
        data,
        inputs::{self, Inputs},
        session::{Session, config_text, hash_file},
    },
    visible::short,
};

/// At most this many untracked files are listed by name.
const SHOWN_UNTRACKED: usize = 100;

/// Both revisions, built, with everything their runs need.
#[derive(Debug)]
pub struct BuiltArms {
    /// By [`Arm::index`].
    pub revisions: [Revision; 2],
    /// By [`Arm::index`].
    pub builds: [Built; 2],
    /// By [`Arm::index`].
    pub specs: [SandboxSpec; 2],
    /// Measured files in which the candidate differs.
    pub changed: Vec<PathBuf>,
    /// Hash of the inputs of both arms, which are the baseline's.
    pub inputs: String,
    /// Hash of each file or folder of the configuration's `data`.
    pub data: BTreeMap<String, String>,
    /// Seconds of builds that were not cached.
    pub build_s: f64,
}

impl BuiltArms {
    /// Whether the change touches files of the instrument.
    pub fn sealed(&self, session: &Session) -> Option<Finding> {
        gaming::sealed_files(&self.changed, &session.config.sealed())
    }
}

/// The commit to compare with: the named one, else the open cycle's baseline, else HEAD.
pub fn baseline_commit(session: &Session, named: Option<&str>) -> Result<String, LoopError> {
    let repository = &session.repository;
    match (named, session.state.cycle()?) {
        (Some(revision), _) => repository.resolve(revision),
        (None, Some(cycle)) => repository.resolve(&cycle.baseline),
        (None, None) => Ok(repository.head()?.commit),
    }
}

/// Builds the working tree and its baseline.
pub fn of_working_tree(
    session: &Session,
    options: &CompareOptions,
    progress: &dyn Progress,
) -> Result<BuiltArms, LoopError> {
    let revisions = working_tree(session, options, progress)?;
    build(session, revisions, [&session.config; 2], &all_inputs(&session.config), progress)
}

/// The same for a change of the instrument, whose inputs the baseline may not have yet.
pub fn of_instrument(session: &Session, progress: &dyn Progress) -> Result<BuiltArms, LoopError> {
    let revisions = working_tree(session, &CompareOptions::default(), progress)?;
    only_instrument(&changed(session, &revisions)?, &session.config.sealed())?;
    // The new instrument's configuration builds its own tree.
    let text = config_text(&session.repository, &revisions[1].tree)?;
    let new = LoopConfig::parse(&text, session.config.target.as_deref())?;
    let mut inputs = Vec::new();
    for path in all_inputs(&session.config) {
        if session.repository.holds(&revisions[0].tree, &path)? {
            inputs.push(path);
        }
    }
    build(session, revisions, [&session.config, &new], &inputs, progress)
}

/// Refuses a change that is not of the instrument alone, before anything is built.
fn only_instrument(changed: &[PathBuf], sealed: &GlobSet) -> Result<(), LoopError> {
    let (of_instrument, others): (Vec<_>, Vec<_>) = changed.iter().partition(|path| sealed.is_match(path));
    if of_instrument.is_empty() {
        return Err(LoopError::refused("the change touches no file of the instrument")
            .hint("without `--instrument` it is a change like any other"));
    }
    match others.first() {
        None => Ok(()),
        Some(other) => Err(LoopError::refused(format!("`{}` is not a file of the instrument", other.display()))
            .hint("commit the instrument's change by itself: other changes are then measured with it")),
    }
}

/// The baseline and the working tree.
fn working_tree(
    session: &Session,
    options: &CompareOptions,
    progress: &dyn Progress,
) -> Result<[Revision; 2], LoopError> {
    let repository = &session.repository;
    let unmeasured = session.config.unmeasured();
    let baseline = revision_of(session, &baseline_commit(session, options.baseline.as_deref())?)?;
    if options.is_identical {
        return Ok([baseline.clone(), baseline]);
    }
    let snapshot = repository.snapshot(&unmeasured)?;
    if let Some(note) = untracked_note(&snapshot.untracked) {
        progress.note(&note);
    }
    if repository.read_file(&snapshot.tree, config::FILE_NAME)?.is_none() {
        return Err(LoopError::usage(format!("git ignores `{}`: a change of it would go unseen", config::FILE_NAME))
            .hint("take it out of `.gitignore` and commit it: what measures is part of the evidence"));
    }
    let measured_tree = repository.measured_tree(&snapshot.tree, &unmeasured)?;
    if measured_tree == baseline.measured_tree {
        return Err(LoopError::refused("the candidate is the baseline: there is nothing to compare")
            .hint("change something, name another `--baseline`, or measure the noise with `--identical`"));
    }
    let label = format!("candidate/{}", short(&measured_tree));
    let candidate = Revision {
        commit: repository.keep(&snapshot.tree, &repository.head()?.commit, &label)?,
        patch_id: repository.patch_id(&baseline.tree, &snapshot.tree, &unmeasured)?.unwrap_or_default(),
        tree: snapshot.tree,
        measured_tree,
        binary: String::new(),
    };
    Ok([baseline, candidate])
}

/// Lists files that become part of the candidate without having been added.
fn untracked_note(untracked: &[PathBuf]) -> Option<String> {
    if untracked.is_empty() {
        return None;
    }
    let names: Vec<String> = untracked.iter().take(SHOWN_UNTRACKED).map(|path| path.display().to_string()).collect();
    let more = if untracked.len() > names.len() { ", …" } else { "" };
    let count = untracked.len();
    Some(format!("{count} untracked files are part of the candidate and of its commit: {}{more}", names.join(", ")))
}

/// Builds two commits.
pub fn of_commits(
    session: &Session,
    baseline: &str,
    candidate: &str,
    progress: &dyn Progress,
) -> Result<BuiltArms, LoopError> {
    let revisions = [revision_of(session, baseline)?, revision_of(session, candidate)?];
    build(session, revisions, [&session.config; 2], &all_inputs(&session.config), progress)
}

/// The baseline's program, where the configuration has it judge and this process is another program.
pub fn judge(
    session: &Session,
    options: &CompareOptions,
    progress: &dyn Progress,
) -> Result<Option<PathBuf>, LoopError> {
    let (baseline, is_identical) = (options.baseline.as_deref(), options.is_identical);
    let Some(artifact) = &session.config.judge else { return Ok(None) };
    let revision = revision_of(session, &baseline_commit(session, baseline)?)?;
    let unmeasured = session.config.unmeasured();
    let snapshot = session.repository.snapshot(&unmeasured)?;
    if !is_identical && session.repository.measured_tree(&snapshot.tree, &unmeasured)? == revision.measured_tree {
        // There is nothing to judge, and this program can say so.
        return Ok(None);
    }
    let baseline_build = {
        // All builds share one stage.
        let _lock = session.state.lock()?;
        let wanted = Wanted { name: "judge", tree: &revision.tree, config: &session.config };
        session.builds.build(&session.repository, wanted, progress)?
    };
    let judge = baseline_build.folder.join(artifact);
    let own = std::env::current_exe()
        .map_err(|error| LoopError::failed(format!("cannot tell what program this is: {error}")))?;
    Ok((hash_file(&own)? != hash_file(&judge)?).then_some(judge))
}

fn revision_of(session: &Session, revision: &str) -> Result<Revision, LoopError> {
    let repository = &session.repository;
    let commit = repository.resolve(revision)?;
    let tree = repository.tree_of(&commit)?;
    let measured_tree = repository.measured_tree(&tree, &session.config.unmeasured())?;
    Ok(Revision { commit, tree, measured_tree, ..Revision::default() })
}

fn build(
    session: &Session,
    mut revisions: [Revision; 2],
    configs: [&LoopConfig; 2],
    inputs: &[PathBuf],
    progress: &dyn Progress,
) -> Result<BuiltArms, LoopError> {
    let repository = &session.repository;
    let changed = changed(session, &revisions)?;
    let mut build_s = 0.0;
    let mut builds = Vec::with_capacity(2);
    for (revision, arm) in revisions.iter_mut().zip(Arm::BOTH) {
        let wanted = Wanted { name: arm.name(), tree: &revision.tree, config: configs[arm.index()] };
        let made = session.builds.build(repository, wanted, progress)?;
        if !made.is_cached {
            progress.note(&format!(
                "built the {} ({}) in {:.1} s",
                arm.name(),
                short(&revision.measured_tree),
                made.seconds
            ));
            build_s += made.seconds;
        }
        revision.binary.clone_from(&made.binary_hash);
        builds.push(made);
    }
    let builds: [Built; 2] = builds.try_into().map_err(|_| LoopError::failed("a comparison has two builds"))?;
    let inputs_of = |arm| {
        let inputs = Inputs { tree: &revisions[0].tree, paths: inputs, arm };
        inputs::folder(repository, session.state.folder(), inputs, progress)
    };
    let inputs_from = [inputs_of(Arm::Baseline)?, inputs_of(Arm::Candidate)?];
    if let Some(gap) = session.isolation.protection().gap() {
        progress.note(&gap);
    }
    let data = session.config.data(session.repository.root());
    let hashes = data::hashes(&data, session.state.folder(), progress)?;
    let hooks = adapter::hooks(&session.config, session.state.folder())?;
    let specs = Arm::BOTH.map(|arm| SandboxSpec {
        artifacts_from: builds[arm.index()].folder.clone(),
        binary_hash: builds[arm.index()].binary_hash.clone(),
        inputs_from: inputs_from[arm.index()].clone(),
        inputs: session.config.workload.inputs.clone(),
        data: data.iter().filter(|(_, name)| config::is_of_tree(name)).cloned().collect(),
        hooks: hooks.clone(),
        environment: session.config.environment.clone(),
        isolation: Arc::clone(&session.isolation),
    });
    let specs = specs.map(|spec| adapter::spec_for(&spec, &session.config.workload));
    let inputs = repository.hash_of(&revisions[0].tree, inputs)?;
    Ok(BuiltArms { revisions, builds, specs, changed, inputs, data: hashes, build_s })
}

/// The measured files in which two trees differ.
fn changed(session: &Session, revisions: &[Revision; 2]) -> Result<Vec<PathBuf>, LoopError> {
    let unmeasured = session.config.unmeasured();
    let changed = session.repository.changed_files(&revisions[0].tree, &revisions[1].tree)?;
    Ok(changed.into_iter().filter(|path| !unmeasured.is_match(path)).collect())
}

/// The inputs of every workload that the configuration names.
fn all_inputs(config: &LoopConfig) -> Vec<PathBuf> {
    let mut inputs = config.workload.inputs.clone();
    inputs.extend(config.smoke.iter().flat_map(|smoke| smoke.inputs.clone()));
    for guard in config.guards.values() {
        match guard {
            Guard::Workload { workload, .. } => inputs.extend(workload.inputs.clone()),
            Guard::Command { inputs: more, .. } => inputs.extend(more.clone()),
            Guard::PeakMemory { .. } | Guard::FirstStep { .. } | Guard::BuildTime { .. } => {}
        }
    }
    inputs.sort();
    inputs.dedup();
    inputs
}
