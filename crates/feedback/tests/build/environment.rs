//! The environment and the home of a build.

use std::{
    cell::Cell,
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use feedback::{Progress, store::build::Built};

use crate::{Project, trainer};

/// Does something once, while a build runs, when a file is there.
struct Meanwhile<'a> {
    there: PathBuf,
    does: Cell<Option<&'a dyn Fn()>>,
}

impl Progress for Meanwhile<'_> {
    fn note(&self, _line: &str) {}

    fn is_stop_requested(&self) -> bool {
        if self.there.exists()
            && let Some(does) = self.does.take()
        {
            does();
        }
        false
    }
}

/// Runs [`a_build_sees_a_clean_environment`] with variables and a home of its own.
#[test]
fn nothing_of_the_loops_own_environment_reaches_a_build() {
    let home = tempfile::tempdir().unwrap();
    for name in [".cargo/registry/src/package", ".rustup"] {
        fs::create_dir_all(home.path().join(name)).unwrap();
    }
    for name in [".cargo/config.toml", ".cargo/credentials.toml", ".settings"] {
        fs::write(home.path().join(name), "1").unwrap();
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "environment::a_build_sees_a_clean_environment"])
        .env_remove("CARGO_HOME")
        .env_remove("RUSTUP_HOME")
        .envs([("HOME", home.path().as_os_str()), ("RUSTFLAGS", "-C opt-level=0".as_ref())])
        .envs([("CARGO_TARGET_DIR", "/nowhere"), ("CARGO_BUILD_TARGET_DIR", "/nowhere"), ("MAKEFLAGS", "-j")])
        .envs([("GIT_DIR", "/nowhere"), ("GIT_INDEX_FILE", "/nowhere"), ("OLDPWD", "/nowhere")])
        .envs([("NAMED_FOR_BUILDS", "by name"), ("CC", "/nowhere/cc"), ("SECRET", "word")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn a_build_sees_a_clean_environment() {
    let script = "env >out/trainer; cd; find . -type d -o -type f -o -type l | sort >\"$OLDPWD/out/home\"; touch left";
    let lines = "artifacts = [\"out/trainer\", \"out/home\"]\nenvironment = [\"NAMED_FOR_BUILDS\"]\n\
                 toolchain = [\"sh -c 'echo $HOME $SECRET $NAMED_FOR_BUILDS'\"]";
    let project = Project::with(script, lines);
    let built = project.build();
    let text = trainer(&built);
    assert!(!text.contains("/nowhere") && !text.contains("SECRET"), "{text}");
    let variables: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let known = ["PATH", "HOME", "TMPDIR", "LC_ALL", "NAMED_FOR_BUILDS", "RUSTUP_HOME", "GIT_CEILING_DIRECTORIES"];
    let of_the_shell = ["PWD", "OLDPWD", "SHLVL", "_"];
    let strange: Vec<_> =
        variables.keys().filter(|name| !known.contains(name) && !of_the_shell.contains(name)).collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert_eq!(variables["LC_ALL"], "C.UTF-8");
    // The home is the same path for every build, and empty each time.
    let home = project.state.build_home().unwrap();
    assert_eq!(Path::new(variables["HOME"]), home);
    assert!(built.toolchain.starts_with(&home.display().to_string()), "{}", built.toolchain);
    let found = |built: &Built| fs::read_to_string(built.folder.join("out/home")).unwrap();
    assert!(!found(&built).contains("left") && !found(&built).contains("config"), "{}", found(&built));
    project.set_script(&format!("{script}; true"));
    assert_eq!(found(&project.build()), found(&built));
    if env::var_os("NAMED_FOR_BUILDS").is_none() {
        return; // not in the environment that the test above makes
    }
    assert_eq!(variables["NAMED_FOR_BUILDS"], "by name");
    assert!(variables["RUSTUP_HOME"].ends_with("/.rustup"));
    assert_eq!(found(&built), ".\n./.cargo\n./.cargo/registry\n./tmp\n");
    assert!(built.toolchain.trim_end().ends_with("by name"), "{}", built.toolchain);
}

/// `alpha loop status` is asked while another command builds.
#[test]
fn a_question_to_the_store_leaves_a_running_build_alone() {
    let mut project = Project::with("", "artifacts = [\"out/trainer\"]\ntoolchain = [\"sh -c 'echo $HOME; pwd'\"]");
    let [running, asked] = ["running", "asked"].map(|name| project.sandbox.beside(name));
    project.set_script(&format!(
        "echo mine >\"$TMPDIR/part\"; touch {}; until test -e {}; do sleep 0.01; done; cat \"$TMPDIR/part\" >out/trainer",
        running.display(),
        asked.display()
    ));
    project.config.build.timeout = Duration::from_secs(60);
    let tree = project.sandbox.tree("HEAD");
    let ask = || {
        assert!(!project.store.has(&project.repository, &tree, &project.config).unwrap());
        fs::write(&asked, "").unwrap();
    };
    let meanwhile = Meanwhile { there: running, does: Cell::new(Some(&ask)) };
    let built = project.store.build(&project.repository, project.wanted(&tree), &meanwhile).unwrap();
    assert_eq!(trainer(&built), "mine\n");
    // Both commands saw the home that is part of the build's key.
    let home = project.state.build_home().unwrap();
    assert_eq!(built.toolchain, format!("{0}\n{0}\n", home.display()));
    assert!(project.store.has(&project.repository, &tree, &project.config).unwrap());
}
