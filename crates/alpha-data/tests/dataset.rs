//! From files on disk to batches, as in a trainer: caches, splits, and what is refused.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]

use std::{fs, path::Path};

use alpha_data::{
    BatchShape, Cache, DataError, DataOptions, Dataset, EvalLoader, Kind, TokenDtype, TokenReader, TokenStream,
    TrainLoader, ValSource, Work,
};
use tempfile::TempDir;

const TEXT: &str = "the quick brown fox jumps over the lazy dog\npack my box with five dozen liquor jugs\n";

struct Fixture {
    folder: TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture { folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn cache(&self) -> Cache {
        Cache::in_folder(&self.folder.path().join("cache"))
    }

    fn open(&self, options: &DataOptions) -> Result<Dataset, DataError> {
        Dataset::open(options, &work(&self.cache()))
    }
}

fn work(cache: &Cache) -> Work<'_> {
    Work { cache, ..Work::default() }
}

fn options(data: &str, tokenizer: Option<Kind>) -> DataOptions {
    DataOptions { data: data.to_owned(), tokenizer, block: 8, ..DataOptions::default() }
}

fn all_tokens(stream: &TokenStream) -> Vec<u32> {
    let mut tokens = vec![0; stream.len() as usize];
    stream.read(0, &mut tokens).unwrap();
    tokens
}

/// Message and hint.
fn words(error: &impl miette::Diagnostic) -> String {
    error.help().map_or(error.to_string(), |hint| format!("{error}\nhint: {hint}"))
}

fn shard(tokens: &[u16]) -> Vec<u8> {
    let mut bytes = [20_240_520u32, 1, tokens.len() as u32].map(u32::to_le_bytes).concat();
    bytes.resize(1024, 0);
    bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
    bytes
}

#[test]
fn text_becomes_batches() {
    let fixture = Fixture::new();
    let data = fixture.write("a.txt", TEXT.repeat(4));
    let dataset = fixture.open(&options(&data, Some(Kind::Char))).unwrap();
    let tokenizer = dataset.tokenizer.as_ref().unwrap();
    assert_eq!((dataset.vocab, dataset.val_source), (tokenizer.vocab_size(), ValSource::Split));
    assert_eq!(dataset.train.len() + dataset.val.len(), 4 * TEXT.len() as u64);
    let shape = BatchShape { batch: 2, block: 8 };
    let loader = TrainLoader::random(&dataset.train, shape, 1).unwrap();
    let (mut tokens, mut targets) = ([0; 16], [0; 16]);
    loader.batch(1, 0, &mut tokens, &mut targets).unwrap();
    for (tokens, targets) in tokens.chunks(8).zip(targets.chunks(8)) {
        let row = tokenizer.decode(&[tokens, &targets[7..]].concat()).unwrap();
        assert!(TEXT.repeat(4).contains(&row), "{row:?}");
    }
    assert_eq!(EvalLoader::random(&dataset.val, shape, 3, 1).unwrap().batches(), 3);
}

#[test]
fn a_cache_never_changes_a_result() {
    let fixture = Fixture::new();
    for (data, kind) in [
        (fixture.write("one.txt", TEXT.repeat(9)), Kind::Bpe { vocab: 280 }),
        (fixture.write("docs.jsonl", "{\"text\":\"one two three four\"}\n".repeat(20)), Kind::Word),
        // Cut within a word, with a warning.
        (fixture.write("dna.txt", "acgt".repeat(3 << 20)), Kind::Byte),
    ] {
        let options = options(&data, Some(kind));
        let without = Dataset::open(&options, &Work::default()).unwrap();
        assert_eq!(
            without.warnings.iter().any(|warning| warning.contains("without a space")),
            data.ends_with("dna.txt")
        );
        let cold = fixture.open(&options).unwrap();
        let warm = fixture.open(&options).unwrap();
        for entry in fs::read_dir(fixture.folder.path().join("cache")).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            // A new file, because the old one is still open.
            fs::remove_file(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() - middle % 2]).unwrap();
        }
        let damaged = fixture.open(&options).unwrap();
        for dataset in [&cold, &warm, &damaged] {
            assert_eq!(all_tokens(&dataset.train), all_tokens(&without.train));
            assert_eq!(all_tokens(&dataset.val), all_tokens(&without.val));
            assert_eq!(dataset.tokenizer.as_ref().unwrap().json(), without.tokenizer.as_ref().unwrap().json());
            assert_eq!(dataset.warnings, without.warnings);
        }
    }
}

