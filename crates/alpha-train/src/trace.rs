//! Where the time of a step goes: phases of each step, totals per kernel, and events for a viewer.
//!
//! Programs are registered before the first step; recording then only adds up numbers and fills
//! memory that is already there. Files are written when asked, between steps.
//!
//! An operation's wall time runs from the first thread that begins it to the first that finds it
//! done: operations follow one another, so that these times add up to the step's. What none covers
//! is `flush`, such as the wait for a thread that another program keeps from running.
//!
//! Events are bounded: the first half of the room keeps the run's beginning, the second half
//! its end, and `trace.json` says how many were left out between the two.

mod chrome;
mod kernels;

use std::{collections::VecDeque, fs, path::Path, time::Instant};

use alpha_tensor::{Phase, Program, Span, Timeline};

use crate::{error::TrainError, files, metrics::PhaseTimes};

use self::kernels::KernelTotals;

/// Name of the file with the events.
pub const TRACE_FILE_NAME: &str = "trace.json";

/// Name of the file with the totals per kernel.
pub const KERNELS_FILE_NAME: &str = "kernels.json";

/// Events kept where nothing else is said: some 2 MB in memory, 10 MB as a file.
pub const DEFAULT_EVENTS: usize = 1 << 16;

/// A program that has been registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramId(usize);

