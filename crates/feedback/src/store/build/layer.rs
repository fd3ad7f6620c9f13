//! A layer on top of a folder, discarded after use: a build in it leaves the folder unchanged.
//!
//! It is an overlay mount in its own mount namespace, at the folder's own path, so that paths make no difference. It is
//! not visible outside; a process that only holds the namespace makes it reachable as `/proc/<its number>/root/<path>`,
//! and commands enter it with `nsenter`. The mount vanishes with the holder, which ends when the pipe to it closes:
//! nothing stays mounted, even if the loop is killed.
//!
//! Where the system has no such mounts, the folder itself is set aside and a copy takes its place until the layer is
//! discarded.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use pairbench::files;

use crate::LoopError;

/// In the folder above: relative names need no escapes in the options of a mount.
const HOLDER: &str = r#"mount -t overlay overlay -o "lowerdir=$1,upperdir=$1.layer/upper,workdir=$1.layer/work$2" "$1" &&
echo ready && exec cat"#;

/// Enters the build's folder, which may be another one outside.
const ENTER: &str = r#"cd "$0" && exec "$@""#;

/// Lies on top of a folder until it is discarded or dropped.
pub(super) struct Layer {
    folder: PathBuf,
    holder: Option<Holder>,
}

/// The process that holds a namespace with the mount.
struct Holder {
    process: Child,
    /// Options of `nsenter`.
    namespaces: &'static [&'static str],
}

impl Layer {
    /// A layer on `folder`, which must not change meanwhile.
    pub(super) fn over(folder: &Path) -> Result<Layer, LoopError> {
        recover(folder)?;
        let layer = beside(folder, ".layer");
        for name in ["upper", "work"] {
            fs::create_dir_all(layer.join(name)).map_err(|error| LoopError::io("make", &layer, &error))?;
        }
        if let Some(holder) = Holder::start(folder) {
            return Ok(Layer { folder: folder.into(), holder: Some(holder) });
        }
        files::remove(&layer)?;
        Layer::copy(folder)
    }

    fn copy(folder: &Path) -> Result<Layer, LoopError> {
        let base = beside(folder, ".base");
        fs::rename(folder, &base).map_err(|error| LoopError::io("set aside", folder, &error))?;
        let layer = Layer { folder: folder.into(), holder: None }; // from here on dropping it undoes this
        let copied = Command::new("cp").arg("-a").args([&base, folder]).stdin(Stdio::null()).output();
        match copied {
            Ok(output) if output.status.success() => Ok(layer),
            Ok(output) => Err(LoopError::failed(format!(
                "cannot copy `{}`: {}",
                base.display(),
                String::from_utf8_lossy(&output.stderr).trim()
            ))),
            Err(error) => Err(LoopError::failed(format!("cannot run `cp`: {error}"))),
        }
    }

    /// Where this process sees a path below the folder.
    pub(super) fn outside(&self, path: &Path) -> PathBuf {
        match &self.holder {
            None => path.to_owned(),
            Some(holder) => {
                let mut outside = OsString::from(format!("/proc/{}/root", holder.process.id()));
                outside.push(path);
                PathBuf::from(outside)
            }
        }
    }

    /// The words that go before a command's own to run it in the layer, in the folder `path`.
    pub(super) fn wrapper(&self, path: &Path) -> Result<Vec<String>, LoopError> {
        let Some(holder) = &self.holder else { return Ok(Vec::new()) };
        let path = path.to_str().ok_or_else(|| {
            LoopError::usage(format!("`{}` is not text, and commands must name it", path.display()))
                .hint("set `XDG_CACHE_HOME` to another folder")
        })?;
        let number = holder.process.id().to_string();
        let enter = ["nsenter", "-t", &number].into_iter().chain(holder.namespaces.iter().copied());
        Ok(enter.chain(["--", "sh", "-c", ENTER, path]).map(String::from).collect())
    }

    /// Discards it.
    pub(super) fn discard(mut self) -> Result<(), LoopError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), LoopError> {
        drop(self.holder.take());
        recover(&self.folder)
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        let _ = self.end(); // the next layer finds what is left
    }
}

/// Removes a layer that a dead process has left.
pub(super) fn recover(folder: &Path) -> Result<(), LoopError> {
    files::remove(&beside(folder, ".layer"))?;
    let base = beside(folder, ".base");
    if base.symlink_metadata().is_ok() {
        files::remove(folder)?;
        fs::rename(&base, folder).map_err(|error| LoopError::io("put back", folder, &error))?;
    }
    Ok(())
}

impl Holder {
    /// None where the system does not allow it.
    fn start(folder: &Path) -> Option<Holder> {
        let as_root = Holder::try_start(folder, &["--mount"], "", &["-m"]);
        // Other users can do it in a user namespace: the build sees the same user, without root's rights.
        let user = ["--user", "--map-current-user", "--keep-caps", "--mount"];
        as_root.or_else(|| Holder::try_start(folder, &user, ",userxattr", &["-U", "--preserve-credentials", "-m"]))
    }

    fn try_start(folder: &Path, unshare: &[&str], option: &str, namespaces: &'static [&'static str]) -> Option<Holder> {
        let mut command = Command::new("unshare");
        command.args(unshare).args(["--", "sh", "-c", HOLDER, "layer"]).arg(folder.file_name()?).arg(option);
        command.current_dir(folder.parent()?).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().ok()?;
        let mut said = String::new();
        let read = process.stdout.take().map(|stdout| BufReader::new(stdout).read_line(&mut said));
        // Dropping it reaps it, ready or not.
        let holder = Holder { process, namespaces };
        (matches!(read, Some(Ok(_))) && said == "ready\n").then_some(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended
        let _ = self.process.wait();
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let stage = dir.path().join("a stage, with: odd name");
        fs::create_dir_all(stage.join("tree/target")).unwrap();
        fs::write(stage.join("tree/target/kept"), "baseline").unwrap();
        fs::write(stage.join("tree/target/gone"), "1").unwrap();
        (dir, stage)
    }

    /// Runs a script in the layer; says what the file `target/kept` is there, and after the layer is gone.
    #[track_caller]
    fn check(layer: Layer, stage: &Path) {
        let tree = stage.join("tree");
        let script = "pwd; printf poison >target/kept; rm target/gone; echo new >target/new";
        let words = [layer.wrapper(&tree).unwrap(), ["sh", "-c", script].map(String::from).to_vec()].concat();
        let done = Command::new(&words[0]).args(&words[1..]).current_dir(&tree).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(String::from_utf8_lossy(&done.stdout).trim_end(), tree.to_str().unwrap());
        let read = |name: &str| fs::read_to_string(layer.outside(&tree).join("target").join(name)).ok();
        assert_eq!([read("kept"), read("gone"), read("new")], [Some("poison".into()), None, Some("new\n".into())]);
        layer.discard().unwrap();
        let names = |folder: &Path| -> Vec<String> {
            let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&tree.join("target")), ["gone", "kept"]);
        assert_eq!(fs::read_to_string(tree.join("target/kept")).unwrap(), "baseline");
        assert_eq!(names(stage.parent().unwrap()).len(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_is_done_in_a_layer_is_gone_with_it() {
        let (_dir, stage) = stage();
        check(Layer::over(&stage).unwrap(), &stage);
        check(Layer::copy(&stage).unwrap(), &stage);
        // Again, after a process that died with each.
        std::mem::forget(Layer::copy(&stage).unwrap());
        fs::write(stage.join("tree/target/kept"), "poison").unwrap();
        check(Layer::over(&stage).unwrap(), &stage);
    }
}
