//! Formats that are known but not read: what a file is, and the command that converts it.

use crate::{DataError, data_file::DataFile};

/// What a file is, with its article, and how to convert it; `{}` stands for the file's path.
type Unsupported = (&'static str, &'static str);

/// Formats by the first bytes of their files.
const FORMATS: [(&[u8], &str, &str); 16] = [
    (b"\xFD7zXZ\0", "xz-compressed", "unpack it first: `xz -dk '{}'`"),
    (b"\x04\x22\x4D\x18", "lz4-compressed", "unpack it first: `lz4 -d '{}'`"),
    (b"7z\xBC\xAF\x27\x1C", "a 7z archive", "unpack it first: `7z x '{}'`"),
    (
        b"ARROW1\0",
        "an Arrow file",
        "convert it: `python3 -c \"import pyarrow.feather as f; f.read_feather('{}')[['text']].to_json('data.jsonl', orient='records', lines=True)\"`",
    ),
    (
        b"\xFF\xFF\xFF\xFF",
        "an Arrow stream, as the `datasets` package keeps it",
        "convert it: `python3 -c \"import datasets; datasets.Dataset.from_file('{}').to_json('data.jsonl')\"`",
    ),
    (
        b"\x89HDF\r\n\x1A\n",
        "an HDF5 file",
        "write its text as lines of `{\"text\": …}`, or its tokens as little-endian u16",
    ),
    (
        b"MMIDIDX\0",
        "the index of a Megatron data set",
        "give the `.bin` file beside it, with `--tokenDtype=u16` (or u32)",
    ),
    (b"SQLite format 3\0", "an SQLite database", "write its text as lines of `{\"text\": …}`"),
    (b"\x7FELF", "a program", "`--data` takes text or tokens"),
    (b"\x89PNG", "a picture", "`--data` takes text or tokens"),
    (b"\xFF\xD8\xFF", "a picture", "`--data` takes text or tokens"),
    (b"{\\rtf1", "rich text", "save it as plain text"),
    (b"\x80\x03", "a Python pickle", PICKLE),
    (b"\x80\x04\x95", "a Python pickle", PICKLE),
    (b"\x80\x05\x95", "a Python pickle", PICKLE),
    (b"\x80\x02\x8A\x0Al\xFC\x9CF\xF9 j\xA8P\x19.", "PyTorch weights", PICKLE),
];

/// The start of the pointer that Git LFS leaves in place of a file that it has not fetched.
pub const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

const PICKLE: &str =
    "`--data` takes text or tokens; write tokens from Python with `numpy.asarray(tokens, 'uint16').tofile('data.bin')`";

pub(super) fn error(file: &DataFile, what: &str, hint: &str) -> DataError {
    let hint = hint.replace("{}", &file.path.display().to_string());
    DataError::UnsupportedFormat { path: file.path.clone(), what: what.to_owned(), hint }
}

/// Recognises a file that cannot be read.
pub(super) fn find(file: &DataFile, start: &[u8], may_be_tokens: bool) -> Result<Option<Unsupported>, DataError> {
    if start.starts_with(LFS_POINTER) {
        return Ok(Some(("a Git LFS pointer in place of a file", "fetch the file: `git lfs pull --include='{}'`")));
    }
    if start.starts_with(b"PK\x03\x04") {
        let is_of_torch = start.windows(9).take(256).any(|part| part == b"/data.pkl");
        let zip = ("a zip archive", "unpack it first: `unzip '{}'`");
        return Ok(Some(if is_of_torch { ("PyTorch weights or tensors", PICKLE) } else { zip }));
    }
    if start.get(257..262) == Some(b"ustar") {
        return Ok(Some(("a tar archive", "unpack it first: `tar -xf '{}'`")));
    }
    if is_safetensors(start, file.len()) {
        let hint = "`--data` takes text or tokens; weights go to `--init`, as a folder";
        return Ok(Some(("a safetensors file", hint)));
    }
    if !may_be_tokens && let Some(found) = with_text_signature(file, start)? {
        return Ok(Some(found));
    }
    // Tokens may be any bytes, but they do not match a long signature by chance.
    let is_signature = |magic: &[u8]| !may_be_tokens || magic.len() > 4;
    if let Some((_, what, hint)) = FORMATS.iter().find(|(magic, ..)| start.starts_with(magic) && is_signature(magic)) {
        return Ok(Some((what, hint)));
    }
    Ok(is_pickle(start, file.len()).then_some(("a Python pickle", PICKLE)))
}

/// Formats whose signature is letters. A text may begin with these too, so the bytes that must follow are checked as well.
fn with_text_signature(file: &DataFile, start: &[u8]) -> Result<Option<Unsupported>, DataError> {
    const PARQUET: &[u8] = b"PAR1";
    let ends_with = |signature: &[u8]| -> Result<bool, DataError> {
        let at = file.len().saturating_sub(signature.len() as u64);
        Ok(file.read_up_to(at, signature.len())? == signature)
    };
    Ok(match start {
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', b'&', b'S', b'Y', ..] => {
            Some(("bzip2-compressed", "unpack it first: `bzip2 -dk '{}'`"))
        }
        // A small version number in 32 bits.
        [b'G', b'G', b'U', b'F', 1..=15, 0, 0, 0, ..] => {
            Some(("a GGUF model", "`--data` takes text or tokens; weights go to `--init`, in safetensors"))
        }
        [b'%', b'P', b'D', b'F', b'-', b'1'..=b'9', b'.', b'0'..=b'9', b'\r' | b'\n', ..] => {
            Some(("a PDF", "extract its text: `pdftotext '{}'`"))
        }
        _ if start.starts_with(PARQUET) && file.len() >= 12 && ends_with(PARQUET)? => Some((
            "a Parquet file",
            "convert it: `python3 -c \"import pandas; pandas.read_parquet('{}')[['text']].to_json('data.jsonl', orient='records', lines=True)\"`",
        )),
        _ => None,
    })
}

/// Protocol 4 or 5, then the length of a frame that fits into the file (PEP 3154).
fn is_pickle(start: &[u8], len: u64) -> bool {
    let frame = start.get(3..).and_then(|rest| rest.first_chunk()).map(|bytes| u64::from_le_bytes(*bytes));
    matches!(start, [0x80, 4 | 5, 0x95, ..]) && frame.is_some_and(|frame| frame < len)
}

/// The length of a header that fits into the file, then a JSON object.
fn is_safetensors(start: &[u8], len: u64) -> bool {
    let header = start.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    header.is_some_and(|header| header >= 2 && header < len) && start.get(8..10) == Some(b"{\"")
}

/// The encoding of text in units of two or four bytes, judged by the byte order mark, or because every second byte is zero.
pub(super) fn wide_encoding(start: &[u8]) -> Option<&'static str> {
    for (mark, encoding) in [
        (&b"\xFF\xFE\0\0"[..], "UTF-32"),
        (b"\0\0\xFE\xFF", "UTF-32"),
        (b"\xFF\xFE", "UTF-16"),
        (b"\xFE\xFF", "UTF-16"),
    ] {
        if start.starts_with(mark) {
            return Some(encoding);
        }
    }
    let zeros = |odd: usize| start.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd, half) = (zeros(0), zeros(1), start.len() / 2);
    match half {
        0..4 => None,
        _ if even == 0 && odd * 10 > half * 4 => Some("UTF-16LE"),
        _ if odd == 0 && even * 10 > half * 4 => Some("UTF-16BE"),
        _ => None,
    }
}