/// What is known of an operation before it runs.
#[derive(Clone, Debug)]
struct TracedOp {
    name: &'static str,
    phase: Phase,
    layer: Option<u32>,
    flops: u64,
    bytes: u64,
    /// Row of [`Tracer::kernels`].
    kernel: usize,
}

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq)]
enum EventKind {
    /// The operation with this number in [`Tracer::ops`].
    Op(u32),
    /// Preparation of a batch.
    Data,
    /// A whole step, by its number.
    Step(u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Event {
    kind: EventKind,
    thread: u32,
    start_ns: u64,
    end_ns: u64,
}

/// Records steps.
#[derive(Debug)]
pub struct Tracer {
    origin: Instant,
    ops: Vec<TracedOp>,
    /// First operation of each registered program and the one after its last.
    programs: Vec<(usize, usize)>,
    kernels: Vec<KernelTotals>,
    steps: u64,
    step: u64,
    step_start_ns: u64,
    phases: PhaseTimes,
    head: Vec<Event>,
    tail: VecDeque<Event>,
    capacity: usize,
    dropped: u64,
    /// Operations run on a device, which has a track of its own beside the host's.
    has_device: bool,
}

impl Tracer {
    /// Times are counted from `origin`; up to `events` events are kept.
    pub fn new(origin: Instant, events: usize) -> Tracer {
        let capacity = events / 2;
        Tracer {
            origin,
            ops: Vec::new(),
            programs: Vec::new(),
            kernels: Vec::new(),
            steps: 0,
            step: 0,
            step_start_ns: 0,
            phases: PhaseTimes::default(),
            head: Vec::with_capacity(capacity),
            tail: VecDeque::with_capacity(capacity),
            capacity,
            dropped: 0,
            has_device: false,
        }
    }

    /// The same, for a backend whose operations run on a device.
    #[must_use]
    pub fn of_device(self) -> Tracer {
        Tracer { has_device: true, ..self }
    }

    /// Registers a program. Must be called before the first step, because it allocates.
    pub fn register(&mut self, program: &Program) -> ProgramId {
        let first = self.ops.len();
        for call in program.ops() {
            let (name, phase) = (call.op.name(), call.phase);
            let known = self.kernels.iter().position(|kernel| kernel.name == name && kernel.phase == phase);
            let kernel = known.unwrap_or_else(|| {
                self.kernels.push(KernelTotals::new(name, phase));
                self.kernels.len() - 1
            });
            let (flops, bytes) = (call.op.flops(), call.op.bytes());
            self.ops.push(TracedOp { name, phase, layer: call.layer, flops, bytes, kernel });
        }
        self.programs.push((first, self.ops.len()));
        ProgramId(self.programs.len() - 1)
    }

    /// A timeline for the registered programs to be run with, one at a time.
    pub fn timeline(&self, threads: usize) -> Timeline {
        let ops = self.programs.iter().map(|(first, end)| end - first).max().unwrap_or(0);
        Timeline::new(self.origin, threads, ops)
    }

    /// A step begins.
    pub fn begin_step(&mut self, step: u64, start: Instant) {
        self.step = step;
        self.step_start_ns = self.ns(start);
        self.phases = PhaseTimes::default();
    }

    /// A batch was prepared.
    pub fn record_data(&mut self, start: Instant, end: Instant) {
        let (start_ns, end_ns) = (self.ns(start), self.ns(end));
        self.phases.data_ms += ms(end_ns.saturating_sub(start_ns));
        self.push(Event { kind: EventKind::Data, thread: 0, start_ns, end_ns });
    }

    /// A registered program ran; `timeline` is what the backend filled.
    pub fn record(&mut self, program: ProgramId, timeline: &Timeline) {
        let (first, end) = self.programs[program.0];
        for (index, op) in (first..end).enumerate() {
            let TracedOp { kernel, phase, flops, bytes, .. } = self.ops[op];
            let (mut wall_start_ns, mut wall_end_ns) = (u64::MAX, u64::MAX);
            for thread in 0..timeline.threads() {
                let Span { start_ns, end_ns } = timeline.thread(thread)[index];
                if end_ns <= start_ns || start_ns < self.step_start_ns {
                    continue; // not run on this thread
                }
                wall_start_ns = wall_start_ns.min(start_ns);
                wall_end_ns = wall_end_ns.min(end_ns);
                self.kernels[kernel].thread_ms += ms(end_ns - start_ns);
                let track = thread as u32 + u32::from(self.has_device);
                self.push(Event { kind: EventKind::Op(op as u32), thread: track, start_ns, end_ns });
            }
            if wall_start_ns < wall_end_ns {
                let wall_ms = ms(wall_end_ns - wall_start_ns);
                self.kernels[kernel].add_call(wall_ms, flops, bytes);
                *self.phase_mut(phase) += wall_ms;
            }
        }
    }

    /// The step ended; the phases add up to the time between its start and this end.
    pub fn end_step(&mut self, end: Instant) -> PhaseTimes {
        let (start_ns, end_ns) = (self.step_start_ns, self.ns(end));
        self.push(Event { kind: EventKind::Step(self.step), thread: 0, start_ns, end_ns });
        self.steps += 1;
        let phases = &mut self.phases;
        let covered = phases.data_ms
            + phases.fwd_ms
            + phases.bwd_ms
            + phases.grad_norm_ms
            + phases.grad_clip_ms
            + phases.optim_ms;
        phases.flush_ms = (ms(end_ns.saturating_sub(start_ns)) - covered).max(0.0);
        *phases
    }

    /// Writes `trace.json` and `kernels.json` of what has been recorded so far.
    pub fn write(&self, run_dir: &Path) -> Result<(), TrainError> {
        files::write_json_atomically(&run_dir.join(KERNELS_FILE_NAME), &kernels::report(&self.kernels, self.steps))?;
        files::write_atomically(&run_dir.join(TRACE_FILE_NAME), |out| chrome::write(out, self))
    }

    fn phase_mut(&mut self, phase: Phase) -> &mut f64 {
        match phase {
            Phase::Forward => &mut self.phases.fwd_ms,
            Phase::Backward => &mut self.phases.bwd_ms,
            Phase::GradNorm => &mut self.phases.grad_norm_ms,
            Phase::Optimizer => &mut self.phases.optim_ms,
        }
    }

    fn push(&mut self, event: Event) {
        if self.head.len() < self.capacity {
            self.head.push(event);
            return;
        }
        if self.tail.len() >= self.capacity {
            self.dropped += 1;
            if self.tail.pop_front().is_none() {
                return;
            }
        }
        self.tail.push_back(event);
    }

    fn ns(&self, time: Instant) -> u64 {
        time.saturating_duration_since(self.origin).as_nanos() as u64
    }
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// The phase's name in files.
fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Forward => "fwd",
        Phase::Backward => "bwd",
        Phase::GradNorm => "gradnorm",
        Phase::Optimizer => "optim",
    }
}

/// Renames the files of a run that goes on after `step` to names with that step, and returns these names. A file that has such
/// a name already holds the part up to that step; the one beside it is then of steps that are run again.
pub fn keep_earlier(run_dir: &Path, step: u64) -> Result<Vec<String>, TrainError> {
    let mut kept = Vec::new();
    for name in [TRACE_FILE_NAME, KERNELS_FILE_NAME] {
        let (path, stem) = (run_dir.join(name), name.trim_end_matches(".json"));
        let new = format!("{stem}-to-{step}.json");
        if path.exists() && !run_dir.join(&new).exists() {
            fs::rename(&path, run_dir.join(&new)).map_err(|source| TrainError::io("move", &path, source))?;
            kept.push(new);
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use alpha_tensor::{ProgramBuilder, Region, RegionSizes, Tensor, op::Fill};
    use serde_json::Value;

    use super::*;

    /// One operation of 16 elements in each phase.
    fn program() -> Program {
        let mut sizes = RegionSizes::default();
        sizes.set(Region::Params, 16);
        let mut builder = ProgramBuilder::new(sizes);
        for phase in [Phase::Forward, Phase::Backward, Phase::GradNorm, Phase::Optimizer] {
            builder.set_phase(phase);
            builder.set_layer((phase == Phase::Forward).then_some(3));
            builder.push(Fill { out: Tensor::new(Region::Params, 0, 1, 16), value: 0.0 });
        }
        builder.build(&[]).0
    }

    struct Run {
        tracer: Tracer,
        program: ProgramId,
        timeline: Timeline,
        origin: Instant,
    }

    impl Run {
        fn new(events: usize) -> Run {
            let origin = Instant::now();
            let mut tracer = Tracer::new(origin, events);
            let program = tracer.register(&program());
            let timeline = tracer.timeline(2);
            Run { tracer, program, timeline, origin }
        }

        /// A step of 100 µs: data 0 to 5, then four operations of 10, 20, 30 and 5 µs on thread 0,
        /// which thread 1 joins half-way and leaves as late; the last does not run there.
        fn step(&mut self, step: u64) -> PhaseTimes {
            let begin_us = step * 1000;
            let at = |us: u64| self.origin + Duration::from_micros(begin_us + us);
            self.tracer.begin_step(step, at(0));
            self.tracer.record_data(at(0), at(5));
            let span = |start: u64, us_times_2: u64| Span {
                start_ns: (begin_us + start) * 1000,
                end_ns: (begin_us + start) * 1000 + us_times_2 * 500,
            };
            self.timeline.spans_mut().copy_from_slice(&[
                span(10, 20),
                span(20, 40),
                span(40, 60),
                span(70, 10),
                span(15, 10),
                span(30, 20),
                span(55, 30),
                Span::default(),
            ]);
            self.tracer.record(self.program, &self.timeline);
            self.tracer.end_step(at(100))
        }

        fn files(&self) -> (Value, Value) {
            let dir = tempfile::tempdir().unwrap();
            self.tracer.write(dir.path()).unwrap();
            let read = |name| serde_json::from_slice(&fs::read(dir.path().join(name)).unwrap()).unwrap();
            (read(TRACE_FILE_NAME), read(KERNELS_FILE_NAME))
        }
    }

    #[test]
    fn phases_are_wall_times_and_add_up() {
        let phases = Run::new(100).step(1);
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        close(phases.data_ms, 0.005);
        close(phases.fwd_ms, 0.010);
        close(phases.bwd_ms, 0.020);
        close(phases.grad_norm_ms, 0.030);
        close(phases.optim_ms, 0.005);
        close(phases.flush_ms, 0.030);
        close(phases.grad_clip_ms, 0.0);
    }

    #[test]
    fn kernels_are_totalled() {
        let mut run = Run::new(100);
        for step in 1..=3 {
            run.step(step);
        }
        let kernels = run.files().1;
        assert_eq!(kernels["steps"], 3);
        let rows = kernels["kernels"].as_array().unwrap();
        let phases: Vec<&str> = rows.iter().map(|row| row["phase"].as_str().unwrap()).collect();
        assert_eq!(phases, ["gradnorm", "bwd", "fwd", "optim"]);
        let slowest = &rows[0];
        let close = |key: &str, expected: f64| {
            let found = slowest[key].as_f64().unwrap();
            assert!((found - expected).abs() < 1e-6, "{key}: {found}, expected {expected}");
        };
        assert_eq!((&slowest["name"], &slowest["calls"]), (&"fill".into(), &3.into()));
        assert_eq!(slowest["bytes"], 3 * 64);
        close("time_ms", 0.09);
        close("thread_ms", 0.135);
        close("gb_s", 3.0 * 64.0 / 0.09e-3 / 1e9);
    }

    fn events<'a>(trace: &'a Value, kind: &str) -> Vec<&'a Value> {
        trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == kind).collect()
    }

