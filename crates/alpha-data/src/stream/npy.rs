//! Tokens in numpy's format (`.npy`): one dimension of little-endian integers of two or four bytes.
//!
//! The documentation of `numpy.lib.format` describes it: magic, version, length of the header, then a Python literal such as
//! `{'descr': '<u2', 'fortran_order': False, 'shape': (1000,), }`, then the elements.

use crate::{DataError, TokenDtype, data_file::DataFile};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Headers may not be longer. Those that numpy writes are seldom longer than 128 bytes.
const MAX_HEADER_BYTES: u32 = 1 << 16;

/// Where the tokens are in a file, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Array {
    pub(crate) start: u64,
    pub(crate) count: u64,
    pub(crate) dtype: TokenDtype,
}

/// Whether a file begins with numpy's magic.
pub(crate) fn has_magic(start: &[u8]) -> bool {
    start.starts_with(MAGIC)
}

/// Reads the header of a file that begins with the magic.
pub(crate) fn open(file: &DataFile) -> Result<Array, DataError> {
    let broken = |why: String| DataError::ShardHeader { path: file.path.clone(), why };
    let unusable = |what: String| DataError::UnsupportedFormat {
        path: file.path.clone(),
        what,
        hint: format!(
            "convert it: `python3 -c \"import numpy as n; n.save('tokens.npy', n.load('{}').reshape(-1).astype('uint16'))\"` \
             (`uint32` for vocabularies of more than 65536)",
            file.path.display()
        ),
    };
    let prefix = file.read_up_to(0, 12)?;
    let (header_start, header_bytes) = match prefix.get(6) {
        Some(1) if prefix.len() >= 10 => (10, u32::from(u16::from_le_bytes([prefix[8], prefix[9]]))),
        Some(2 | 3) if prefix.len() == 12 => (12, u32::from_le_bytes([prefix[8], prefix[9], prefix[10], prefix[11]])),
        Some(version) if prefix.len() >= 10 => {
            return Err(broken(format!("version {version} of numpy's format, expected 1 to 3")));
        }
        _ => return Err(broken("it ends within its first bytes".to_owned())),
    };
    if header_bytes > MAX_HEADER_BYTES {
        return Err(broken(format!("its header has {header_bytes} bytes, expected at most {MAX_HEADER_BYTES}")));
    }
    let header = file.read_up_to(header_start, header_bytes as usize)?;
    let header = str::from_utf8(&header).map_err(|_| broken("its header is not text".to_owned()))?;
    let field = |name: &str| {
        let after = header.split_once(&format!("'{name}':"))?.1.trim_start();
        let end = if after.starts_with('(') { after.find(')')? + 1 } else { after.find([',', '}'])? };
        Some(after[..end].trim())
    };
    let missing = |name: &str| broken(format!("its header has no `{name}`"));
    let descr = field("descr").ok_or_else(|| missing("descr"))?.trim_matches('\'');
    let shape = field("shape").ok_or_else(|| missing("shape"))?;
    let dtype = match descr {
        "<u2" => TokenDtype::U16,
        // A negative i32 becomes an id that is outside every vocabulary.
        "<u4" | "<i4" => TokenDtype::U32,
        other => return Err(unusable(format!("a numpy array of `{other}`, where u16 or u32 tokens are expected"))),
    };
    let sizes: Option<Vec<u64>> = shape
        .trim_matches(['(', ')'])
        .split(',')
        .map(str::trim)
        .filter(|size| !size.is_empty())
        .map(|size| size.parse().ok())
        .collect();
    let count = match sizes.as_deref() {
        Some([count]) => *count,
        Some(_) => return Err(unusable(format!("a numpy array of shape {shape}, where one dimension is expected"))),
        None => return Err(broken(format!("its shape `{shape}` does not parse"))),
    };
    let start = header_start + u64::from(header_bytes);
    let held = file.len().saturating_sub(start) / dtype.bytes() as u64;
    if held != count {
        return Err(DataError::ShardLength { path: file.path.clone(), declared: count, held });
    }
    Ok(Array { start, count, dtype })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(version: u8, header: &str, tail: &[u8]) -> DataFile {
        let mut bytes = [MAGIC, &[version, 0]].concat();
        match version {
            1 => bytes.extend((header.len() as u16).to_le_bytes()),
            _ => bytes.extend((header.len() as u32).to_le_bytes()),
        }
        bytes.extend(header.as_bytes());
        bytes.extend(tail);
        DataFile::in_memory("x.npy".into(), bytes)
    }

    #[test]
    fn headers_as_numpy_writes_them() {
        // `numpy.save` wrote this for `numpy.array([1, 2, 3], 'uint16')`, in versions 1 and 2.
        let header = format!("{:<117}\n", "{'descr': '<u2', 'fortran_order': False, 'shape': (3,), }");
        let found = open(&npy(1, &header, &[1, 0, 2, 0, 3, 0])).unwrap();
        assert_eq!(found, Array { start: 128, count: 3, dtype: TokenDtype::U16 });
        let found = open(&npy(2, &header.replace("<u2", "<u4").replace("(3,)", "(1,)"), &[1, 0, 0, 0])).unwrap();
        assert_eq!(found, Array { start: 130, count: 1, dtype: TokenDtype::U32 });
    }

    #[test]
    fn other_arrays_are_refused() {
        for (header, tail, expected) in [
            ("{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }", 8, "array of `<i8`"),
            ("{'descr': '>u2', 'fortran_order': False, 'shape': (1,), }", 2, "array of `>u2`"),
            ("{'descr': '<u2', 'fortran_order': False, 'shape': (2, 1), }", 4, "shape (2, 1)"),
            ("{'descr': '<u2', 'fortran_order': False, 'shape': (), }", 2, "shape ()"),
            ("{'descr': '<u2', 'fortran_order': False, 'shape': (9,), }", 4, "says 9 tokens, but holds 2"),
            ("{'descr': '<u2', 'shape': (-1,), }", 4, "does not parse"),
            ("{'shape': (1,)}", 2, "no `descr`"),
            ("{'descr': '<u2'}", 2, "no `shape`"),
        ] {
            let message = open(&npy(1, header, &vec![0; tail])).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert!(open(&DataFile::in_memory("x".into(), b"\x93NUMPY\x01".to_vec())).is_err());
        assert!(open(&npy(9, "{}", &[])).is_err());
    }
}
