//! The numbers of a safetensors file, a chunk at a time.
//!
//! The checks of types, shapes, gaps and overlaps are those of the format's own crate; to read the numbers it would
//! need the whole file in memory. Files are read with ordinary reads rather than a memory map, so that a file that
//! shrinks meanwhile gives an error and not a signal.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};

use crate::LoopError;

/// An open file whose header has been checked: every tensor lies inside it and none overlap.
pub(super) struct WeightsFile {
    pub(super) path: PathBuf,
    file: File,
    pub(super) tensors: BTreeMap<String, StoredTensor>,
    data_start: u64,
    bytes: Vec<u8>,
}

/// Where a tensor is in the file, and how it is stored.
#[derive(Clone)]
pub(super) struct StoredTensor {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Counted from the end of the header.
    start: usize,
    element_bytes: usize,
    decode: Decoder,
}

impl StoredTensor {
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Decodes the bytes of one element.
type Decoder = fn(&[u8]) -> f64;

/// The same limit as the format's own reader has.
const MAX_HEADER_BYTES: u64 = 100_000_000;

impl WeightsFile {
    pub(super) fn open(path: &Path) -> Result<WeightsFile, LoopError> {
        let file = File::open(path).map_err(|error| {
            LoopError::io("open", path, &error).hint("`weights` in `loop.toml` names what the trainer saves")
        })?;
        let file_bytes = file.metadata().map_err(|error| LoopError::io("read", path, &error))?.len();
        let mut weights =
            WeightsFile { path: path.into(), file, tensors: BTreeMap::new(), data_start: 0, bytes: Vec::new() };
        weights.read_header(file_bytes)?;
        Ok(weights)
    }

    fn read_header(&mut self, file_bytes: u64) -> Result<(), LoopError> {
        let mut length = [0; 8];
        if self.file.read_exact(&mut length).is_err() {
            return Err(self.broken(&format!("has {file_bytes} bytes, expected at least 8")));
        }
        let length = u64::from_le_bytes(length);
        let available = file_bytes.saturating_sub(8).min(MAX_HEADER_BYTES);
        if length > available {
            return Err(self.broken(&format!("its header claims {length} bytes, expected at most {available}")));
        }
        let mut json = vec![0; length as usize];
        let read = self.file.read_exact(&mut json);
        read.map_err(|error| self.broken(&format!("its header cannot be read: {error}")))?;
        let header: Metadata = serde_json::from_slice(&json)
            .map_err(|error| self.broken(&format!("its header is not what safetensors has: {error}")))?;
        self.data_start = 8 + length;
        let (found, expected) = (file_bytes - self.data_start, header.data_len() as u64);
        if found != expected {
            return Err(self.broken(&format!("holds {found} bytes of tensors, its header says {expected}")));
        }
        for (name, info) in header.tensors() {
            let stored = stored(info).ok_or_else(|| {
                self.broken(&format!("tensor `{name}` is {}, expected F64, F32, F16 or BF16", info.dtype))
            })?;
            self.tensors.insert(name, stored);
        }
        Ok(())
    }

    /// Reads some elements of a tensor into `values`.
    pub(super) fn read(
        &mut self,
        tensor: &StoredTensor,
        first: usize,
        count: usize,
        values: &mut Vec<f64>,
    ) -> Result<(), LoopError> {
        let start = self.data_start + (tensor.start + first * tensor.element_bytes) as u64;
        self.bytes.resize(count * tensor.element_bytes, 0);
        let read = self.file.seek(SeekFrom::Start(start)).and_then(|_| self.file.read_exact(&mut self.bytes));
        read.map_err(|error| LoopError::io("read", &self.path, &error))?;
        values.clear();
        values.extend(self.bytes.chunks_exact(tensor.element_bytes).map(tensor.decode));
        Ok(())
    }

