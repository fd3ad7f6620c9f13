//! What a file is, known by its content. The name decides only where content does not: `.jsonl` and `.ndjson` before text,
//! `.bin` without a header.
//!
//! What cannot be read is refused by its name, with the command that makes something readable of it.

use std::path::Path;

use crate::{DataError, TokenDtype, data_file::DataFile, npy, shard};

/// What this crate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// UTF-8, with or without a byte order mark.
    Text,
    /// One `{"text": …}` a line.
    Jsonl,
    /// Tokens: llm.c's format, numpy's, or headerless.
    Shard,
    /// Something readable, packed by gzip or zstd.
    Packed(Packing),
}

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Gzip,
    Zstd,
}

/// U+FEFF in UTF-8: Windows programs begin files with it.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Bytes that a file is recognised by; a JSON line is read further.
const START_BYTES: usize = 4096;
/// Most of a first line that is read to see whether it is JSON.
const LINE_BYTES: usize = 1 << 20;

/// Formats by what files of theirs begin with. `{}` in a command is the file's name.
const FOREIGN: [(&[u8], &str, &str); 20] = [
    (b"\xFD7zXZ\0", "xz-compressed", "unpack it first: `xz -dk '{}'`"),
    (b"BZh", "bzip2-compressed", "unpack it first: `bzip2 -dk '{}'`"),
    (b"\x04\x22\x4D\x18", "lz4-compressed", "unpack it first: `lz4 -d '{}'`"),
    (b"7z\xBC\xAF\x27\x1C", "a 7z archive", "unpack it first: `7z x '{}'`"),
    (
        b"PAR1",
        "a Parquet file",
        "convert it: `python3 -c \"import pandas; pandas.read_parquet('{}')[['text']].to_json('data.jsonl', orient='records', lines=True)\"`",
    ),
    (
        b"ARROW1",
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
    (b"GGUF", "a GGUF model", "`--data` takes text or tokens; weights go to `--init`, in safetensors"),
    (
        b"MMIDIDX\0",
        "the index of a Megatron data set",
        "give the `.bin` file beside it, with `--tokenDtype=u16` (or u32)",
    ),
    (b"SQLite format 3\0", "an SQLite database", "write its text as lines of `{\"text\": …}`"),
    (b"%PDF-", "a PDF", "extract its text: `pdftotext '{}'`"),
    (b"\x7FELF", "a program", "`--data` takes text or tokens"),
    (b"\x89PNG", "a picture", "`--data` takes text or tokens"),
    (b"\xFF\xD8\xFF", "a picture", "`--data` takes text or tokens"),
    (b"{\\rtf", "rich text", "save it as plain text"),
    (b"\x80\x03", "a Python pickle", PICKLE),
    (b"\x80\x04\x95", "a Python pickle", PICKLE),
    (b"\x80\x05\x95", "a Python pickle", PICKLE),
    (b"\x80\x02\x8A\x0Al\xFC\x9CF\xF9 j\xA8P\x19.", "PyTorch weights", PICKLE),
];

const PICKLE: &str =
    "`--data` takes text or tokens; write tokens from Python with `numpy.asarray(tokens, 'uint16').tofile('data.bin')`";

/// What a file is. With a token type given, what has no header of its own is headerless tokens.
pub(crate) fn recognise(file: &DataFile, name: &Path, token_dtype: Option<TokenDtype>) -> Result<Format, DataError> {
    let path = || file.path.clone();
    let foreign = |what: &str, hint: &str| DataError::ForeignFormat {
        path: path(),
        what: what.to_owned(),
        hint: hint.replace("{}", &file.path.display().to_string()),
    };
    let start = file.read_up_to(0, START_BYTES)?;
    if shard::has_magic(&start) || npy::has_magic(&start) {
        return Ok(Format::Shard);
    }
    if is_gzip(&start) {
        return Ok(Format::Packed(Packing::Gzip));
    }
    if is_zstd(&start) {
        return Ok(Format::Packed(Packing::Zstd));
    }
    if start.starts_with(b"PK\x03\x04") {
        let is_of_torch = start.windows(9).take(256).any(|part| part == b"/data.pkl");
        return Err(if is_of_torch {
            foreign("PyTorch weights or tensors", PICKLE)
        } else {
            foreign("a zip archive", "unpack it first: `unzip '{}'`")
        });
    }
    if start.get(257..262) == Some(b"ustar") {
        return Err(foreign("a tar archive", "unpack it first: `tar -xf '{}'`"));
    }
    if is_safetensors(&start, file.len()) {
        return Err(foreign(
            "a safetensors file",
            "`--data` takes text or tokens; weights go to `--init`, as a folder",
        ));
    }
    // Any bytes may be tokens, but for long signs, which no tokens are by chance.
    let is_sign = |magic: &[u8]| token_dtype.is_none() || magic.len() > 4;
    if let Some((_, what, hint)) = FOREIGN.iter().find(|(magic, ..)| start.starts_with(magic) && is_sign(magic)) {
        return Err(foreign(what, hint));
    }
    if is_pickle(&start, file.len()) {
        return Err(foreign("a Python pickle", PICKLE));
    }
    if token_dtype.is_some() {
        return Ok(Format::Shard);
    }
    if let Some(encoding) = wide_text(&start) {
        let hint = format!("convert it: `iconv -f {encoding} -t UTF-8 '{{}}' > data.txt`");
        return Err(foreign(&format!("{encoding} text"), &hint));
    }
    let extension = name.extension().and_then(|extension| extension.to_str()).unwrap_or("").to_ascii_lowercase();
    if extension == "bin" {
        return Err(DataError::NoHeader { path: path() });
    }
    let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&start).trim_ascii_start();
    if is_array_of_documents(text) {
        return Err(foreign("one JSON array", "make a line of each document: `jq -c '.[]' '{}' > data.jsonl`"));
    }
    if matches!(extension.as_str(), "jsonl" | "ndjson") || (text.starts_with(b"{") && first_line_is_document(file)?) {
        return Ok(Format::Jsonl);
    }
    Ok(Format::Text)
}

