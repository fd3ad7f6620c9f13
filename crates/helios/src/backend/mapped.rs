//! Whether a buffer has been mapped.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

/// Whether a buffer has been mapped, which a callback of the driver says.
#[derive(Clone, Default)]
pub(crate) struct Mapped(Arc<AtomicU8>);

const PENDING: u8 = 0;
const MAPPED: u8 = 1;

impl Mapped {
    /// Asks the driver to map the first bytes of a buffer.
    pub(crate) fn request(buffer: &wgpu::Buffer, bytes: u64) -> Mapped {
        let mapped = Mapped::default();
        let flag = mapped.0.clone();
        buffer.slice(..bytes).map_async(wgpu::MapMode::Read, move |outcome| {
            flag.store(if outcome.is_ok() { MAPPED } else { MAPPED + 1 }, Ordering::Release);
        });
        mapped
    }

    /// None while the driver has not answered; then whether it did.
    pub(crate) fn answer(&self) -> Option<bool> {
        match self.0.load(Ordering::Acquire) {
            PENDING => None,
            answer => Some(answer == MAPPED),
        }
    }
}
