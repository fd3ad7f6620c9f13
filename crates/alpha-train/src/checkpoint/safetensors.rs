//! The safetensors format, read and written a chunk at a time.
//!
//! A file is 8 bytes of header length (little endian), a JSON header, and the tensors' bytes
//! without gaps. Offsets in the header count from the end of the header. Files are read with
//! ordinary reads rather than a memory map, so that one that shrinks meanwhile is an error and
//! not a signal.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::error::TrainError;

/// Elements that are in memory at a time.
pub const CHUNK: usize = 1 << 16;

/// Headers longer than this are refused, as the format's own reader does.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// What the header says of one tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorInfo {
    /// Element type, `F32`, `BF16` …
    pub dtype: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// First byte and the byte after the last, counted from the end of the header.
    pub data_offsets: (usize, usize),
}

/// A checked header: every tensor lies inside the file, none overlap, and each is as long as its
/// shape and element type say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Free text.
    #[serde(rename = "__metadata__", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// The tensors, by name.
    #[serde(flatten)]
    pub tensors: BTreeMap<String, TensorInfo>,
}

/// Bytes of one element.
fn element_bytes(dtype: &str) -> Option<usize> {
    Some(match dtype {
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => 1,
        "U16" | "I16" | "F16" | "BF16" => 2,
        "U32" | "I32" | "F32" => 4,
        "U64" | "I64" | "F64" | "C64" => 8,
        _ => return None,
    })
}

/// What is wrong with a file's header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The file ends before the header.
    #[error("{0} bytes, expected at least 8")]
    TooShort(u64),
    /// Git LFS has not fetched the file.
    #[error("it is a Git LFS pointer in place of the file: `git lfs pull` fetches it")]
    LfsPointer,
    /// The header is longer than the file, or than any header may be.
    #[error("its header claims {claimed} bytes, expected at most {available}")]
    TooLong {
        /// What the file says.
        claimed: u64,
        /// What is left of the file, or the limit.
        available: u64,
    },
    /// The operating system refused.
    #[error("its header cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// The header is not an object.
    #[error("its header does not begin with `{{`")]
    NotAnObject,
    /// The header is not JSON, or has other keys.
    #[error("its header is not what safetensors has: {0}")]
    Json(#[from] serde_json::Error),
    /// What the header says of one tensor cannot be.
    #[error("tensor `{name}` {problem}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        problem: TensorError,
    },
    /// The file is longer or shorter than its tensors.
    #[error("it holds {found} bytes of tensors, its header says {expected}")]
    Length {
        /// Bytes after the header.
        found: u64,
        /// Where the last tensor ends.
        expected: usize,
    },
}

/// What is wrong with a tensor of a header.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum TensorError {
    #[error("has unknown dtype `{0}`")]
    Dtype(String),
    #[error("of shape {0:?} is too large")]
    TooLarge(Vec<usize>),
    #[error("begins at byte {start}, expected {expected}")]
    Start { start: usize, expected: usize },
    #[error("is at bytes {} to {}, but {} of shape {:?} needs {bytes}", info.data_offsets.0, info.data_offsets.1, info.dtype, info.shape)]
    Length { info: TensorInfo, bytes: usize },
}

impl TensorInfo {
    /// Checks a tensor that is to begin at byte `expected`; returns the byte after its last.
    fn check(&self, expected: usize) -> Result<usize, TensorError> {
        let bytes = element_bytes(&self.dtype).ok_or_else(|| TensorError::Dtype(self.dtype.clone()))?;
        let bytes = self.shape.iter().try_fold(bytes, |bytes, &dim| bytes.checked_mul(dim));
        let bytes = bytes.ok_or_else(|| TensorError::TooLarge(self.shape.clone()))?;
        let (start, end) = self.data_offsets;
        if start != expected {
            return Err(TensorError::Start { start, expected });
        }
        if end.checked_sub(start) != Some(bytes) {
            return Err(TensorError::Length { info: self.clone(), bytes });
        }
        Ok(end)
    }
}

impl Header {
    /// Reads and checks the header of a file of `file_bytes` bytes. Returns it with the byte at which the tensors begin.
    pub fn read(input: &mut impl Read, file_bytes: u64) -> Result<(Header, u64), HeaderError> {
        let mut length = [0; 8];
        input.read_exact(&mut length).map_err(|_| HeaderError::TooShort(file_bytes))?;
        if length == alpha_data::LFS_POINTER[..8] {
            return Err(HeaderError::LfsPointer);
        }
        let claimed = u64::from_le_bytes(length);
        let available = file_bytes.saturating_sub(8).min(MAX_HEADER_BYTES);
        if claimed > available {
            return Err(HeaderError::TooLong { claimed, available });
        }
        let mut json = vec![0; claimed as usize];
        input.read_exact(&mut json)?;
        if json.first() != Some(&b'{') {
            return Err(HeaderError::NotAnObject);
        }
        let header: Header = serde_json::from_slice(&json)?;
        header.check(file_bytes - 8 - claimed)?;
        Ok((header, 8 + claimed))
    }

    fn check(&self, data_bytes: u64) -> Result<(), HeaderError> {
        let mut tensors: Vec<(&String, &TensorInfo)> = self.tensors.iter().collect();
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        let mut end = 0;
        for (name, info) in tensors {
            end = info.check(end).map_err(|problem| HeaderError::Tensor { name: name.clone(), problem })?;
        }
        if end as u64 != data_bytes {
            return Err(HeaderError::Length { found: data_bytes, expected: end });
        }
        Ok(())
    }
}

