//! What can go wrong while training, and the exit code of each case.
//!
//! The message says what was found and what was expected, the help of [`miette::Diagnostic`] what the user can do next.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
};

use alpha_data::DataError;
use alpha_nn::ConfigError;
use alpha_tensor::BackendError;
use helios::HeliosError;

/// The error of this crate.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum TrainError {
    /// The operating system refused.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// The action: `read`, `write`, `create` …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
        /// About limits.
        #[help]
        hint: Option<&'static str>,
    },
    /// No space left. Whatever had been written before is still there.
    #[error("the disk is full: `{}` could not be written; what was there before is intact", path.display())]
    #[diagnostic(help("free some space, then continue from the newest checkpoint with `--resume=auto`"))]
    DiskFull {
        /// The file that could not be written.
        path: PathBuf,
    },
    /// The data of a resumed run is not what it was.
    #[error("the data is not what it was when the run began: {what}")]
    #[diagnostic(help(
        "give the data that the run began with; to go on with \
         the data that is there, add `--allowDataChange`: the run then differs from one that was never interrupted"
    ))]
    DataChanged {
        /// What differs.
        what: String,
    },
    /// A folder for a new run holds other things under the names that a run uses.
    #[error("the run folder `{}` holds `{name}`, {why}", path.display())]
    #[diagnostic(help(
        "a run writes files of that name: give it a folder of its own \
         with `--runDir`"
    ))]
    RunDirTaken {
        /// The folder.
        path: PathBuf,
        /// What is in it.
        name: String,
        /// Why it is not this run's to use.
        why: &'static str,
    },
    /// The run folder was deleted, or moved to a place that cannot be found.
    #[error("the run folder `{}` was moved or deleted while the run was in it, and what is there now is not this run's", path.display())]
    #[diagnostic(help("nothing was written into it; the checkpoints up to here lie where it was moved to"))]
    RunDirGone {
        /// The folder.
        path: PathBuf,
    },
    /// A checkpoint and the configuration of its run do not belong together.
    #[error("the run's `config.json` says {key}={now}, and its checkpoint `{}` was made with {key}={then}", checkpoint.display())]
    #[diagnostic(help("restore the file; `--init` begins another run with these weights"))]
    ConfigEdited {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// Which setting.
        key: String,
        /// What the configuration says.
        now: String,
        /// What the checkpoint says.
        then: String,
    },
    /// The tokenizer of a checkpoint is not the one that it was made with.
    #[error("`{}` is not the tokenizer that the run was trained with", path.display())]
    #[diagnostic(help("restore the file; `--init` begins another run with these weights"))]
    TokenizerEdited {
        /// The tokenizer of the checkpoint.
        path: PathBuf,
    },
    /// A tokenizer for weights that know another.
    #[error("the tokenizer gives `{}` another id than `{}`, the tokenizer of these weights", token.escape_debug(), path.display())]
    #[diagnostic(help("leave `--tokenizer` out: the folder brings its own"))]
    OtherTokenizer {
        /// The weights' tokenizer.
        path: PathBuf,
        /// The first token that differs.
        token: String,
    },
    /// Logits that are not finite.
    #[error("the model's logits are not finite")]
    #[diagnostic(help("its weights went wrong: sample from an earlier checkpoint"))]
    NonfiniteLogits,
    /// A loss that is not finite, of a whole evaluation.
    #[error("the loss is {loss}")]
    #[diagnostic(help("the weights went wrong: evaluate an earlier checkpoint"))]
    NonfiniteLoss {
        /// The loss.
        loss: f64,
    },
    /// The last update left weights that are not finite.
    #[error("`{param}` is not finite after the last update; all is written down in `{}`", checkpoint.display())]
    #[diagnostic(help(
        "train again with a lower `--lr` or \
         a `--gradClip`, or use an earlier checkpoint"
    ))]
    NonfiniteEnd {
        /// The first bad parameter.
        param: String,
        /// The last checkpoint.
        checkpoint: PathBuf,
    },
    /// A file that a folder must hold is not there.
    #[error("`{}` does not exist", path.display())]
    #[diagnostic(help("{hint}"))]
    MissingFile {
        /// The file.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// The folder of a run in the place of a checkpoint's.
    #[error("`{}` is a run's folder, expected a checkpoint", path.display())]
    #[diagnostic(help("the newest in it is `{}`", newest.display()))]
    RunFolder {
        /// The folder.
        path: PathBuf,
        /// Its newest checkpoint.
        newest: PathBuf,
    },
    /// A file whose bytes are not what its format demands.
    #[error("`{}` is broken: {why}", path.display())]
    #[diagnostic(help("copy or download the file again, or use another checkpoint"))]
    BrokenFile {
        /// The file.
        path: PathBuf,
        /// Found and expected.
        why: Box<dyn Error + Send + Sync>,
    },
    /// A key of a JSON file holds something that cannot be used.
    #[error("`{key}` in `{}` is {found}, expected {expected}", path.display())]
    #[diagnostic(help("correct the file, or give another folder"))]
    ConfigKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Its value, as JSON, or `missing`.
        found: String,
        /// What can be used.
        expected: String,
    },
    /// A model computes something that alpha does not.
    #[error("`{key}` in `{}` is {found}; alpha computes {computed}", path.display())]
    #[diagnostic(help(
        "with another value in the file its weights would \
         compute something else: give another model"
    ))]
    NotComputed {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Its value, as JSON, or `missing`.
        found: String,
        /// What can be computed.
        computed: String,
    },
    /// A configuration read from a file describes an impossible model.
    #[error("`{}` describes an impossible model: {source}", path.display())]
    #[diagnostic(help("correct the file, or give another folder"))]
    ImpossibleModel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ConfigError,
    },
    /// A tensor that the model needs is not in the checkpoint.
    #[error("`{}` has no tensor `{tensor}`, expected one of shape {expected:?}; {}", path.display(), names_there(there))]
    #[diagnostic(help("check that `config.json` and the weights belong to the same model"))]
    MissingTensor {
        /// File or folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        expected: Vec<usize>,
        /// The tensors that are there, by their names in the file.
        there: Vec<String>,
    },
    /// A tensor that the model does not have.
    #[error("`{}` has a tensor `{tensor}` that the model has no place for", path.display())]
    #[diagnostic(help("check that `config.json` and the weights belong to the same model"))]
    ExtraTensor {
        /// File or folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor of another shape.
    #[error("tensor `{tensor}` in `{}` has shape {found:?}, expected {expected:?}", path.display())]
    #[diagnostic(help("check that `config.json` and the weights belong to the same model"))]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape in the model.
        expected: Vec<usize>,
    },
    /// A tensor of an element type that is not read.
    #[error("tensor `{tensor}` in `{}` has dtype `{found}`, expected {expected}", path.display())]
    #[diagnostic(help("save the model again in one of these"))]
    TensorDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// As the file calls it.
        found: String,
        /// What is read.
        expected: &'static str,
    },
    /// A tensor whose values contradict `config.json`.
    #[error("tensor `{tensor}` in `{}` {why}", path.display())]
    TensorValues {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What was found, and what was expected.
        why: &'static str,
        /// What to do.
        #[help]
        hint: Option<&'static str>,
    },
    /// Another process trains in the run folder.
    #[error("run folder `{}` is in use by {holder}", path.display())]
    #[diagnostic(help("wait for that run to end, or choose another folder with `--runDir`"))]
    RunDirInUse {
        /// The folder.
        path: PathBuf,
        /// `process 123`, or `another process` where its number cannot be read.
        holder: String,
    },
    /// The backend.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The data.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Data(#[from] DataError),
    /// The shape of the model.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no such GPU, or it cannot run the kernels.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Device(#[from] HeliosError),
    /// The device failed in the middle of a run.
    #[error("{source}")]
    #[diagnostic(help("{}", checkpoint.as_ref().map_or("the run had no checkpoint yet; start it again".to_owned(), |path| format!("`{}` is whole: go on from it with `--resume=auto`", path.display()))))]
    DeviceLost {
        /// What happened.
        source: BackendError,
        /// The newest checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// The run would not fit.
    #[error("the run needs {} of memory, {} are free", format_bytes(*predicted_bytes), format_bytes(*free_bytes))]
    #[diagnostic(help("{}", fitting_hint(*fitting)))]
    TooLittleMemory {
        /// Predicted peak.
        predicted_bytes: usize,
        /// What there is.
        free_bytes: usize,
        /// Micro-batch and accumulation that would fit, if any does.
        fitting: Option<(usize, usize)>,
    },
    /// The memory was there by the planning check, but could not be had: others use some of it.
    #[error("{source}; there are {} in all, and others may use some", available_bytes.map_or("no figures of what there is".to_owned(), format_bytes))]
    #[diagnostic(help("{}", fitting_hint(*fitting)))]
    NoMemory {
        /// What was asked for.
        source: BackendError,
        /// What the device has, or what is free of the host's.
        available_bytes: Option<usize>,
        /// Micro-batch and accumulation that take at most half of what was asked for, if any do.
        fitting: Option<(usize, usize)>,
    },
    /// A warning of the planning check under `--strictPlanning`.
    #[error("the planning check has warnings, and `--strictPlanning` makes them fatal")]
    #[diagnostic(help("change the run, or leave `--strictPlanning` out"))]
    StrictPlanning,
    /// Loss or gradient became NaN or infinite.
    #[error(
        "step {step} is not finite (loss {loss}, gradient norm {grad_norm}); the first tensor that went bad is {culprit}"
    )]
    #[diagnostic(help("the batch is in `{}`{}; `--resume` takes another `--gradClip`, and `--onNonfinite=skip` to leave such \
         updates out; for a lower `--lr` start over, with `--init` from a checkpoint or without", batch.display(), state_before(checkpoint.as_deref())))]
    Nonfinite {
        /// The step.
        step: u64,
        /// Its loss.
        loss: f32,
        /// Its gradient norm.
        grad_norm: f32,
        /// What went bad first.
        culprit: String,
        /// Where the batch was saved.
        batch: PathBuf,
        /// The checkpoint of the step before; none before the first step.
        checkpoint: Option<PathBuf>,
    },
    /// The loop's socket cannot be reached.
    #[error("cannot connect to `{}`, which `ALPHA_TURNS` names: {source}", path.display())]
    #[diagnostic(help("start the run from `alpha loop`, or unset `ALPHA_TURNS` to train without it"))]
    TurnsConnect {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The loop went away.
    #[error("the loop at the other end of `ALPHA_TURNS` is gone after step {step}: {source}")]
    #[diagnostic(help("what the loop printed last says why; unset `ALPHA_TURNS` to train without it"))]
    TurnsLost {
        /// Steps done.
        step: u64,
        /// What the socket said.
        source: io::Error,
    },
    /// A line that the turn protocol does not have.
    #[error("the loop at the other end of `ALPHA_TURNS` sent `{found}`, expected `go N` or `save`")]
    #[diagnostic(help("docs/turns.md has the protocol; this is its version 1"))]
    TurnsLine {
        /// What came.
        found: String,
    },
    /// A prompt without tokens.
    #[error("the prompt has no tokens")]
    #[diagnostic(help("give at least one with `--prompt`"))]
    EmptyPrompt,
    /// A prompt's token that the model does not know.
    #[error("token {token} of the prompt is outside the vocabulary of {vocab}")]
    #[diagnostic(help("give ids below {vocab}"))]
    PromptToken {
        /// The token.
        token: u32,
        /// The vocabulary.
        vocab: usize,
    },
    /// A prompt in words for a model without tokenizer.
    #[error("`{word}` is not a token id, and the model has no tokenizer")]
    #[diagnostic(help("give ids below {vocab}, separated by spaces"))]
    PromptNotIds {
        /// What was given.
        word: String,
        /// The vocabulary.
        vocab: usize,
    },
}

