//! [`HeliosBackend`]: programs on a GPU.
//!
//! Running a program only records it. The recording is submitted when the caller reads, writes or asks for results,
//! when the ring of token uploads is full, or when the work in it would take long. So an accumulated step is usually
//! one submission. Only [`HeliosBackend::wait`] waits for the device.

mod mapped;
mod submissions;
mod timestamps;
mod transfers;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use alpha_tensor::{
    Backend, BackendError, DeviceMemory, Launches, Program, Region, RegionSizes, Results, RunArgs, Timeline,
};

use self::{
    mapped::Mapped,
    submissions::{Submission, Submissions, costs},
    timestamps::Timestamps,
};
use crate::{
    device::{
        DeviceInfo, Gpu, HeliosError, Options,
        cache::{self, BlobStore},
    },
    format16::Format16,
    kernels::Profile,
    recording::{
        Plan, lower,
        memory::{Memory, planned_bytes},
        pipelines::Pipelines,
    },
};

/// How long the host waits for one submission after the end of the one before it. Drivers of cards give up after about
/// ten seconds; a software device is slow.
const DEADLINE: Duration = Duration::from_secs(60);
const SOFTWARE_DEADLINE: Duration = Duration::from_secs(1800);

/// Batches that can be uploaded while earlier steps are running or not yet submitted.
const UPLOAD_SLOTS: usize = 8;
/// Results that can be requested before the first is collected.
const RESULT_SLOTS: usize = 3;
/// Runs programs on a GPU. A run is recorded and, after some others, submitted.
pub struct HeliosBackend {
    pub(crate) gpu: Gpu,
    pub(crate) profile: Profile,
    pipelines: Pipelines,
    prepared: Option<Prepared>,
    encoder: Option<wgpu::CommandEncoder>,
    submissions: Submissions,
    last_submission: Option<Submission>,
    deadline: Duration,
    launches: Launches,
    /// The format of 16-bit activations, if there are any.
    pub(crate) format16: Option<Format16>,
    store: Option<Box<dyn BlobStore>>,
    pub(crate) notes: Vec<String>,
}

/// Everything that `prepare` makes.
struct Prepared {
    memory: Memory,
    /// The prepared programs, then at most one other.
    plans: Vec<(Program, Plan)>,
    permanent_plans: usize,
    /// Token ids, which the next run uploads.
    tokens: Vec<u32>,
    has_new_tokens: bool,
    upload: wgpu::Buffer,
    /// Upload slots that the current recording reads.
    uploads_recorded: usize,
    next_upload: usize,
    results: Vec<wgpu::Buffer>,
    requested: VecDeque<Requested>,
    next_result: usize,
    staging: Option<wgpu::Buffer>,
    staged_bytes: usize,
    timestamps: Option<Timestamps>,
}

/// Results on their way to the host.
struct Requested {
    slot: usize,
    submission: Submission,
    mapped: Mapped,
}

impl HeliosBackend {
    /// Opens a device.
    pub fn open(options: &Options) -> Result<HeliosBackend, HeliosError> {
        HeliosBackend::open_with(options, None)
    }

    /// Opens a device without checking it. Entries that stay between starts are in `store`.
    pub(crate) fn open_with(
        options: &Options,
        store: Option<Box<dyn BlobStore>>,
    ) -> Result<HeliosBackend, HeliosError> {
        let gpu = Gpu::open(options)?;
        let profile = Profile::of(&gpu, options)?;
        let deadline = if gpu.is_software() { SOFTWARE_DEADLINE } else { DEADLINE };
        Ok(HeliosBackend {
            profile,
            pipelines: Pipelines::new(cache::pipeline_cache(&gpu, store.as_deref())),
            prepared: None,
            encoder: None,
            last_submission: None,
            submissions: Submissions::new(),
            deadline,
            launches: Launches::default(),
            format16: options.format16,
            store,
            notes: Vec::new(),
            gpu,
        })
    }

    /// Drops what was prepared, and counts launches from 0 again.
    pub(crate) fn reset(&mut self) {
        self.prepared = None;
        self.launches = Launches::default();
    }

