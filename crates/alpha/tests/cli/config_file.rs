//! `--config=FILE`: errors name the file.

use std::fs;

use crate::{assert_transcript, folder};

#[test]
fn files_that_cannot_be_used() {
    let folder = folder();
    for (name, content) in [
        ("unknown.toml", "steps = 5\nbatchSize = 2\n"),
        ("unknown.json", "{\"layer\": 5}"),
        ("gone.toml", "sync-every = 1\n"),
        ("type.toml", "steps = \"many\"\n"),
        ("type.json", "{\"tie\": 3}"),
        ("nested.json", "{\"steps\": {\"max\": 3}}"),
        ("syntax.toml", "steps = 5\nlr = = 1\n"),
        ("syntax.json", "{\"steps\": 5,"),
        ("inner.toml", "config = \"other.toml\"\n"),
        ("range.toml", "data = \"x\"\nlr = -1.0\n"),
        ("empty.toml", ""),
    ] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    fs::write(folder.path().join("latin1.toml"), b"data = '\xe9'").unwrap();
    assert_transcript!(
        folder,
        &[
            &["train", "--config=missing.toml"],
            &["train", "--config=unknown.toml"],
            &["train", "--config=unknown.json"],
            &["train", "--config=gone.toml"],
            &["train", "--config=type.toml"],
            &["train", "--config=type.json"],
            &["train", "--config=nested.json"],
            &["train", "--config=syntax.toml"],
            &["train", "--config=syntax.json"],
            &["train", "--config=inner.toml"],
            &["train", "--config=range.toml"],
            &["train", "--config=range.toml", "--lr=0.1", "--backend=helios"],
            &["train", "--config=latin1.toml"],
            &["train", "--config=empty.toml"],
        ]
    );
}
