//! Regions on the device, scratch space, and the windows through which kernels see them.
//!
//! A region is one buffer. A window is the part of it that a binding shows. It begins where the device allows a binding
//! to begin, so a tensor's first element may be a few elements into its window.

use alpha_tensor::{BackendError, Region, RegionSizes, Tensor};

use crate::device::Gpu;

/// The size of a buffer is a multiple of this, so vectors of four at a tensor's end are inside.
const PAD_BYTES: u64 = 256;

/// All buffers of the prepared programs.
pub(crate) struct Memory {
    regions: [wgpu::Buffer; Region::ALL.len()],
    lens: [usize; Region::ALL.len()],
    pub(crate) scratch: wgpu::Buffer,
    /// Bound in the place of an absent operand.
    pub(crate) nothing: wgpu::Buffer,
}

/// The part of a buffer that a binding shows.
pub(crate) struct Window<'a> {
    pub(crate) buffer: &'a wgpu::Buffer,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    /// Elements from the window's start to the operand's first.
    pub(crate) first: u32,
}

fn padded(elements: usize, element_bytes: usize) -> u64 {
    ((elements * element_bytes) as u64).max(4).next_multiple_of(PAD_BYTES)
}

fn region_bytes(sizes: &RegionSizes, region: Region) -> u64 {
    padded(sizes.get(region), region.element_bytes())
}

/// Bytes of device memory that regions of these sizes and the scratch space take.
pub(crate) fn planned_bytes(sizes: &RegionSizes, scratch_len: usize) -> u64 {
    let regions: u64 = Region::ALL.iter().map(|&region| region_bytes(sizes, region)).sum();
    regions + padded(scratch_len, 4) + PAD_BYTES
}

impl Memory {
    /// Allocates everything, zeroed.
    pub(crate) fn allocate(gpu: &Gpu, sizes: &RegionSizes, scratch_len: usize) -> Result<Memory, BackendError> {
        let bytes = planned_bytes(sizes, scratch_len);
        let regions = Region::ALL.iter().map(|&region| (region_bytes(sizes, region), "a region"));
        for (asked_bytes, what) in regions.chain([(padded(scratch_len, 4), "scratch space")]) {
            if asked_bytes > gpu.limits.max_buffer_size {
                return Err(BackendError::OutOfMemory { asked_bytes: asked_bytes as usize, what });
            }
        }
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let buffer = |label, size| gpu.buffer(label, size, usage);
        let regions = Region::ALL.map(|region| buffer("region", region_bytes(sizes, region)));
        let (scratch, nothing) = (buffer("scratch", padded(scratch_len, 4)), buffer("nothing", PAD_BYTES));
        if pollster::block_on(scope.pop()).is_some() {
            return Err(BackendError::OutOfMemory { asked_bytes: bytes as usize, what: "regions on the device" });
        }
        Ok(Memory { regions, lens: Region::ALL.map(|region| sizes.get(region)), scratch, nothing })
    }

    /// Elements of a region.
    pub(crate) fn len(&self, region: Region) -> usize {
        self.lens[region.index()]
    }

    pub(crate) fn region(&self, region: Region) -> &wgpu::Buffer {
        &self.regions[region.index()]
    }

    /// The window of a tensor.
    pub(crate) fn window(&self, gpu: &Gpu, tensor: &Tensor) -> Window<'_> {
        window(gpu, self.region(tensor.region), tensor.region.element_bytes(), [tensor.offset, tensor.len()])
    }

    /// A window of scratch space.
    pub(crate) fn scratch_window(&self, gpu: &Gpu, start: usize, len: usize) -> Window<'_> {
        window(gpu, &self.scratch, 4, [start, len])
    }
}

/// The window that shows `len` elements from `start`.
pub(crate) fn window<'a>(
    gpu: &Gpu,
    buffer: &'a wgpu::Buffer,
    element_bytes: usize,
    [start, len]: [usize; 2],
) -> Window<'a> {
    let align = u64::from(gpu.limits.min_storage_buffer_offset_alignment);
    let begin = (start * element_bytes) as u64;
    let offset = begin / align * align;
    let end = (((start + len) * element_bytes) as u64).next_multiple_of(16).min(buffer.size());
    Window { buffer, offset, size: (end - offset).max(16), first: (begin - offset) as u32 / element_bytes as u32 }
}