    /// Submits the recording and waits until it is done.
    pub(crate) fn wait_idle(&mut self) -> Result<(), BackendError> {
        self.submit()?;
        match self.last_submission.clone() {
            Some(submission) => self.wait(&submission),
            None => Ok(()),
        }
    }

    /// An entry that an earlier start stored.
    pub(crate) fn stored(&self, name: &str) -> Option<Vec<u8>> {
        self.store.as_ref()?.read(name)
    }

    /// Stores an entry for later starts. Warns once of each reason why it cannot.
    pub(crate) fn store(&mut self, name: &str, bytes: &[u8]) {
        if let Some(Err(why)) = self.store.as_ref().map(|store| store.write(name, bytes)) {
            let warning = format!("warning: {why}");
            if !self.notes.contains(&warning) {
                self.notes.push(warning);
            }
        }
    }

    /// From here on, compiles every kernel with one text in place of another.
    #[cfg(test)]
    pub(crate) fn sabotage(&mut self, right: &'static str, wrong: &'static str) {
        self.pipelines = Pipelines::new(None);
        self.pipelines.sabotage = Some((right, wrong));
    }

    /// The device.
    pub fn device(&self) -> &DeviceInfo {
        &self.gpu.info
    }

    /// The number of dispatches in one run of a program.
    pub fn dispatches_of(&self, program: &Program) -> Result<usize, BackendError> {
        Ok(lower(program, &self.profile)?.iter().map(|lowering| lowering.dispatches.len()).sum())
    }

    /// Bytes that wgpu's allocator has taken from the driver for this device, which is independent of our own count.
    /// `None` where the API has no such allocator.
    pub fn driver_bytes(&self) -> Option<u64> {
        self.gpu.device.generate_allocator_report().map(|report| report.total_allocated_bytes)
    }

    /// Loses the device, as a crash of the driver does: for tests.
    pub fn destroy_device(&self) {
        self.gpu.device.destroy();
    }

    fn scratch_len(&self, programs: &[&Program]) -> Result<usize, BackendError> {
        let mut longest = 0;
        for program in programs {
            for lowering in lower(program, &self.profile)? {
                longest = longest.max(lowering.scratch_len);
            }
        }
        Ok(longest)
    }

    /// Submits the recording, if there is one.
    fn submit(&mut self) -> Result<(), BackendError> {
        if let Some(encoder) = self.encoder.take() {
            let index = self.gpu.queue.submit([encoder.finish()]);
            self.last_submission = Some(self.submissions.submitted(index, true));
            self.launches.submissions += 1;
            if let Some(prepared) = &mut self.prepared {
                prepared.uploads_recorded = 0;
            }
        }
        self.gpu.check_fault()
    }

    /// Waits until a submission is done. Nothing else waits for the device. Each submission before it has the whole
    /// time to the deadline.
    fn wait(&mut self, submission: &Submission) -> Result<(), BackendError> {
        while let Some(oldest) = self.submissions.oldest_until(submission) {
            let poll = wgpu::PollType::Wait { submission_index: Some(oldest.index), timeout: Some(self.deadline) };
            let outcome = self.gpu.device.poll(poll);
            self.gpu.check_fault()?;
            outcome.map_err(|error| match error {
                wgpu::PollError::Timeout => self.gpu.failed(format!(
                    "one submission took more than {} s; a smaller `--batch` with more `--accumSteps` makes them shorter",
                    self.deadline.as_secs()
                )),
                wgpu::PollError::WrongSubmissionIndex(..) => self.gpu.failed(error.to_string()),
            })?;
            self.submissions.oldest_done(Instant::now());
        }
        Ok(())
    }

    /// Waits for a mapping that was requested no later than the submission.
    fn wait_mapped(&mut self, mapped: &Mapped, submission: &Submission) -> Result<(), BackendError> {
        self.wait(submission)?;
        if mapped.answer().is_none() {
            // The submission is done, but the callback has not been called yet.
            self.gpu.device.poll(wgpu::PollType::Poll).map_err(|error| self.gpu.failed(error.to_string()))?;
        }
        self.gpu.check_fault()?;
        match mapped.answer() {
            Some(true) => Ok(()),
            _ => Err(self.gpu.failed("its memory could not be read".to_owned())),
        }
    }

