//! What a file is, judged by its content. The name decides only where the content does not: `.jsonl` and `.ndjson` rather than
//! text, `.bin` without a header.

use std::path::Path;

use serde_json::Value;

use super::{
    jsonl,
    unpack::{self, Compression},
    unsupported,
};
use crate::{
    DataError, TokenDtype,
    data_file::DataFile,
    stream::{npy, shard},
};

/// The formats that this crate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// UTF-8, with or without a byte order mark.
    Text,
    /// One `{"text": …}` per line.
    Jsonl,
    /// Tokens in llm.c's format, in numpy's format, or headerless.
    Shard,
    /// Another file, compressed with gzip or zstd.
    Compressed(Compression),
}

/// U+FEFF in UTF-8. Some Windows programs begin files with it.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Bytes of the start of a file by which it is recognised.
const START_BYTES: usize = 4096;
/// At most this much of the first line is read, to see whether it is JSON.
const LINE_BYTES: usize = 1 << 20;

/// What a file is. If a token type is given, a file without a header holds headerless tokens.
pub(crate) fn recognise(file: &DataFile, name: &Path, token_dtype: Option<TokenDtype>) -> Result<Format, DataError> {
    let start = file.read_up_to(0, START_BYTES)?;
    let may_be_tokens = token_dtype.is_some();
    if shard::has_magic(&start) || npy::has_magic(&start) {
        return Ok(Format::Shard);
    }
    if let Some(compression) = compression(&start, may_be_tokens) {
        return Ok(Format::Compressed(compression));
    }
    if let Some((what, hint)) = unsupported::find(file, &start, may_be_tokens)? {
        return Err(unsupported::error(file, what, hint));
    }
    if may_be_tokens {
        return Ok(Format::Shard);
    }
    if let Some(encoding) = unsupported::wide_encoding(&start) {
        let hint = format!("convert it: `iconv -f {encoding} -t UTF-8 '{{}}' > data.txt`");
        return Err(unsupported::error(file, &format!("{encoding} text"), &hint));
    }
    let extension = name.extension().and_then(|extension| extension.to_str()).unwrap_or("").to_ascii_lowercase();
    if extension == "bin" {
        return Err(DataError::NoHeader { path: file.path.clone() });
    }
    let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&start).trim_ascii_start();
    if is_array_of_documents(text) {
        return Err(unsupported::error(
            file,
            "one JSON array",
            "make a line of each document: `jq -c '.[]' '{}' > data.jsonl`",
        ));
    }
    if matches!(extension.as_str(), "jsonl" | "ndjson") || (text.starts_with(b"{") && first_line_is_document(file)?) {
        return Ok(Format::Jsonl);
    }
    Ok(Format::Text)
}

/// How a file is compressed. Tokens may begin with the same bytes, so where there may be tokens, the start must also unpack.
fn compression(start: &[u8], may_be_tokens: bool) -> Option<Compression> {
    let begins = [(Compression::Gzip, is_gzip(start)), (Compression::Zstd, is_zstd(start))];
    let is_compressed = |compression: &Compression| !may_be_tokens || unpack::begins_as(*compression, start);
    begins.into_iter().filter(|(_, has_magic)| *has_magic).map(|(compression, _)| compression).find(is_compressed)
}

/// RFC 1952, section 2.3: magic, method 8, no reserved flags.
fn is_gzip(start: &[u8]) -> bool {
    start.starts_with(b"\x1F\x8B\x08") && start.get(3).is_some_and(|flags| flags & 0xE0 == 0)
}

/// RFC 8878, sections 3.1.1 and 3.1.2: a frame or a skippable frame.
fn is_zstd(start: &[u8]) -> bool {
    start.starts_with(b"\x28\xB5\x2F\xFD") || (start.get(1..4) == Some(b"\x2A\x4D\x18") && start[0] & 0xF0 == 0x50)
}

/// Whether text is a JSON array, and nothing else, whose first element is an object with a `text`.
fn is_array_of_documents(text: &[u8]) -> bool {
    let Some(elements) = text.strip_prefix(b"[").map(<[u8]>::trim_ascii_start) else { return false };
    if !elements.starts_with(b"{") {
        return false;
    }
    let mut values = serde_json::Deserializer::from_slice(elements).into_iter::<Value>();
    match values.next() {
        Some(Ok(first)) => {
            let rest = elements[values.byte_offset()..].trim_ascii_start();
            let goes_on = match rest {
                [b']', after @ ..] => after.trim_ascii_start().is_empty(),
                [b',', ..] | [] => true,
                _ => false,
            };
            goes_on && first.get("text").is_some()
        }
        // The element is longer than the bytes that were read.
        Some(Err(error)) if error.is_eof() => {
            elements.windows(7).any(|part| part == b"\"text\":" || part == b"\"text\" ")
        }
        _ => false,
    }
}

/// The warning for a text file that may not be meant as text, because it looks like JSON.
pub(crate) fn json_warning(file: &DataFile) -> Result<Option<String>, DataError> {
    let start = file.read_up_to(0, START_BYTES)?;
    let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&start).trim_ascii_start();
    if !text.starts_with(b"{") && !text.starts_with(b"[") {
        return Ok(None);
    }
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
    let is_json = match values.next() {
        Some(Ok(value)) => {
            let rest = text[values.byte_offset()..].trim_ascii_start();
            (value.is_object() || value.as_array().is_some_and(|elements| elements.len() > 1))
                && (rest.is_empty() || rest.starts_with(b"{") || rest.starts_with(b"["))
        }
        // The value is longer than the bytes that were read, which are JSON.
        Some(Err(error)) => error.is_eof() && text.starts_with(b"{"),
        None => false,
    };
    Ok(is_json.then(|| {
        format!(
            "`{}` looks like JSON and is read as plain text, brackets and keys included; documents are lines of \
             `{{\"text\": …}}`",
            file.path.display()
        )
    }))
}