    #[test]
    fn the_trace_is_what_viewers_read() {
        let mut run = Run::new(100);
        run.step(1);
        let trace = run.files().0;
        let names: Vec<(&str, &str)> = events(&trace, "M")
            .iter()
            .map(|event| (event["name"].as_str().unwrap(), event["args"]["name"].as_str().unwrap()))
            .collect();
        assert_eq!(names, [("process_name", "alpha train"), ("thread_name", "main"), ("thread_name", "worker 1")]);
        let complete = events(&trace, "X");
        assert_eq!(complete.len(), 1 + 4 + 3 + 1);
        let step = complete.iter().find(|event| event["name"] == "step 1").unwrap();
        let (start, duration) = (step["ts"].as_f64().unwrap(), step["dur"].as_f64().unwrap());
        assert_eq!((start, duration), (1000.0, 100.0));
        for event in &complete {
            let (event_start, event_duration) = (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
            assert!(event_start >= start && event_start + event_duration <= start + duration);
            assert_eq!(event["pid"], 1);
            assert!(event["tid"].as_u64().unwrap() < 2);
        }
        let forward: Vec<_> = complete.iter().filter(|event| event["cat"] == "fwd").collect();
        assert_eq!(forward.len(), 2);
        assert_eq!((&forward[0]["name"], &forward[0]["dur"]), (&"fill".into(), &10.0.into()));
        assert_eq!(forward[0]["args"], serde_json::json!({ "layer": 3, "flops": 0, "bytes": 64 }));
    }

    #[test]
    fn long_runs_keep_their_beginning_and_end() {
        let mut run = Run::new(40);
        for step in 1..=50 {
            run.step(step);
        }
        let trace = run.files().0;
        let complete = events(&trace, "X");
        assert_eq!(complete.len(), 40);
        let has = |name: &str| complete.iter().any(|event| event["name"] == name);
        assert!(has("step 1") && has("step 50") && !has("step 25"));
        let notes = events(&trace, "i");
        assert_eq!(notes.len(), 1);
        assert_eq!(notes[0]["name"], format!("{} events left out here", 50 * 9 - 40));
        assert_eq!(run.files().1["kernels"][0]["calls"], 50);
    }

    #[test]
    fn without_room_for_events_totals_remain() {
        let mut run = Run::new(0);
        run.step(1);
        assert_eq!(events(&run.files().0, "X").len(), 0);
        assert_eq!(run.files().1["steps"], 1);
    }
}
