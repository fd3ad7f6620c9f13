//! What the command does when a device is lost in the middle of a run, or has less memory than it says.

use alpha_tensor::{
    Backend, BackendError, DeviceMemory, Launches, Program, Region, RegionSizes, Results, RunArgs, Timeline,
};
use alpha_train::{TrainError, config::TrainConfig};
use helios::{HeliosBackend, HeliosError, Options};

use super::*;
use crate::exit::Exit;

/// A device that is destroyed after a number of runs, and gives no more than a number of bytes.
struct Mortal {
    backend: HeliosBackend,
    runs_left: usize,
    most_bytes: usize,
}

impl Backend for Mortal {
    fn name(&self) -> &'static str {
        self.backend.name()
    }
    fn device_memory(&self) -> Option<DeviceMemory> {
        self.backend.device_memory()
    }
    fn launches(&self) -> Option<Launches> {
        self.backend.launches()
    }
    fn scratch_bytes(&self, programs: &[&Program]) -> usize {
        self.backend.scratch_bytes(programs)
    }
    fn prepare(&mut self, sizes: &RegionSizes, programs: &[&Program]) -> Result<(), BackendError> {
        let asked_bytes = sizes.total_bytes();
        if asked_bytes > self.most_bytes {
            return Err(BackendError::OutOfMemory { asked_bytes, what: "regions on the device" });
        }
        self.backend.prepare(sizes, programs)
    }
    fn write(&mut self, region: Region, offset: usize, data: &[f32]) -> Result<(), BackendError> {
        self.backend.write(region, offset, data)
    }
    fn read(&mut self, region: Region, offset: usize, out: &mut [f32]) -> Result<(), BackendError> {
        self.backend.read(region, offset, out)
    }
    fn write_tokens(&mut self, offset: usize, tokens: &[u32]) -> Result<(), BackendError> {
        self.backend.write_tokens(offset, tokens)
    }
    fn run(&mut self, program: &Program, args: &RunArgs, timeline: Option<&mut Timeline>) -> Result<(), BackendError> {
        if self.runs_left == 0 {
            self.backend.destroy_device();
        }
        self.runs_left = self.runs_left.saturating_sub(1);
        self.backend.run(program, args, timeline)
    }
    fn results_ahead(&self) -> usize {
        self.backend.results_ahead()
    }
    fn request_results(&mut self) -> Result<(), BackendError> {
        self.backend.request_results()
    }
    fn collect_results(&mut self) -> Result<Results, BackendError> {
        self.backend.collect_results()
    }
}

/// Trains eight steps into `folder` on a device that lives for this many runs; none where there is no device.
fn train(folder: &Path, runs: usize, flags: &[(&str, &str)]) -> Option<Result<(), Failure>> {
    train_within(usize::MAX, folder, runs, flags)
}

fn train_within(
    most_bytes: usize,
    folder: &Path,
    runs_left: usize,
    flags: &[(&str, &str)],
) -> Option<Result<(), Failure>> {
    let backend = match HeliosBackend::open(&Options::default()) {
        Ok(backend) => backend,
        Err(HeliosError::NoDevice) => return None,
        Err(error) => panic!("{error}"),
    };
    let data = folder.join("text.txt");
    std::fs::write(&data, "the cat sat on the mat and the dog sat on the log. ".repeat(60)).unwrap();
    let (data, run_dir) = (data.to_str().unwrap().to_owned(), folder.join("run").to_str().unwrap().to_owned());
    let own = [
        ("data", data.as_str()),
        ("runDir", run_dir.as_str()),
        ("backend", "helios"),
        ("tokenizer", "byte"),
        ("steps", "8"),
        ("evalInterval", "3"),
        ("evalIters", "1"),
        ("layers", "1"),
        ("dim", "16"),
        ("heads", "2"),
        ("block", "8"),
        ("batch", "2"),
        ("sampleInterval", "0"),
        ("postSamples", "false"),
    ];
    let mut backend = Some(backend);
    let mut make = |_: &TrainConfig| -> Result<Box<dyn Backend>, TrainError> {
        Ok(Box::new(Mortal { backend: backend.take().expect("a run has one backend"), runs_left, most_bytes }))
    };
    Some(run_on(&Layer::of(&own).under(&Layer::of(flags)), Instant::now(), &mut make))
}

fn rows(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap();
    let keep = ["\"loss\":", "\"gradNorm\":", "\"data_hash\":"];
    let of_step = |row: &str| row.split(',').filter(|part| keep.iter().any(|key| part.contains(key))).collect();
    text.lines().map(of_step).collect()
}

#[test]
fn a_device_lost_in_the_middle_ends_the_run_with_its_checkpoint_whole() {
    let [lost, whole] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    // Steps 1 to 3 and an evaluation; the device goes with step 5, behind step 4.
    let Some(outcome) = train(lost.path(), 5, &[]) else { return };
    let failure = outcome.expect_err("the device was lost").text();
    assert!(failure.contains("failed") && failure.contains("checkpoint-3` is whole"), "{failure}");
    assert!(failure.contains("--resume=auto"), "{failure}");
    train(lost.path(), usize::MAX, &[("resume", "auto")]).expect("a device").expect("it goes on");
    train(whole.path(), usize::MAX, &[]).expect("a device").expect("it runs");
    assert_eq!(rows(lost.path()), rows(whole.path()));
    assert_eq!(rows(whole.path()).len(), 8);
}

#[test]
fn a_device_lost_at_the_first_step_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let Some(outcome) = train(folder.path(), 0, &[]) else { return };
    let failure = outcome.expect_err("the device was lost");
    assert_eq!(failure.exit(), Exit::Failed);
    assert!(failure.text().contains("no checkpoint yet"), "{failure:?}");
}

/// Another program holds the card's memory: how much was asked for, how much there is, and what would take half.
#[test]
fn memory_that_others_hold_names_a_smaller_batch() {
    let folder = tempfile::tempdir().unwrap();
    let flags = [("batch", "64"), ("block", "32"), ("dim", "32")];
    let Some(outcome) = train_within(1 << 20, folder.path(), usize::MAX, &flags) else { return };
    let failure = outcome.expect_err("there is no memory");
    assert_eq!(failure.exit(), Exit::Failed);
    let text = failure.text();
    assert!(text.contains("out of memory") && text.contains("in all") && text.contains("--accumSteps="), "{text}");
    assert!(!folder.path().join("run").exists(), "the run folder was made");
}