/// `1.5 GiB`.
pub(crate) fn format_bytes(bytes: usize) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

fn io_hint(source: &io::Error) -> Option<&'static str> {
    match source.kind() {
        io::ErrorKind::FileTooLarge => Some(
            "the file system or `ulimit -f` allows no larger file; raise the limit or use another disk, \
             then continue from the newest checkpoint with `--resume=auto`",
        ),
        _ => None,
    }
}

fn state_before(checkpoint: Option<&Path>) -> String {
    checkpoint.map_or(String::new(), |path| format!(", the state before the step in `{}`", path.display()))
}

/// Some of the names that a file has.
fn names_there(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match names.len() {
        0 => "there is none at all".to_owned(),
        count if count <= SHOWN => format!("there is {}", shown.join(", ")),
        count => format!("there are {count}, such as {}", shown.join(", ")),
    }
}

fn fitting_hint(fitting: Option<(usize, usize)>) -> String {
    match fitting {
        Some((batch, accum_steps)) => {
            format!(
                "a step of as many sequences fits with `--batch={batch} --accumSteps={accum_steps}`; add `--ignoreMemoryCheck` if \
                 there is more memory"
            )
        }
        None => "even one sequence at a time does not fit; make the model or `--block` smaller, \
                 or try `--checkpoint=true`"
            .to_owned(),
    }
}