/// RFC 1952, section 2.3: magic, method 8, no reserved flag.
fn is_gzip(start: &[u8]) -> bool {
    start.starts_with(b"\x1F\x8B\x08") && start.get(3).is_some_and(|flags| flags & 0xE0 == 0)
}

/// RFC 8878, sections 3.1.1 and 3.1.2: a frame, or one that is to be skipped.
fn is_zstd(start: &[u8]) -> bool {
    start.starts_with(b"\x28\xB5\x2F\xFD") || (start.get(1..4) == Some(b"\x2A\x4D\x18") && start[0] & 0xF0 == 0x50)
}

/// Protocol 4 or 5, then a frame that fits the file (PEP 3154).
fn is_pickle(start: &[u8], len: u64) -> bool {
    let frame = start.get(3..).and_then(|rest| rest.first_chunk()).map(|bytes| u64::from_le_bytes(*bytes));
    matches!(start, [0x80, 4 | 5, 0x95, ..]) && frame.is_some_and(|frame| frame < len)
}

/// A length that fits the file, then a JSON object.
fn is_safetensors(start: &[u8], len: u64) -> bool {
    let header = start.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    header.is_some_and(|header| header >= 2 && header < len) && start.get(8..10) == Some(b"{\"")
}

/// The encoding of text in units of two or four bytes: by its byte order mark, or because every second byte is zero.
fn wide_text(start: &[u8]) -> Option<&'static str> {
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

/// `[{"text": …` with any white space, and other keys before it.
fn is_array_of_documents(text: &[u8]) -> bool {
    let first = text.strip_prefix(b"[").map(<[u8]>::trim_ascii_start);
    first.is_some_and(|first| {
        first.starts_with(b"{") && first.windows(7).any(|part| part == b"\"text\":" || part == b"\"text\" ")
    })
}