#[test]
fn an_unwritable_cache_is_a_warning() {
    let fixture = Fixture::new();
    let data = fixture.write("a.txt", TEXT);
    let blocked = fixture.write("file", "");
    let dataset =
        Dataset::open(&options(&data, Some(Kind::Byte)), &work(&Cache::in_folder(Path::new(&blocked)))).unwrap();
    assert_eq!(dataset.warnings.len(), 2);
    assert!(dataset.warnings[0].starts_with("cannot write the cache"));
    assert_eq!(dataset.train.len() + dataset.val.len(), TEXT.len() as u64);
}

#[test]
fn documents_are_split_whole_and_end_in_a_token() {
    let fixture = Fixture::new();
    for document in 0..10 {
        fixture.write(&format!("docs/{document}.txt"), format!("document {document}"));
    }
    let data = fixture.folder.path().join("docs");
    let dataset = fixture.open(&options(data.to_str().unwrap(), Some(Kind::Byte))).unwrap();
    let decode = |stream| dataset.tokenizer.as_ref().unwrap().decode(&all_tokens(stream)).unwrap();
    assert_eq!(decode(&dataset.val), "document 9<|endoftext|>");
    assert!(decode(&dataset.train).ends_with("document 8<|endoftext|>"));
}

#[test]
fn artifacts_are_written_once_then_used() {
    let fixture = Fixture::new();
    let data = fixture.write("a.txt", TEXT);
    let artifacts = fixture.folder.path().join("deep/tokenizer.json");
    let mut options = options(&data, Some(Kind::Char));
    options.tokenizer_artifacts = Some(artifacts.clone());
    let built = fixture.open(&options).unwrap();
    assert_eq!(fs::read(&artifacts).unwrap(), built.tokenizer.unwrap().json());
    options.tokenizer = Some(Kind::Byte);
    let used = fixture.open(&options).unwrap();
    assert_eq!(used.vocab, built.vocab, "the file counts, not the flag");
    assert!(used.warnings[0].ends_with("is used, which is not what `--tokenizer=byte` names"), "{:?}", used.warnings);
    fs::write(&artifacts, "{").unwrap();
    assert!(matches!(fixture.open(&options), Err(DataError::TokenizerFile { .. })));
    options.tokenizer = Some(Kind::Bpe { vocab: 300 });
    fs::remove_file(&artifacts).unwrap();
    fixture.open(&options).unwrap();
    options.tokenizer = Some(Kind::Bpe { vocab: 4096 });
    let smaller = fixture.open(&options).unwrap();
    let words = format!("tokens, and `--tokenizer={}` asks for 4096", Kind::Bpe { vocab: 4096 });
    assert!(smaller.warnings[0].ends_with(&words), "{:?}", smaller.warnings);
}

#[test]
fn val_data_goes_through_the_same_tokenizer() {
    let fixture = Fixture::new();
    let mut options = options(&fixture.write("a.txt", TEXT), Some(Kind::Char));
    options.val_data = Some(fixture.write("val.txt", "dog and fox"));
    let dataset = fixture.open(&options).unwrap();
    assert_eq!((dataset.val_source, dataset.train.len()), (ValSource::Given, TEXT.len() as u64));
    assert_eq!(dataset.tokenizer.unwrap().decode(&all_tokens(&dataset.val)).unwrap(), "dog and fox");
    options.val_data = Some(fixture.write("bad.txt", "dog\nand FOX"));
    let error = fixture.open(&options).unwrap_err();
    assert!(error.to_string().contains("bad.txt` at byte 8: `F` is not in"), "{error}");
}

