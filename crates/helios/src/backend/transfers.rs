//! Memory on its way to the device and back: regions through staging memory, tokens through a ring of slots.

use alpha_tensor::{BackendError, Region};

use super::{HeliosBackend, UPLOAD_SLOTS, mapped::Mapped, new_encoder, not_prepared};

/// The most bytes that are read or written at a time, and so the size of staging memory.
const STAGING_BYTES: usize = 16 << 20;

impl HeliosBackend {
    pub(super) fn write_region(&mut self, region: Region, offset: usize, data: &[f32]) -> Result<(), BackendError> {
        // Work that is recorded already comes before the write.
        self.submit()?;
        let element_bytes = region.element_bytes();
        check_words(offset * element_bytes, data.len() * element_bytes)?;
        for (chunk, values) in data.chunks(STAGING_BYTES / 4).enumerate() {
            let prepared = self.prepared.as_mut().ok_or_else(not_prepared)?;
            let buffer = prepared.memory.region(region);
            let at = (offset + chunk * (STAGING_BYTES / 4)) * element_bytes;
            let bytes = self.profile.format16.encode(region, values);
            self.gpu.queue.write_buffer(buffer, at as u64, &bytes);
            prepared.staged_bytes += bytes.len();
            if prepared.staged_bytes >= STAGING_BYTES {
                // The driver frees staged memory once a submission that holds it is done.
                prepared.staged_bytes = 0;
                let submission = self.submissions.submitted(self.gpu.queue.submit([]), false);
                self.wait(&submission)?;
            }
        }
        self.gpu.check_fault()
    }

    pub(super) fn read_region(&mut self, region: Region, offset: usize, out: &mut [f32]) -> Result<(), BackendError> {
        self.submit()?;
        self.launches.read_backs += 1;
        let element_bytes = region.element_bytes();
        check_words(offset * element_bytes, out.len() * element_bytes)?;
        for (chunk, values) in out.chunks_mut(STAGING_BYTES / 4).enumerate() {
            let bytes = (values.len() * element_bytes) as u64;
            let prepared = self.prepared.as_mut().ok_or_else(not_prepared)?;
            let staging = match &prepared.staging {
                Some(staging) if staging.size() >= bytes => staging.clone(),
                _ => {
                    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
                    prepared.staging.insert(self.gpu.buffer("staging", bytes, usage)).clone()
                }
            };
            let at = ((offset + chunk * (STAGING_BYTES / 4)) * element_bytes) as u64;
            let mut encoder = new_encoder(&self.gpu);
            encoder.copy_buffer_to_buffer(prepared.memory.region(region), at, &staging, 0, bytes);
            let submission = self.submissions.submitted(self.gpu.queue.submit([encoder.finish()]), false);
            let mapped = Mapped::request(&staging, bytes);
            self.wait_mapped(&mapped, &submission)?;
            let view = staging.slice(..bytes).get_mapped_range().map_err(|error| self.gpu.failed(error.to_string()))?;
            self.profile.format16.decode(region, &view, values);
            drop(view);
            staging.unmap();
        }
        Ok(())
    }

    /// Uploads the tokens of the next run through a slot of the ring.
    pub(super) fn record_upload(&mut self) -> Result<(), BackendError> {
        let prepared = self.prepared.as_ref().ok_or_else(not_prepared)?;
        if !prepared.has_new_tokens {
            return Ok(());
        }
        if prepared.uploads_recorded == UPLOAD_SLOTS {
            self.submit()?;
        }
        let prepared = self.prepared.as_mut().ok_or_else(not_prepared)?;
        let bytes = prepared.tokens.len() as u64 * 4;
        let at = prepared.next_upload as u64 * bytes;
        self.gpu.queue.write_buffer(&prepared.upload, at, bytemuck::cast_slice(&prepared.tokens));
        let encoder = self.encoder.get_or_insert_with(|| new_encoder(&self.gpu));
        encoder.copy_buffer_to_buffer(&prepared.upload, at, prepared.memory.region(Region::Inputs), 0, bytes);
        prepared.has_new_tokens = false;
        prepared.uploads_recorded += 1;
        prepared.next_upload = (prepared.next_upload + 1) % UPLOAD_SLOTS;
        Ok(())
    }
}

/// The device copies whole words only.
fn check_words(offset_bytes: usize, bytes: usize) -> Result<(), BackendError> {
    if offset_bytes.is_multiple_of(4) && bytes.is_multiple_of(4) {
        return Ok(());
    }
    Err(BackendError::InvalidProgram(format!("{bytes} bytes at byte {offset_bytes} are not whole words")))
}
