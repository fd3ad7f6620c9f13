//! From the value of `--data` to a list of files of one kind.
//!
//! `listing` finds the files, `format` finds their kind, and compressed files are unpacked, so that later stages read plain
//! bytes.

mod listing;
mod unpack;
pub(crate) mod jsonl;
mod unsupported;
mod format;

pub(crate) use self::format::BYTE_ORDER_MARK;
pub use self::{listing::is_there, unsupported::LFS_POINTER};

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::{format::Format, listing::Listing, unpack::Unpacked};
use crate::{DataError, TokenDtype, Work, data_file::DataFile};

/// Files of one kind, sorted by path.
#[derive(Clone, Debug)]
pub enum Source {
    /// UTF-8 text. If there are several files, each is a document.
    Text(Vec<SourceFile>),
    /// One `{"text": …}` per line; each is a document.
    Jsonl(Vec<SourceFile>),
    /// Tokens in llm.c's format, in numpy's format, or headerless.
    Shards(Vec<SourceFile>),
}

/// A file of a source.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// The path as the user gave it.
    pub(crate) path: PathBuf,
    /// Where the bytes are; for a compressed file, in the cache.
    pub(crate) stored: PathBuf,
    /// Where the bytes are if they are in a file without a name.
    pub(crate) unnamed: Option<Arc<File>>,
}

impl SourceFile {
    pub(crate) fn open(&self) -> Result<DataFile, DataError> {
        match &self.unnamed {
            Some(file) => DataFile::shared(file.clone(), &self.path),
            None => DataFile::open_at(&self.stored, &self.path),
        }
    }
}

impl Source {
    /// Finds the files and their kind, and unpacks compressed files. Warns about files that are left out.
    pub fn resolve(
        data: &str,
        token_dtype: Option<TokenDtype>,
        work: &Work<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Source, DataError> {
        let listing = Listing::of(data)?;
        let mut files = Vec::with_capacity(listing.files.len());
        let mut kinds = Vec::with_capacity(listing.files.len());
        let mut json_warnings = Vec::new();
        for path in &listing.files {
            let (file, kind) = open(path, token_dtype, work, warnings)?;
            if kind == FileKind::Text {
                json_warnings.extend(format::json_warning(&file.open()?)?);
            }
            files.push(file);
            kinds.push(kind);
        }
        match json_warnings.as_slice() {
            [] => {}
            [one] => warnings.push(one.clone()),
            [first, others @ ..] => warnings.push(format!("{first} (and {} more files)", others.len())),
        }
        if let Some(other) = kinds.iter().position(|kind| *kind != kinds[0]) {
            return Err(DataError::MixedKinds {
                first: listing.files[0].clone(),
                first_kind: kinds[0].name(),
                other: listing.files[other].clone(),
                other_kind: kinds[other].name(),
            });
        }
        warnings.extend(validation_among(data, &listing.files));
        if let Some(note) = listing.note() {
            let read = match files.as_slice() {
                [only] => format!("only `{}` is read", only.path.display()),
                files => format!("{} files are read", files.len()),
            };
            warnings.push(format!("`{data}`: {read}, as {}; {note}", kinds[0].name()));
        }
        Ok(match kinds[0] {
            FileKind::Text => Source::Text(files),
            FileKind::Jsonl => Source::Jsonl(files),
            FileKind::Shard => Source::Shards(files),
        })
    }

    /// Their paths, as the user gave them.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files().iter().map(|file| file.path.clone()).collect()
    }

    /// The files.
    pub fn files(&self) -> &[SourceFile] {
        match self {
            Source::Text(files) | Source::Jsonl(files) | Source::Shards(files) => files,
        }
    }
}

/// The warning for a file whose name says that it is held out, among others whose names do not.
fn validation_among(data: &str, files: &[PathBuf]) -> Option<String> {
    let is_held_out = |path: &&PathBuf| {
        let stem = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_ascii_lowercase();
        stem.split(|char: char| !char.is_ascii_alphabetic())
            .any(|word| matches!(word, "val" | "valid" | "validation" | "test"))
    };
    let held_out = files.iter().find(is_held_out).filter(|_| !files.iter().all(|path| is_held_out(&path)))?;
    Some(format!(
        "`{data}` takes `{}` with the rest; if it is to be held out, name the others with a glob and it with `--valData`",
        held_out.display()
    ))
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
            FileKind::Shard => "token shards",
        }
    }
}