#[test]
fn shards_train_packed_over_all_tokens() {
    let fixture = Fixture::new();
    fixture.write("s/1.bin", shard(&[1, 2, 3, 4, 5, 6, 7]));
    fixture.write("s/2.bin", shard(&[8, 9, 10]));
    let data = fixture.folder.path().join("s/*.bin");
    let mut options = options(data.to_str().unwrap(), None);
    options.packed = true;
    let dataset = fixture.open(&options).unwrap();
    assert_eq!((dataset.vocab, dataset.val_source), (50_257, ValSource::Training));
    assert!(dataset.tokenizer.is_none());
    let loader = TrainLoader::packed(&dataset.train, BatchShape { batch: 1, block: 2 }, 1).unwrap();
    let starts: Vec<u32> = (1..7)
        .map(|step| {
            let (mut tokens, mut targets) = ([0; 2], [0; 2]);
            loader.batch(step, 0, &mut tokens, &mut targets).unwrap();
            tokens[0]
        })
        .collect();
    assert_eq!(starts, [1, 3, 5, 8, 1, 3]);
    options.model_vocab = Some(6);
    let small = fixture.open(&options).unwrap();
    let loader = TrainLoader::packed(&small.train, BatchShape { batch: 1, block: 2 }, 1).unwrap();
    let error = loader.batch(3, 0, &mut [0; 2], &mut [0; 2]).unwrap_err();
    assert!(matches!(error, DataError::TokenOutOfRange { token: 6, index: 5, vocab: 6, .. }), "{error}");
}

#[test]
fn headerless_tokens_need_a_type_and_a_vocabulary() {
    let fixture = Fixture::new();
    let data = fixture.write("plain.bin", (0..40u16).flat_map(u16::to_le_bytes).collect::<Vec<_>>());
    let mut options = options(&data, None);
    assert!(matches!(fixture.open(&options), Err(DataError::NoHeader { .. })));
    options.token_dtype = Some(TokenDtype::U16);
    let error = fixture.open(&options).unwrap_err();
    assert!(error.is_usage() && words(&error).contains("--vocabSize"), "{error}");
    options.vocab_size = Some(40);
    let dataset = fixture.open(&options).unwrap();
    assert_eq!((dataset.train.len(), dataset.val.len(), dataset.vocab), (31, 9, 40));
    options.tokenizer = Some(Kind::Char);
    assert!(fixture.open(&options).unwrap_err().is_usage());
}

#[test]
fn what_does_not_fit_is_refused() {
    let fixture = Fixture::new();
    let data = fixture.write("a.txt", TEXT);
    let with = |change: &dyn Fn(&mut DataOptions)| {
        let mut options = options(&data, Some(Kind::Byte));
        change(&mut options);
        fixture.open(&options).unwrap_err()
    };
    let cases = [
        (with(&|options| options.data = "gone.txt".to_owned()), "`gone.txt` does not exist", false),
        (with(&|options| options.block = 64), "has 84 tokens, needs at least 130", false),
        (with(&|options| options.vocab_size = Some(9)), "`--vocabSize` is for data that is tokens", true),
        (with(&|options| options.model_vocab = Some(9)), "has 256 tokens, the model only 9", false),
        (
            with(&|options| options.tokenizer = Some(Kind::File("gone.json".into()))),
            "`gone.json` does not exist",
            false,
        ),
        (with(&|options| options.data = fixture.write("bad.txt", b"ok \xFF")), "bad byte at offset 3", false),
        (with(&|options| options.data = fixture.write("bad.jsonl", "{}\n")), "bad.jsonl` line 1", false),
        (
            with(&|options| {
                options.data = fixture.write("cut.bin", &shard(&[1; 9])[..1030]);
                options.tokenizer = None;
            }),
            "says 9 tokens, but holds 3",
            false,
        ),
    ];
    for (error, message, is_usage) in cases {
        let words = words(&error);
        assert!(words.contains(message) && words.contains("\nhint: "), "{words}");
        assert_eq!(error.is_usage(), is_usage, "{error}");
    }
    let reader = TokenReader { token_dtype: None, tokenizer: None, vocab: 256 };
    let error = reader.open(&data, &Work::default(), &mut Vec::new()).unwrap_err();
    assert!(matches!(error, DataError::NoTokenizer { .. }));
}