    /// The index of a program's plan. Makes the plan if the program was not prepared.
    fn plan_of(&mut self, program: &Program) -> Result<usize, BackendError> {
        let prepared = self.prepared.as_mut().ok_or_else(not_prepared)?;
        if let Some(number) = prepared.plans.iter().position(|(known, _)| known == program) {
            return Ok(number);
        }
        for region in Region::ALL {
            let (needed, got) = (program.sizes().get(region), prepared.memory.len(region));
            if needed > got {
                return Err(BackendError::InvalidProgram(format!(
                    "{region:?} needs {needed} elements, {got} prepared"
                )));
            }
        }
        let lowered = lower(program, &self.profile)?;
        let scratch_len = lowered.iter().map(|lowering| lowering.scratch_len).max().unwrap_or(0);
        if scratch_len as u64 * 4 > prepared.memory.scratch.size() {
            return Err(BackendError::InvalidProgram("it was not among those prepared, and needs more".into()));
        }
        let plan = Plan::new(&self.gpu, lowered, costs(program), &prepared.memory, &mut self.pipelines)?;
        self.gpu.check_fault()?;
        // It replaces the last such plan: programs that are not prepared run once.
        prepared.plans.truncate(prepared.permanent_plans);
        prepared.plans.push((program.clone(), plan));
        Ok(prepared.plans.len() - 1)
    }
}

fn not_prepared() -> BackendError {
    BackendError::InvalidProgram("nothing is prepared".to_owned())
}

fn new_encoder(gpu: &Gpu) -> wgpu::CommandEncoder {
    gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("step") })
}