impl TrainError {
    /// An input or output error, the full disk told apart.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> TrainError {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => TrainError::DiskFull { path: path.into() },
            _ => {
                let hint = io_hint(&source);
                TrainError::Io { action, path: path.into(), source, hint }
            }
        }
    }

    /// A file that breaks its format.
    pub fn broken(path: &Path, why: impl Into<Box<dyn Error + Send + Sync>>) -> TrainError {
        TrainError::BrokenFile { path: path.into(), why: why.into() }
    }

    /// The exit code of the process: 3 for something that this machine or build lacks, else 1.
    /// (Errors of the command line itself never reach this crate.)
    pub fn exit_code(&self) -> u8 {
        match self {
            TrainError::Backend(BackendError::Unsupported { .. }) | TrainError::Device(_) => 3,
            TrainError::Data(error) if error.is_usage() => 2,
            TrainError::Config(_) => 2,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use miette::Diagnostic as _;

    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(format_bytes(25 << 20), "25 MiB");
        assert_eq!(format_bytes(3 << 29), "1.5 GiB");
    }

    #[test]
    fn a_full_disk_is_told_apart_from_other_errors() {
        let full = TrainError::io("write", Path::new("a"), io::Error::from(io::ErrorKind::StorageFull));
        assert!(matches!(full, TrainError::DiskFull { .. }));
        assert!(full.help().is_some_and(|hint| hint.to_string().starts_with("free some space")));
        let denied = TrainError::io("write", Path::new("a"), io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!((denied.exit_code(), denied.to_string()), (1, "cannot write `a`: permission denied".into()));
    }

    #[test]
    fn what_the_build_lacks_exits_with_3() {
        let error = BackendError::Unsupported { op: "adamw", backend: "cpu", why: "no kernel".into() };
        assert_eq!(TrainError::from(error).exit_code(), 3);
    }
}
