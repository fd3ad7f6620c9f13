//! The clean folder in which each run of an arm starts.
//!
//! A folder holds the trainer's artifacts as copies, the baseline's inputs, and an empty home. Behind walls
//! (`isolation.rs`) both arms see their folder at the same path; elsewhere the paths have equal length, and so have
//! arguments and environment.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    LoopError,
    files::{prepare_parent, remove},
    folder_content::{copy_checked, hash},
    process::{
        Outputs,
        isolation::{self, Isolation, Launch, Room},
    },
};

/// What a trainer's folder is filled from. Paths in `inputs` are relative to both the source and the trainer's folder.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    /// Holds the artifacts of this arm's build, and nothing else.
    pub artifacts_from: PathBuf,
    /// Their hash, which each copy must have.
    pub binary_hash: String,
    /// Holds the baseline's inputs.
    pub inputs_from: PathBuf,
    /// The inputs to take from there.
    pub inputs: Vec<PathBuf>,
    /// Files and folders from elsewhere, such as a data set, and their names in the trainer's folder: read-only.
    pub data: Vec<(PathBuf, PathBuf)>,
    /// What a training run is started with beside its own files.
    pub hooks: Option<Hooks>,
    /// Names of variables of the loop's environment that trainers also get.
    pub environment: Vec<String>,
    /// The walls around it.
    pub isolation: Arc<Isolation>,
}

/// Files that a training run sees beside its own and variables that it gets, such as a module that speaks the turn
/// protocol for a trainer that does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// A folder that the run can read.
    pub folder: PathBuf,
    /// Names and values. In a value, `{hooks}` is that folder, `{run}` the trainer's own, `{steps}` the run's steps.
    pub variables: Vec<(String, String)>,
}

impl SandboxSpec {
    /// A sandbox with the files of a folder and nothing else.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn of_folder(folder: &Path, isolation: &Arc<Isolation>) -> Result<SandboxSpec, LoopError> {
        let binary_hash = hash(folder).map_err(|error| LoopError::io("read", folder, &error))?;
        Ok(SandboxSpec {
            artifacts_from: folder.to_owned(),
            binary_hash,
            inputs_from: folder.to_owned(),
            inputs: Vec::new(),
            data: Vec::new(),
            hooks: None,
            environment: Vec::new(),
            isolation: Arc::clone(isolation),
        })
    }
}

/// A folder that a trainer runs in; removed when dropped.
#[derive(Debug)]
pub struct Sandbox {
    room: Room,
    /// Where its processes' output goes; they cannot reach it.
    outputs: PathBuf,
    isolation: Arc<Isolation>,
}

impl Sandbox {
    /// Makes the folder; if a crash left an old one, that is removed first.
    pub fn create(path: &Path, spec: &SandboxSpec) -> Result<Sandbox, LoopError> {
        let outputs = path.with_extension("out");
        remove(path)?;
        remove(&outputs)?;
        let tmp = path.join("tmp");
        for folder in [&path.join("home"), &tmp, &outputs] {
            fs::create_dir_all(folder).map_err(|error| LoopError::io("make", folder, &error))?;
        }
        let (folder, inside) = (path.to_owned(), PathBuf::from(isolation::INSIDE));
        let room = Room { folder, inside, writable: Vec::new(), tmp, readable: Vec::new() };
        let mut folder = Sandbox { room, outputs, isolation: Arc::clone(&spec.isolation) };
        copy_checked(&spec.artifacts_from, path, &spec.binary_hash)?;
        for input in &spec.inputs {
            let from = spec.inputs_from.join(input);
            if !from.exists() {
                return Err(LoopError::failed(format!("the input `{}` is not in the baseline", from.display()))
                    .hint("`workload.inputs` of `loop.toml` names files that git tracks; `data` names others"));
            }
            folder.show(&from, input)?;
        }
        for (from, name) in &spec.data {
            folder.show(from, name)?;
        }
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.room.folder
    }

    /// Where the output of its processes goes.
    pub fn outputs(&self) -> &Path {
        &self.outputs
    }

    /// The files that hold its last program's output: its stdout and its stderr, or both in one.
    pub fn output_files(&self) -> Vec<PathBuf> {
        let outputs = Outputs::within(&self.outputs);
        [outputs.stdout, outputs.stderr].into_iter().filter(|path| path.exists()).collect()
    }

    /// Lets its processes read `path`; returns the path that they see.
    pub fn give(&mut self, path: &Path) -> PathBuf {
        self.isolation.give(&mut self.room, path)
    }

    /// The path of a file or folder that a trainer has written under a relative name, if it has. Links that lead out of
    /// the folder, to another program's work, and special files are refused.
    pub fn written(&self, name: &Path) -> Result<PathBuf, LoopError> {
        let path = self.path().join(name);
        let (Ok(real), Ok(folder)) = (fs::canonicalize(&path), fs::canonicalize(self.path())) else { return Ok(path) };
        let kind = fs::metadata(&real).map_err(|error| LoopError::io("read", &path, &error))?.file_type();
        if real.starts_with(&folder) && (kind.is_file() || kind.is_dir()) {
            return Ok(real);
        }
        let what = if real.starts_with(&folder) { "is neither a file nor a folder" } else { "leads out of its folder" };
        Err(LoopError::refused(format!("borrowed_records: `{}` of the trainer {what}", name.display()))
            .hint("a trainer writes its records and weights itself, into the folder that it is started in"))
    }