/// An open file whose header has been checked.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    file: File,
    header: Header,
    data_start: u64,
    bytes: Vec<u8>,
}

impl SafetensorsFile {
    /// Opens a file and checks its header.
    pub fn open(path: &Path) -> Result<SafetensorsFile, TrainError> {
        let mut file = File::open(path).map_err(|source| TrainError::io("open", path, source))?;
        let metadata = file.metadata().map_err(|source| TrainError::io("read", path, source))?;
        if !metadata.is_file() {
            return Err(TrainError::broken(path, "it is not a file"));
        }
        let (header, data_start) =
            Header::read(&mut file, metadata.len()).map_err(|why| TrainError::broken(path, why))?;
        Ok(SafetensorsFile { path: path.into(), file, header, data_start, bytes: Vec::new() })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads the first `len` elements of a tensor as f32, a chunk at a time; `take` gets the number
    /// of the first element of each chunk. The tensor must be in the file and that long.
    pub fn read_f32(
        &mut self,
        name: &str,
        len: usize,
        mut take: impl FnMut(usize, &[f32]) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let info = &self.header.tensors[name];
        let decode = decoder(&info.dtype).ok_or_else(|| TrainError::TensorDtype {
            path: self.path.clone(),
            tensor: name.into(),
            found: info.dtype.clone(),
            expected: "`F32`, `F16` or `BF16`",
        })?;
        let element_bytes = if info.dtype == "F32" { 4 } else { 2 };
        let start = self.data_start + info.data_offsets.0 as u64;
        self.file.seek(SeekFrom::Start(start)).map_err(|source| TrainError::io("read", &self.path, source))?;
        let mut values = vec![0.0; CHUNK.min(len)];
        for first in (0..len).step_by(CHUNK) {
            let values = &mut values[..CHUNK.min(len - first)];
            self.bytes.resize(values.len() * element_bytes, 0);
            self.file.read_exact(&mut self.bytes).map_err(|source| TrainError::io("read", &self.path, source))?;
            decode(&self.bytes, values);
            take(first, values)?;
        }
        Ok(())
    }
}

/// Turns the bytes of elements into numbers.
type Decoder = fn(&[u8], &mut [f32]);

fn decoder(dtype: &str) -> Option<Decoder> {
    Some(match dtype {
        "F32" => |bytes, out| {
            for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                *out = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        },
        "F16" => |bytes, out| {
            for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *out = f16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]));
            }
        },
        "BF16" => |bytes, out| {
            for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *out = f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16);
            }
        },
        _ => return None,
    })
}

/// IEEE 754 half precision to single; exact.
fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half >> 15) << 31;
    let magnitude = u32::from(half & 0x7fff);
    if magnitude >= 0x7c00 {
        return f32::from_bits(sign | 0x7f80_0000 | (magnitude & 0x3ff) << 13); // infinite or not a number
    }
    // With the exponent's bias still that of half precision the value is 2⁻¹¹² of what it should
    // be; the product is exact, subnormal numbers included.
    f32::from_bits(sign | magnitude << 13) * f32::from_bits((127 + 112) << 23)
}

/// A tensor to be written: its name and dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name.
    pub name: String,
    /// Dimensions.
    pub dims: Vec<usize>,
}

/// Writes f32 tensors, in the order given. `fill(index, first, values)` is asked for the elements
/// of tensor number `index` from element `first` on.
pub fn write_f32(
    out: &mut dyn Write,
    metadata: BTreeMap<String, String>,
    tensors: &[TensorSpec],
    mut fill: impl FnMut(usize, usize, &mut [f32]) -> io::Result<()>,
) -> io::Result<()> {
    let mut header = Header { metadata: Some(metadata), tensors: BTreeMap::new() };
    let mut end = 0;
    for spec in tensors {
        let start = end;
        end += spec.dims.iter().product::<usize>() * 4;
        let info = TensorInfo { dtype: "F32".into(), shape: spec.dims.clone(), data_offsets: (start, end) };
        header.tensors.insert(spec.name.clone(), info);
    }
    let mut json = serde_json::to_vec(&header)?;
    json.resize(json.len().next_multiple_of(8), b' ');
    out.write_all(&(json.len() as u64).to_le_bytes())?;
    out.write_all(&json)?;
    let mut values = vec![0.0; CHUNK];
    let mut bytes = Vec::with_capacity(CHUNK * 4);
    for (index, spec) in tensors.iter().enumerate() {
        let len: usize = spec.dims.iter().product();
        for first in (0..len).step_by(CHUNK) {
            let values = &mut values[..CHUNK.min(len - first)];
            fill(index, first, values)?;
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            out.write_all(&bytes)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "the conversion is exact")]
    fn every_half_number_has_the_value_that_its_bits_say() {
        for bits in 0..=u16::MAX {
            let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff) / 1024.0);
            let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
            let found = f64::from(f16_to_f32(bits));
            match (exponent, bits & 0x3ff) {
                (31, 0) => assert_eq!(found, sign * f64::INFINITY),
                (31, _) => assert!(found.is_nan()),
                (0, _) => assert_eq!(found, sign * fraction * 2f64.powi(-14)),
                _ => assert_eq!(found, sign * (1.0 + fraction) * 2f64.powi(exponent - 15)),
            }
        }
    }
}
