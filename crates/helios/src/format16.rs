//! 16-bit numbers on the host. `kernels/format_f16.wgsl` and `format_bf16.wgsl` do the same in kernels.

use alpha_tensor::Region;

/// A 16-bit format of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format16 {
    /// IEEE 754 half precision: 11 significant bits, up to 65504.
    F16,
    /// The upper half of an f32: 8 significant bits, the range of f32.
    Bf16,
}

impl Format16 {
    fn bits(self, value: f32) -> u16 {
        match self {
            Format16::F16 => half::f16::from_f32(value).to_bits(),
            Format16::Bf16 => half::bf16::from_f32(value).to_bits(),
        }
    }

    fn value(self, bits: u16) -> f32 {
        match self {
            Format16::F16 => half::f16::from_bits(bits).to_f32(),
            Format16::Bf16 => half::bf16::from_bits(bits).to_f32(),
        }
    }

    /// Numbers as they are stored in a region, rounded to nearest, ties to even.
    pub(crate) fn encode(self, region: Region, values: &[f32]) -> Vec<u8> {
        if region.element_bytes() == 4 {
            return bytemuck::cast_slice(values).to_vec();
        }
        values.iter().flat_map(|&value| self.bits(value).to_le_bytes()).collect()
    }

    /// The reverse of [`Format16::encode`].
    pub(crate) fn decode(self, region: Region, bytes: &[u8], values: &mut [f32]) {
        let element_bytes = region.element_bytes();
        for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(element_bytes)) {
            *value = match *bytes {
                [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
                [a, b] => self.value(u16::from_le_bytes([a, b])),
                _ => f32::NAN,
            };
        }
    }
}