impl Backend for HeliosBackend {
    fn name(&self) -> &'static str {
        "helios"
    }

    fn device_memory(&self) -> Option<DeviceMemory> {
        let info = &self.gpu.info;
        let device = if self.gpu.is_software() { format!("{} (software)", info.name) } else { info.name.clone() };
        Some(DeviceMemory { device, is_host: self.gpu.is_software(), total_bytes: info.memory_bytes })
    }

    fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    fn launches(&self) -> Option<Launches> {
        Some(self.launches)
    }

    fn scratch_bytes(&self, programs: &[&Program]) -> usize {
        // `prepare` reports a program that cannot run.
        let inputs = programs.iter().map(|program| program.sizes().get(Region::Inputs)).max().unwrap_or(0);
        let uploads = UPLOAD_SLOTS * inputs * 4;
        self.scratch_len(programs).map_or(0, |len| planned_bytes(&RegionSizes::default(), len) as usize + uploads)
    }

    fn prepare(&mut self, sizes: &RegionSizes, programs: &[&Program]) -> Result<(), BackendError> {
        self.encoder = None;
        self.prepared = None;
        self.gpu.check_fault()?;
        let scratch_len = self.scratch_len(programs)?;
        let memory = Memory::allocate(&self.gpu, sizes, scratch_len)?;
        let mut plans = Vec::new();
        for program in programs {
            let plan =
                Plan::new(&self.gpu, lower(program, &self.profile)?, costs(program), &memory, &mut self.pipelines)?;
            plans.push(((*program).clone(), plan));
        }
        let buffer = |label, bytes: usize, usage| self.gpu.buffer(label, bytes.max(4) as u64, usage);
        let input_bytes = sizes.get(Region::Inputs) * 4;
        let upload =
            buffer("tokens", UPLOAD_SLOTS * input_bytes, wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST);
        let readable = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let results = (0..RESULT_SLOTS).map(|_| buffer("results", Results::LEN * 4, readable)).collect();
        self.prepared = Some(Prepared {
            memory,
            permanent_plans: plans.len(),
            plans,
            tokens: vec![0; sizes.get(Region::Inputs)],
            has_new_tokens: false,
            upload,
            uploads_recorded: 0,
            next_upload: 0,
            results,
            requested: VecDeque::new(),
            next_result: 0,
            staging: None,
            staged_bytes: 0,
            timestamps: None,
        });
        if let Some(data) = self.pipelines.take_new() {
            self.store(&cache::name(&self.gpu.info, cache::PIPELINES), &data);
        }
        self.gpu.check_fault()
    }

    fn write(&mut self, region: Region, offset: usize, data: &[f32]) -> Result<(), BackendError> {
        self.write_region(region, offset, data)
    }

    fn read(&mut self, region: Region, offset: usize, out: &mut [f32]) -> Result<(), BackendError> {
        self.read_region(region, offset, out)
    }

    fn write_tokens(&mut self, offset: usize, tokens: &[u32]) -> Result<(), BackendError> {
        let prepared = self.prepared.as_mut().ok_or_else(not_prepared)?;
        prepared.tokens[offset..offset + tokens.len()].copy_from_slice(tokens);
        prepared.has_new_tokens = true;
        Ok(())
    }

    fn run(&mut self, program: &Program, args: &RunArgs, timeline: Option<&mut Timeline>) -> Result<(), BackendError> {
        let number = self.plan_of(program)?;
        self.record_upload()?;
        if let Some(timeline) = timeline {
            return self.run_timed(number, args, timeline);
        }
        let mut operation = 0;
        loop {
            let encoder = self.encoder.get_or_insert_with(|| new_encoder(&self.gpu));
            let prepared = self.prepared.as_mut().ok_or_else(not_prepared)?;
            let plan = &mut prepared.plans[number].1;
            let first = operation;
            while let Some(cost) = plan.costs().get(operation).filter(|cost| !self.submissions.is_full(**cost)) {
                self.submissions.record(*cost);
                operation += 1;
            }
            let dispatches = plan.start_of(first)..plan.start_of(operation);
            self.launches.dispatches += dispatches.len() as u64;
            if !dispatches.is_empty() {
                plan.record(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()), args, dispatches);
            }
            if operation == plan.costs().len() {
                return Ok(());
            }
            self.submit()?;
        }
    }

    fn results_ahead(&self) -> usize {
        RESULT_SLOTS - 1
    }

    fn request_results(&mut self) -> Result<(), BackendError> {
        let encoder = self.encoder.get_or_insert_with(|| new_encoder(&self.gpu));
        let prepared = self.prepared.as_mut().ok_or_else(not_prepared)?;
        if prepared.requested.len() == RESULT_SLOTS {
            return Err(BackendError::InvalidProgram("more results were asked for than can be on their way".into()));
        }
        let slot = prepared.next_result;
        prepared.next_result = (slot + 1) % RESULT_SLOTS;
        let bytes = (Results::LEN * 4) as u64;
        encoder.copy_buffer_to_buffer(prepared.memory.region(Region::Results), 0, &prepared.results[slot], 0, bytes);
        self.submit()?;
        let submission = self.last_submission.clone().ok_or_else(not_prepared)?;
        let prepared = self.prepared.as_mut().ok_or_else(not_prepared)?;
        let mapped = Mapped::request(&prepared.results[slot], bytes);
        prepared.requested.push_back(Requested { slot, submission, mapped });
        Ok(())
    }

    fn collect_results(&mut self) -> Result<Results, BackendError> {
        let prepared = self.prepared.as_mut().ok_or_else(not_prepared)?;
        let Some(requested) = prepared.requested.pop_front() else {
            return Err(BackendError::InvalidProgram("no results were asked for".into()));
        };
        let buffer = prepared.results[requested.slot].clone();
        self.wait_mapped(&requested.mapped, &requested.submission)?;
        let view = buffer.slice(..).get_mapped_range().map_err(|error| self.gpu.failed(error.to_string()))?;
        let mut values = [0.0; Results::LEN];
        for (value, bytes) in values.iter_mut().zip(view.as_chunks().0) {
            *value = f32::from_le_bytes(*bytes);
        }
        drop(view);
        buffer.unmap();
        Ok(Results::from_slice(values))
    }
}