/// Whether the first line is an object with a string `text`.
fn first_line_is_document(file: &DataFile) -> Result<bool, DataError> {
    let start = file.read_up_to(0, LINE_BYTES)?;
    let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&start).trim_ascii_start();
    let end = text.iter().position(|byte| *byte == b'\n');
    let is_whole = end.is_some() || file.len() <= LINE_BYTES as u64;
    let line = &text[..end.unwrap_or(text.len())];
    if is_whole {
        return Ok(jsonl::document(line).is_ok());
    }
    // The line is longer than the bytes that were read: judge by its first key.
    Ok(line[1..].trim_ascii_start().starts_with(b"\"text\""))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn json_that_is_read_as_text_is_doubted() {
        let doubted = |bytes: &[u8]| json_warning(&DataFile::in_memory("x".into(), bytes.to_vec())).unwrap().is_some();
        for bytes in [
            &b"{\"content\": \"a\"}\n{\"content\": \"b\"}\n"[..],
            b"[{\"content\": \"a\"}, {\"content\": \"b\"}]",
            b"[\"one\", \"two\"]\n",
            b"{\n  \"text\": \"pretty\"\n}\n",
            b"{\"content\": \"longer than the part that is read",
        ] {
            assert!(doubted(bytes), "{}", String::from_utf8_lossy(bytes));
        }
        for bytes in
            [&b"[1] a footnote"[..], b"{ this is prose }", b"plain", b"[sic] is Latin", b"{\"a\": 1} is an object"]
        {
            assert!(!doubted(bytes), "{}", String::from_utf8_lossy(bytes));
        }
    }

    /// Message and hint.
    fn words(error: &impl miette::Diagnostic) -> String {
        error.help().map_or(error.to_string(), |hint| format!("{error}\nhint: {hint}"))
    }

    fn recognised(name: &str, bytes: &[u8], dtype: Option<TokenDtype>) -> Result<Format, String> {
        let file = DataFile::in_memory(name.into(), bytes.to_vec());
        recognise(&file, Path::new(name), dtype).map_err(|error| words(&error))
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
            // Texts about formats.
            ("a.txt", b"GGUF is a binary format", Format::Text),
            ("a.txt", b"BZhang wrote", Format::Text),
            ("a.txt", b"PAR1 is how a file begins", Format::Text),
            ("a.txt", b"%PDF-1.4 is how another begins", Format::Text),
            ("a.txt", b"ARROW1 too", Format::Text),
            ("a.txt", b"[{\"text\": \"quoted\"}] is what it holds", Format::Text),
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
            (b"BZh91AY&SY\x0C", "bzip2", "bzip2 -dk"),
            (b"GGUF\x03\0\0\0\x10\0", "GGUF", "--init"),
            (b"%PDF-1.4\n%\xE2\xE3", "a PDF", "pdftotext"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n",
                "Git LFS",
                "git lfs pull --include='x.dat'",
            ),
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
            (b"PAR1\x15\x04\x15\x10\x15\x14PAR1", "Parquet", "read_parquet('x.dat')"),
            (&safetensors, "safetensors", "--init"),
            (b"\x80\x04\x95\x10\0\0\0\0\0\0\0]", "pickle", "tofile"),
            (b"\xFF\xFEh\0i\0", "UTF-16 text", "iconv -f UTF-16 "),
            (&utf16, "UTF-16LE text", "iconv -f UTF-16LE -t UTF-8 'x.dat'"),
            (&utf16_be, "UTF-16BE text", "iconv -f UTF-16BE"),
            (&tar, "tar", "tar -xf"),
            (b"[\n {\"id\": 3, \"text\": \"x\"},", "one JSON array", "jq -c '.[]' 'x.dat'"),
            (b"[{\"text\": \"x\"}]\n", "one JSON array", "jq -c"),
            (b"[{\"id\": 3, \"text\": \"x and on", "one JSON array", "jq -c"),
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
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(&[7; 300]).unwrap();
        let packed = packed.finish().unwrap();
        assert_eq!(recognised("x.bin", &packed, Some(TokenDtype::U16)).unwrap(), Format::Compressed(Compression::Gzip));
        // pzstd begins with a frame that is to be skipped.
        let tokens = ruzstd::encoding::compress_to_vec(&[7; 300][..], ruzstd::encoding::CompressionLevel::Fastest);
        let packed = [&b"\x50\x2A\x4D\x18\x04\0\0\0\x20\0\0\0"[..], &tokens].concat();
        assert_eq!(recognised("x.bin", &packed, Some(TokenDtype::U16)).unwrap(), Format::Compressed(Compression::Zstd));
        // The tokens 35615 and 8 begin like gzip; 10832 and 6221 like zstd.
        let tokens = [&b"\x1F\x8B\x08\0"[..], &[0x51; 300]].concat();
        assert_eq!(recognised("x.bin", &tokens, Some(TokenDtype::U16)).unwrap(), Format::Shard);
        let tokens = [&b"\x50\x2A\x4D\x18"[..], &[0x51; 300]].concat();
        assert_eq!(recognised("x.bin", &tokens, Some(TokenDtype::U16)).unwrap(), Format::Shard);
        assert_eq!(recognised("x.npy", b"\x93NUMPY\x01\0", Some(TokenDtype::U16)).unwrap(), Format::Shard);
        assert!(recognised("x.bin", b"1234", None).unwrap_err().contains("no llm.c header"));
    }
}