    /// The launch of `words` in this folder: a program of the folder, or one of the system's.
    pub fn command(&self, words: &[String], spec: &SandboxSpec) -> Result<Launch, LoopError> {
        let Some((program, arguments)) = words.split_first() else {
            return Err(LoopError::usage("a command of `loop.toml` is empty"));
        };
        let inside = self.isolation.inside(&self.room);
        // A relative program is one of the artifacts; a bare name is looked up by the system.
        let program = if program.contains('/') {
            let outside = self.path().join(program);
            if !outside.exists() && !Path::new(program).is_absolute() {
                return Err(LoopError::failed(format!("cannot start `{program}`: the build made no such file"))
                    .hint("is it among `build.artifacts` of `loop.toml`, and executable?"));
            }
            inside.join(program)
        } else {
            PathBuf::from(program)
        };
        let tmp = if self.isolation.has_walls() { PathBuf::from("/tmp") } else { self.room.tmp.clone() };
        let mut environment: Vec<(OsString, OsString)> = vec![
            ("HOME".into(), inside.join("home").into_os_string()),
            ("TMPDIR".into(), tmp.into_os_string()),
            ("LC_ALL".into(), "C.UTF-8".into()),
        ];
        let passed = spec.environment.iter().map(String::as_str).chain(["PATH"]);
        environment.extend(passed.filter_map(|name| Some((OsString::from(name), env::var_os(name)?))));
        Ok(Launch {
            program: program.into_os_string(),
            arguments: arguments.iter().map(OsString::from).collect(),
            environment,
            room: self.room.clone(),
        })
    }

    /// The launch of a training of `steps` steps: with the hooks.
    pub fn training(&self, words: &[String], spec: &SandboxSpec, steps: u64) -> Result<Launch, LoopError> {
        let mut launch = self.command(words, spec)?;
        if let Some(hooks) = &spec.hooks {
            let folder = self.isolation.give(&mut launch.room, &hooks.folder);
            let run = self.isolation.inside(&self.room);
            let places = [("{hooks}", folder), ("{run}", run), ("{steps}", steps.to_string().into())];
            for (name, value) in &hooks.variables {
                let filled = places
                    .iter()
                    .fold(value.clone(), |value, (place, path)| value.replace(place, &path.to_string_lossy()));
                // `env PYTHONPATH=src python3 …` sets a variable of the hooks: it gets both.
                let assigns = format!("{name}=");
                for argument in &mut launch.arguments {
                    let own = argument.to_str().and_then(|argument| argument.strip_prefix(&assigns)).map(str::to_owned);
                    if let Some(own) = own {
                        *argument = format!("{assigns}{filled}:{own}").into();
                    }
                }
                launch.environment.push((name.into(), filled.into()));
            }
        }
        Ok(launch)
    }

    /// The walls around its processes.
    pub fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    /// Makes a file or folder visible under a name: behind walls read-only, elsewhere as a link.
    fn show(&mut self, from: &Path, name: &Path) -> Result<(), LoopError> {
        if self.isolation.has_walls() {
            self.room.readable.push((from.to_owned(), self.room.inside.join(name)));
            return Ok(());
        }
        let to = self.path().join(name);
        prepare_parent(&to)?;
        unix::fs::symlink(from, &to).map_err(|error| LoopError::io("link", &to, &error))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Whatever cannot be removed now is removed when the folder is made again.
        let _ = remove(self.path());
        let _ = remove(&self.outputs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_sets_a_variable_of_the_hooks_gets_both() {
        let root = tempfile::tempdir().unwrap();
        let source = root.path().join("trainer");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("train.py"), "").unwrap();
        let isolation = Arc::new(Isolation::detect(&[], &[]));
        let variables =
            vec![("PYTHONPATH".to_owned(), "{hooks}".to_owned()), ("STEPS".to_owned(), "{steps}".to_owned())];
        let hooks = Some(Hooks { folder: root.path().join("hooks"), variables });
        let spec = SandboxSpec { hooks, ..SandboxSpec::of_folder(&source, &isolation).unwrap() };
        let folder = Sandbox::create(&root.path().join("run"), &spec).unwrap();
        let words = ["env", "PYTHONPATH=src", "python3", "train.py", "PYTHONPATH"].map(str::to_owned);
        let launch = folder.training(&words, &spec, 7).unwrap();
        let value = |name: &str| {
            let found = launch.environment.iter().find(|(known, _)| known == name);
            found.unwrap().1.to_str().unwrap().to_owned()
        };
        let hooks = value("PYTHONPATH");
        assert_eq!(launch.arguments[0].to_str().unwrap(), format!("PYTHONPATH={hooks}:src"));
        assert_eq!((launch.arguments[3].to_str(), value("STEPS").as_str()), (Some("PYTHONPATH"), "7"));
    }
}
