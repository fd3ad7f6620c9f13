//! From what stands after `--data=` to a list of files of one kind.
//!
//! A file is taken as it is; a folder means the files directly in it, hidden ones left out; all
//! else is a glob. Files are sorted by path. The kind comes from the content (an llm.c magic),
//! then from the name (`.jsonl`, `.ndjson`), and is text otherwise. With a token type given,
//! files without a magic are headerless tokens.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use crate::{DataError, TokenDtype, shard};

/// Files of one kind, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// UTF-8 text; several files are several documents.
    Text(Vec<PathBuf>),
    /// One `{"text": …}` a line, each a document.
    Jsonl(Vec<PathBuf>),
    /// Tokens: llm.c's format, or headerless.
    Shards(Vec<PathBuf>),
}

impl Source {
    /// Finds the files and their kind.
    pub fn resolve(data: &str, token_dtype: Option<TokenDtype>) -> Result<Source, DataError> {
        let paths = find_files(data)?;
        let mut kinds = Vec::with_capacity(paths.len());
        for path in &paths {
            kinds.push(kind_of(path, token_dtype)?);
        }
        if let Some(other) = kinds.iter().position(|kind| *kind != kinds[0]) {
            return Err(DataError::MixedKinds {
                first: paths[0].clone(),
                first_kind: kinds[0].name(),
                other: paths[other].clone(),
                other_kind: kinds[other].name(),
            });
        }
        Ok(match kinds[0] {
            FileKind::Text => Source::Text(paths),
            FileKind::Jsonl => Source::Jsonl(paths),
            FileKind::Shard => Source::Shards(paths),
        })
    }

    /// The files.
    pub fn paths(&self) -> &[PathBuf] {
        match self {
            Source::Text(paths) | Source::Jsonl(paths) | Source::Shards(paths) => paths,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FileKind {
    Text,
    Jsonl,
    Shard,
}

impl FileKind {
    fn name(self) -> &'static str {
        match self {
            FileKind::Text => "text",
            FileKind::Jsonl => "jsonl",
            FileKind::Shard => "a token shard",
        }
    }
}

fn find_files(data: &str) -> Result<Vec<PathBuf>, DataError> {
    let path = Path::new(data);
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut paths = Vec::new();
    if path.is_dir() {
        let read_error = |source| DataError::io("read", path, source);
        for entry in fs::read_dir(path).map_err(read_error)? {
            let entry = entry.map_err(read_error)?;
            if entry.path().is_file() && !entry.file_name().as_encoded_bytes().starts_with(b".") {
                paths.push(entry.path());
            }
        }
    } else if !data.contains(['*', '?', '[']) {
        return Err(DataError::Missing { path: path.to_owned() });
    } else {
        let matches = glob::glob(data)
            .map_err(|error| DataError::BadGlob { pattern: data.to_owned(), why: error.msg.to_owned() })?;
        for entry in matches {
            let entry = entry.map_err(|error| {
                let path = error.path().to_owned();
                DataError::Io { doing: "read", path, source: error.into() }
            })?;
            if entry.is_file() {
                paths.push(entry);
            }
        }
    }
    if paths.is_empty() {
        return Err(DataError::NoFiles { pattern: data.to_owned() });
    }
    paths.sort();
    Ok(paths)
}

fn kind_of(path: &Path, token_dtype: Option<TokenDtype>) -> Result<FileKind, DataError> {
    let read_error = |source| DataError::io("read", path, source);
    let mut start = Vec::with_capacity(4);
    File::open(path).map_err(read_error)?.take(4).read_to_end(&mut start).map_err(read_error)?;
    if start.is_empty() {
        return Err(DataError::Empty { path: path.to_owned() });
    }
    if token_dtype.is_some() || shard::has_magic(&start) {
        return Ok(FileKind::Shard);
    }
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("").to_ascii_lowercase();
    match extension.as_str() {
        "jsonl" | "ndjson" => Ok(FileKind::Jsonl),
        "bin" => Err(DataError::NoHeader { path: path.to_owned() }),
        _ => Ok(FileKind::Text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn resolve(folder: &tempfile::TempDir, rest: &str) -> Result<Source, DataError> {
        Source::resolve(folder.path().join(rest).to_str().unwrap(), None)
    }

    #[test]
    fn folders_and_globs_give_sorted_files() {
        let folder = folder(&[("b.txt", b"b"), ("a.txt", b"a"), (".hidden", b"x"), ("c.jsonl", b"{}")]);
        let expected = ["a.txt", "b.txt"].map(|name| folder.path().join(name)).to_vec();
        assert_eq!(resolve(&folder, "*.txt").unwrap(), Source::Text(expected));
        assert!(matches!(resolve(&folder, "c.jsonl").unwrap(), Source::Jsonl(_)));
        assert!(matches!(resolve(&folder, "."), Err(DataError::MixedKinds { .. })));
    }

    #[test]
    fn magic_beats_the_name() {
        let folder = folder(&[("x.txt", &20_240_520u32.to_le_bytes()), ("y.bin", b"1234")]);
        assert!(matches!(resolve(&folder, "x.txt").unwrap(), Source::Shards(_)));
        assert!(matches!(resolve(&folder, "y.bin"), Err(DataError::NoHeader { .. })));
        let path = folder.path().join("y.bin");
        let headerless = Source::resolve(path.to_str().unwrap(), Some(TokenDtype::U16)).unwrap();
        assert_eq!(headerless, Source::Shards(vec![path]));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let folder = folder(&[("empty.txt", b"")]);
        fs::create_dir(folder.path().join("nothing")).unwrap();
        assert!(matches!(resolve(&folder, "gone.txt"), Err(DataError::Missing { .. })));
        assert!(matches!(resolve(&folder, "*.md"), Err(DataError::NoFiles { .. })));
        assert!(matches!(resolve(&folder, "nothing"), Err(DataError::NoFiles { .. })));
        assert!(matches!(resolve(&folder, "empty.txt"), Err(DataError::Empty { .. })));
        assert!(matches!(resolve(&folder, "a**b/["), Err(DataError::BadGlob { .. })));
    }
}