/// A file and its kind, unpacked as often as it is compressed.
fn open(
    path: &Path,
    token_dtype: Option<TokenDtype>,
    work: &Work<'_>,
    warnings: &mut Vec<String>,
) -> Result<(SourceFile, FileKind), DataError> {
    let mut found = SourceFile { path: path.to_owned(), stored: path.to_owned(), unnamed: None };
    let mut name = path.to_owned();
    loop {
        let file = found.open()?;
        let compression = match format::recognise(&file, &name, token_dtype)? {
            Format::Text => return Ok((found, FileKind::Text)),
            Format::Jsonl => return Ok((found, FileKind::Jsonl)),
            Format::Shard => return Ok((found, FileKind::Shard)),
            Format::Compressed(compression) => compression,
        };
        // `docs.jsonl.gz` holds `docs.jsonl`.
        name.set_extension("");
        match unpack::unpack(&file, compression, work, warnings)? {
            Unpacked::At(stored) => found = SourceFile { stored, unnamed: None, ..found },
            Unpacked::Unnamed(held) => found.unnamed = Some(held),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn resolve(
        folder: &tempfile::TempDir,
        rest: &str,
        dtype: Option<TokenDtype>,
    ) -> Result<(Source, Vec<String>), DataError> {
        let mut warnings = Vec::new();
        let data = folder.path().join(rest);
        Source::resolve(data.to_str().unwrap(), dtype, &Work::default(), &mut warnings).map(|source| (source, warnings))
    }

    fn names(source: &Source) -> Vec<&str> {
        source.files().iter().map(|file| file.path.file_name().unwrap().to_str().unwrap()).collect()
    }

    #[test]
    fn folders_and_globs_give_sorted_files_of_one_kind() {
        let folder = folder(&[("b.txt", b"b"), ("a.txt", b"a"), (".hidden", b"x"), ("c.jsonl", b"{}")]);
        let (source, warnings) = resolve(&folder, "*.txt", None).unwrap();
        assert!(matches!(source, Source::Text(_)) && warnings.is_empty());
        assert_eq!(names(&source), ["a.txt", "b.txt"]);
        assert!(matches!(resolve(&folder, "c.jsonl", None).unwrap().0, Source::Jsonl(_)));
        assert!(matches!(resolve(&folder, ".", None), Err(DataError::MixedKinds { .. })));
    }

    #[test]
    fn what_a_folder_leaves_out_is_a_warning() {
        let folder = folder(&[("README.md", b"read me")]);
        fs::create_dir(folder.path().join("docs")).unwrap();
        let (source, warnings) = resolve(&folder, "", None).unwrap();
        assert_eq!(names(&source), ["README.md"]);
        let expected = ["README.md` is read, as text; left out: `", "docs` (a folder)"];
        assert!(expected.iter().all(|part| warnings[0].contains(part)), "{warnings:?}");
    }

    #[test]
    fn files_that_are_held_out_by_name_are_pointed_out() {
        let folder = folder(&[("train_0.txt", b"a"), ("val_0.txt", b"b"), ("value.txt", b"c")]);
        let (_, warnings) = resolve(&folder, "*.txt", None).unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains("val_0.txt` with the rest"), "{warnings:?}");
        assert!(resolve(&folder, "val_*.txt", None).unwrap().1.is_empty());
        assert!(resolve(&folder, "*u*.txt", None).unwrap().1.is_empty());
    }

    #[test]
    fn magic_beats_the_name() {
        let folder = folder(&[("x.txt", &20_240_520u32.to_le_bytes()), ("y.bin", b"1234")]);
        assert!(matches!(resolve(&folder, "x.txt", None).unwrap().0, Source::Shards(_)));
        assert!(matches!(resolve(&folder, "y.bin", None), Err(DataError::NoHeader { .. })));
        assert!(matches!(resolve(&folder, "y.bin", Some(TokenDtype::U16)).unwrap().0, Source::Shards(_)));
    }

    #[test]
    fn what_is_packed_is_read_as_what_it_holds() {
        use std::io::Write as _;
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let twice = gzip(&gzip(b"text"));
        let shard = gzip(b"1234");
        let folder = folder(&[
            ("a.jsonl.gz", &gzip(b"anything")),
            ("b.gz", &gzip(b"{\"text\": \"x\"}")),
            ("c.txt.gz.gz", &twice),
            ("d.bin.gz", &shard),
        ]);
        assert!(matches!(resolve(&folder, "a.jsonl.gz", None).unwrap().0, Source::Jsonl(_)));
        assert!(matches!(resolve(&folder, "b.gz", None).unwrap().0, Source::Jsonl(_)));
        assert!(matches!(resolve(&folder, "c.txt.gz.gz", None).unwrap().0, Source::Text(_)));
        assert!(matches!(resolve(&folder, "d.bin.gz", None), Err(DataError::NoHeader { .. })));
        let (source, _) = resolve(&folder, "d.bin.gz", Some(TokenDtype::U16)).unwrap();
        assert_eq!(source.files()[0].open().unwrap().read_up_to(0, 9).unwrap(), b"1234");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let folder = folder(&[("empty.txt", b"")]);
        fs::create_dir(folder.path().join("nothing")).unwrap();
        assert!(matches!(resolve(&folder, "gone.txt", None), Err(DataError::Missing { .. })));
        assert!(matches!(resolve(&folder, "*.md", None), Err(DataError::NoFiles { .. })));
        assert!(matches!(resolve(&folder, "nothing", None), Err(DataError::NoFiles { .. })));
        assert!(matches!(resolve(&folder, "empty.txt", None), Err(DataError::Empty { .. })));
        assert!(matches!(resolve(&folder, "a**b/[", None), Err(DataError::BadGlob { .. })));
    }
}