/// Whether the first line is an object with a string `text`.
fn first_line_is_document(file: &DataFile) -> Result<bool, DataError> {
    let start = file.read_up_to(0, LINE_BYTES)?;
    let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&start).trim_ascii_start();
    let end = text.iter().position(|byte| *byte == b'\n');
    let is_whole = end.is_some() || file.len() <= LINE_BYTES as u64;
    let line = &text[..end.unwrap_or(text.len())];
    if is_whole {
        return Ok(crate::jsonl::document(line).is_ok());
    }
    // Longer than what was read: by its first key.
    Ok(line[1..].trim_ascii_start().starts_with(b"\"text\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recognised(name: &str, bytes: &[u8], dtype: Option<TokenDtype>) -> Result<Format, String> {
        let file = DataFile::owned(name.into(), bytes.to_vec());
        recognise(&file, Path::new(name), dtype).map_err(|error| error.to_string())
    }

    #[test]
    fn content_tells_text_from_json_lines() {
        for (name, bytes, expected) in [
            ("a.txt", &b"plain"[..], Format::Text),
            ("a.json", b"{\"text\": \"one\"}\n{\"text\": \"two\"}\n", Format::Jsonl),
            ("a", b"\xEF\xBB\xBF{\"id\": 1, \"text\": \"one\"}", Format::Jsonl),
            ("a.jsonl", b"anything", Format::Jsonl),
            ("a.txt", b"{ this is prose }\n", Format::Text),
            ("a.json", b"{\"texts\": 3}\n", Format::Text),
            ("a.txt", b"[1] a footnote", Format::Text),
        ] {
            assert_eq!(recognised(name, bytes, None).unwrap(), expected, "{name} {bytes:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_with_a_way_out() {
        let safetensors = [&40u64.to_le_bytes()[..], b"{\"a\":{\"dtype\":\"F32\"}}", &[0; 60]].concat();
        let utf16: Vec<u8> = "hello world, this is wide".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let utf16_be: Vec<u8> = "hello world, this is wide".encode_utf16().flat_map(u16::to_be_bytes).collect();
        let mut tar = vec![b'x'; 600];
        tar[257..262].copy_from_slice(b"ustar");
        for (bytes, what, way_out) in [
            (&b"\xFD7zXZ\0\0\x04"[..], "xz", "xz -dk 'x.dat'"),
            (b"BZh91AY", "bzip2", "bzip2 -dk"),
            (
                b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05\0\0\0a.txt",
                "a zip archive",
                "unzip 'x.dat'",
            ),
            (
                b"PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\0\0\0archive/data.pkl",
                "PyTorch",
                "tofile",
            ),
            (b"PAR1\x15\x04", "Parquet", "read_parquet('x.dat')"),
            (&safetensors, "safetensors", "--init"),
            (b"\x80\x04\x95\x10\0\0\0\0\0\0\0]", "pickle", "tofile"),
            (b"\xFF\xFEh\0i\0", "UTF-16 text", "iconv -f UTF-16 "),
            (&utf16, "UTF-16LE text", "iconv -f UTF-16LE -t UTF-8 'x.dat'"),
            (&utf16_be, "UTF-16BE text", "iconv -f UTF-16BE"),
            (&tar, "tar", "tar -xf"),
            (b"[\n {\"id\": 3, \"text\": \"x\"},", "one JSON array", "jq -c '.[]' 'x.dat'"),
        ] {
            let message = recognised("x.dat", bytes, None).unwrap_err();
            assert!(message.contains(what) && message.contains(way_out), "{message}");
        }
    }

    #[test]
    fn tokens_may_begin_with_any_bytes() {
        for bytes in [&b"BZh91AY1"[..], b"PAR1\0\0", b"{\"text\":\"x\"}", b"\xFF\xFEh\0i\0"] {
            assert_eq!(recognised("x.bin", bytes, Some(TokenDtype::U16)).unwrap(), Format::Shard);
        }
        assert!(recognised("x.bin", b"\xFD7zXZ\0\0\x04", Some(TokenDtype::U16)).is_err());
        assert_eq!(
            recognised("x.bin", b"\x1F\x8B\x08\0\0\0\0\0\0\x03", Some(TokenDtype::U16)).unwrap(),
            Format::Packed(Packing::Gzip)
        );
        assert_eq!(recognised("x.npy", b"\x93NUMPY\x01\0", Some(TokenDtype::U16)).unwrap(), Format::Shard);
        assert!(recognised("x.bin", b"1234", None).unwrap_err().contains("no llm.c header"));
    }
}