    pub(super) fn broken(&self, why: &str) -> LoopError {
        LoopError::failed(format!("weights `{}`: {why}", self.path.display()))
            .hint("the trainer saves all tensors it trains, as safetensors, at every step that is asked for")
    }
}

fn stored(info: &TensorInfo) -> Option<StoredTensor> {
    let (element_bytes, decode): (usize, Decoder) = match info.dtype {
        Dtype::F64 => (8, |bytes| f64::from_le_bytes(array(bytes))),
        Dtype::F32 => (4, |bytes| f64::from(f32::from_le_bytes(array(bytes)))),
        Dtype::F16 => (2, |bytes| f16_to_f64(u16::from_le_bytes(array(bytes)))),
        Dtype::BF16 => (2, |bytes| f64::from(f32::from_bits(u32::from(u16::from_le_bytes(array(bytes))) << 16))),
        _ => return None,
    };
    Some(StoredTensor {
        dtype: info.dtype,
        shape: info.shape.clone(),
        start: info.data_offsets.0,
        element_bytes,
        decode,
    })
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("chunks of an element each")
}

/// IEEE 754 half precision; exact.
fn f16_to_f64(half: u16) -> f64 {
    let (exponent, fraction) = (i32::from(half >> 10 & 31), f64::from(half & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if half >> 15 == 1 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use safetensors::{serialize, tensor::TensorView};

    /// A file of the format's own crate.
    fn bytes_of(tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
        let views = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
        serialize(views, None).unwrap()
    }

    fn two_tensors() -> Vec<u8> {
        bytes_of(&[("a", Dtype::F32, vec![2, 1], vec![0; 8]), ("b", Dtype::BF16, vec![1], vec![0; 2])])
    }

    /// The numbers of every tensor, in the order of their names, or why there are none.
    fn read_all(bytes: &[u8]) -> Result<Vec<Vec<f64>>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        std::fs::write(&path, bytes).unwrap();
        let mut file = WeightsFile::open(&path).map_err(|error| error.to_string())?;
        let places: Vec<StoredTensor> = file.tensors.values().cloned().collect();
        let numbers = places.iter().map(|place| {
            let mut values = Vec::new();
            file.read(place, 0, place.len(), &mut values).unwrap();
            values
        });
        Ok(numbers.collect())
    }

    #[test]
    fn every_type_is_read() {
        let tensors = [
            ("bf16", Dtype::BF16, vec![2], [0x3f80u16.to_le_bytes(), 0xbfc0u16.to_le_bytes()].concat()),
            ("f16", Dtype::F16, vec![2], [0x3c00u16.to_le_bytes(), 0xbe00u16.to_le_bytes()].concat()),
            ("f32", Dtype::F32, vec![2], [1.0f32.to_le_bytes(), (-1.5f32).to_le_bytes()].concat()),
            ("f64", Dtype::F64, vec![2], [1.0f64.to_le_bytes(), (-1.5f64).to_le_bytes()].concat()),
        ];
        assert_eq!(read_all(&bytes_of(&tensors)), Ok(vec![vec![1.0, -1.5]; 4]));
        let masks = bytes_of(&[("mask", Dtype::U8, vec![1], vec![1])]);
        let error = read_all(&masks).unwrap_err();
        assert!(error.contains("tensor `mask` is U8, expected F64"), "{error}");
    }

    #[test]
    fn every_half_number_is_what_single_precision_makes_of_its_bits() {
        for half in 0..=u16::MAX {
            let (sign, magnitude) = (u32::from(half >> 15) << 31, u32::from(half & 0x7fff));
            // Half's exponent under single's bias is 2⁻¹¹² off; infinities would come out finite.
            let expected = f32::from_bits(sign | magnitude << 13) * 2f32.powi(112);
            let found = f16_to_f64(half);
            match magnitude {
                0x7c00 => assert!(found.is_infinite() && (found < 0.0) == (sign != 0)),
                0x7c01.. => assert!(found.is_nan()),
                _ => assert_eq!(found.to_bits(), f64::from(expected).to_bits(), "{half:#x}"),
            }
        }
    }

    #[test]
    fn files_that_are_not_whole_are_refused() {
        let whole = two_tensors();
        for (bytes, named) in [
            (&whole[..7], "has 7 bytes"),
            (&whole[..whole.len() - 1], "holds 9 bytes of tensors, its header says 10"),
            (&[&whole[..], b"x"].concat(), "holds 11 bytes"),
            (&[0xff; 9], "claims 18446744073709551615 bytes, expected at most 1"),
            (b"\x02\0\0\0\0\0\0\0[]", "not what safetensors has"),
        ] {
            let error = read_all(bytes).unwrap_err();
            assert!(error.contains(named) && error.contains("hint: "), "{error}");
        }
        assert!(WeightsFile::open(Path::new("/absent/weights")).is_err());
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(json in "[ -~]{0,200}", len in 0u64..300) {
            let _ = read_all(&[&len.to_le_bytes()[..], json.as_bytes()].concat());
        }

        #[test]
        fn any_damage_is_refused_or_keeps_the_sizes(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = two_tensors();
            let place = at.index(bytes.len());
            bytes[place] = byte;
            if let Ok(numbers) = read_all(&bytes) {
                let mut lengths: Vec<usize> = numbers.iter().map(Vec::len).collect();
                lengths.sort_unstable();
                prop_assert_eq!(lengths, [1, 2]);
            }
        }
    }
}
