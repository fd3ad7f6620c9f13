//! A backend that holds regions and runs nothing.

use alpha_nn::ParamLayout;
use alpha_tensor::{Backend, BackendError, Program, Region, RegionSizes, Results, RunArgs, Timeline};

pub(crate) struct MemoryBackend {
    regions: Vec<Vec<f32>>,
}

impl MemoryBackend {
    pub(crate) fn new(layout: &ParamLayout) -> MemoryBackend {
        MemoryBackend { regions: vec![vec![0.0; layout.region_len]; Region::ALL.len()] }
    }

    pub(crate) fn region(&self, region: Region) -> &[f32] {
        &self.regions[region.index()]
    }

    pub(crate) fn region_mut(&mut self, region: Region) -> &mut [f32] {
        &mut self.regions[region.index()]
    }
}

impl Backend for MemoryBackend {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn scratch_bytes(&self, _programs: &[&Program]) -> usize {
        0
    }

    fn prepare(&mut self, _sizes: &RegionSizes, _programs: &[&Program]) -> Result<(), BackendError> {
        Ok(())
    }

    fn write(&mut self, region: Region, offset: usize, data: &[f32]) -> Result<(), BackendError> {
        self.regions[region.index()][offset..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn read(&mut self, region: Region, offset: usize, out: &mut [f32]) -> Result<(), BackendError> {
        out.copy_from_slice(&self.regions[region.index()][offset..][..out.len()]);
        Ok(())
    }

    fn write_tokens(&mut self, _offset: usize, _tokens: &[u32]) -> Result<(), BackendError> {
        Ok(())
    }

    fn request_results(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn collect_results(&mut self) -> Result<Results, BackendError> {
        Ok(Results::default())
    }

    fn run(&mut self, _: &Program, _: &RunArgs, _: Option<&mut Timeline>) -> Result<(), BackendError> {
        Ok(())
    }
}
