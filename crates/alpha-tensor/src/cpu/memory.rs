//! Memory: large zeroed buffers, on huge pages where the system has them, and a task's access to them.

use std::{
    ops::Range,
    sync::atomic::{AtomicPtr, Ordering},
};

use memmap2::MmapMut;

use crate::{
    backend::{BackendError, RunArgs},
    tensor::{Region, Tensor},
};

/// A zeroed buffer of f32 (or u32: the same size), aligned to a page.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    map: Option<MmapMut>,
    len: usize,
}

impl Buffer {
    /// `len` elements, zero; pages are taken when first touched.
    pub(super) fn zeroed(len: usize, what: &'static str) -> Result<Buffer, BackendError> {
        if len == 0 {
            return Ok(Buffer::default());
        }
        let out_of_memory = |asked_bytes| BackendError::OutOfMemory { asked_bytes, what };
        let bytes = len.checked_mul(4).ok_or(out_of_memory(usize::MAX))?;
        let map = MmapMut::map_anon(bytes).map_err(|_| out_of_memory(bytes))?;
        // Rows of a wide matrix lie on different pages: without huge pages the matrix
        // products wait for the address translation. Advice only, so a refusal is not an error.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Buffer { map: Some(map), len })
    }

    /// Start of the buffer; dangling when empty.
    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.map.as_mut().map_or(std::ptr::NonNull::dangling().as_ptr(), |map| map.as_mut_ptr().cast())
    }

    pub(super) fn as_slice(&self) -> &[f32] {
        match &self.map {
            // SAFETY: the map holds `len` elements, page-aligned; every bit pattern is an f32.
            Some(map) => unsafe { std::slice::from_raw_parts(map.as_ptr().cast(), self.len) },
            None => &[],
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [f32] {
        match &mut self.map {
            // SAFETY: as above, and borrowed mutably.
            Some(map) => unsafe { std::slice::from_raw_parts_mut(map.as_mut_ptr().cast(), self.len) },
            None => &mut [],
        }
    }
}

/// The regions during a run.
///
/// Safety rests on two facts. A [`crate::Program`] is verified: every operand lies inside its region, and operands that an
/// operation writes overlap none of its others, except for exact in-place use. And the tasks of a stage write disjoint parts.
pub(super) struct Memory<'a> {
    pub(super) args: &'a RunArgs,
    pub(super) regions: [AtomicPtr<f32>; Region::ALL.len()],
    pub(super) partials: AtomicPtr<f32>,
}

impl Memory<'_> {
    /// Start of a tensor.
    pub(super) fn ptr(&self, tensor: &Tensor) -> *mut f32 {
        let region = self.regions[tensor.region.index()].load(Ordering::Relaxed);
        // SAFETY: verified to lie inside its region.
        unsafe { region.add(tensor.offset) }
    }

    /// Elements `start..end` of a tensor that no task of this stage writes.
    #[inline(always)]
    pub(super) fn read(&self, tensor: &Tensor, start: usize, end: usize) -> &[f32] {
        assert!(start <= end && end <= tensor.len());
        // SAFETY: inside the tensor; not written during the stage (see `Memory`).
        unsafe { std::slice::from_raw_parts(self.ptr(tensor).add(start), end - start) }
    }

    /// A whole tensor.
    #[inline(always)]
    pub(super) fn all(&self, tensor: &Tensor) -> &[f32] {
        self.read(tensor, 0, tensor.len())
    }

    /// Row `row` of a tensor that no task of this stage writes.
    #[inline(always)]
    pub(super) fn row(&self, tensor: &Tensor, row: usize) -> &[f32] {
        self.read(tensor, row * tensor.cols, (row + 1) * tensor.cols)
    }

    /// Elements `start..end` of a tensor, to write.
    ///
    /// # Safety
    /// No other task touches these elements during the stage, and the caller holds no other
    /// slice of them.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "tasks write disjoint parts of shared memory")]
    pub(super) unsafe fn write(&self, tensor: &Tensor, start: usize, end: usize) -> &mut [f32] {
        assert!(start <= end && end <= tensor.len());
        // SAFETY: inside the tensor; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.ptr(tensor).add(start), end - start) }
    }

    /// Row `row` of a tensor, to write.
    ///
    /// # Safety
    /// As [`Memory::write`].
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "tasks write disjoint parts of shared memory")]
    pub(super) unsafe fn row_mut(&self, tensor: &Tensor, row: usize) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { self.write(tensor, row * tensor.cols, (row + 1) * tensor.cols) }
    }

    /// Token ids.
    #[inline(always)]
    pub(super) fn tokens(&self, tensor: &Tensor) -> &[u32] {
        assert!(tensor.region == Region::Inputs);
        // SAFETY: inside the tensor; inputs are written between runs only; u32 and f32 have
        // the same size and alignment.
        unsafe { std::slice::from_raw_parts(self.ptr(tensor).cast::<u32>(), tensor.len()) }
    }

    /// Slot `index` of the shared partial sums.
    #[expect(clippy::cast_ptr_alignment, reason = "the buffer begins on a page")]
    pub(super) fn partial(&self, index: usize) -> *mut f64 {
        // SAFETY: slots are `partials_len` elements long in all; two elements a slot.
        unsafe { self.partials.load(Ordering::Relaxed).cast::<f64>().add(index) }
    }
}

/// One task of one stage of an operation.
pub(super) struct Task<'a> {
    pub(super) memory: &'a Memory<'a>,
    pub(super) threads: usize,
    pub(super) stage: usize,
    pub(super) index: usize,
    /// The thread's scratch space.
    pub(super) scratch: &'a mut [f32],
}

/// Rows of a task in operations that work row by row.
pub(super) const ROWS_PER_TASK: usize = 32;
/// Elements of a task in operations that work on flat memory.
pub(super) const FLAT_PER_TASK: usize = 64 * 1024;

impl Task<'_> {
    /// This task's share of `len` rows, columns or elements, with `per_task` in each task.
    #[inline(always)]
    pub(super) fn range(&self, len: usize, per_task: usize) -> Range<usize> {
        self.index * per_task..len.min((self.index + 1) * per_task)
    }
}
