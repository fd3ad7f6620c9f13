//! A buffer that is being mapped.

use std::sync::{Arc, OnceLock};

/// Whether a buffer could be mapped, once a callback of the driver has said so.
#[derive(Clone, Default)]
pub(super) struct Mapped(Arc<OnceLock<bool>>);

impl Mapped {
    /// Asks the driver to map the first bytes of a buffer.
    pub(super) fn request(buffer: &wgpu::Buffer, bytes: u64) -> Mapped {
        let mapped = Mapped::default();
        let answer = mapped.0.clone();
        buffer.slice(..bytes).map_async(wgpu::MapMode::Read, move |outcome| {
            answer.get_or_init(|| outcome.is_ok());
        });
        mapped
    }

    /// `None` until the driver has answered; then whether the buffer is mapped.
    pub(super) fn answer(&self) -> Option<bool> {
        self.0.get().copied()
    }
}
