//! Large zeroed buffers on huge pages where the system has them.

use memmap2::MmapMut;

use crate::backend::BackendError;

/// A zeroed buffer of f32 (or u32: the same size), aligned to a page.
#[derive(Debug)]
pub(super) struct Buffer {
    map: Option<MmapMut>,
    len: usize,
}

impl Buffer {
    /// `len` elements, zero; pages are taken when first touched.
    pub(super) fn zeroed(len: usize, what: &'static str) -> Result<Buffer, BackendError> {
        if len == 0 {
            return Ok(Buffer { map: None, len });
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
