//! Cases from public bug reports of other trainers: data that changed, moved or was hidden; formats that are not what they
//! seem; limits of the machine; ends at an unexpected time.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    outcome::finish,
    place::{Place, Running, u16_tokens, words},
    tensors::assert_same_checkpoint,
};

const LONG: &[&str] = &["--steps=100000", "--evalInterval=0"];

fn checkpoints_equal(place: &Place, a: &str, b: &str, step: u64) {
    let checkpoint = |run: &str| place.path(run).join(format!("checkpoint-{step}"));
    assert_same_checkpoint(&checkpoint(a), &checkpoint(b));
}

fn packed(program: &str, bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut command = Command::new(program);
    let mut child =
        command.arg("-c").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    child.wait_with_output().unwrap().stdout
}

#[test]
fn a_run_goes_on_with_the_data_that_it_began_with_wherever_that_lies() {
    let place = Place::with_text();
    place.write("old/data.txt", words(1000));
    let data: &[&str] = &["--data=old/data.txt", "--threads=1", "--evalInterval=5"];
    place.train("whole", &[data, &["--steps=10"]].concat()).succeeded();
    for run in ["moved", "elsewhere", "threads"] {
        place.train(run, &[data, &["--steps=10", "--keepCheckpoints=9"]].concat()).succeeded();
        fs::remove_dir_all(place.path(run).join("checkpoint-10")).unwrap();
    }
    // From another folder the same relative path leads nowhere.
    fs::create_dir(place.path("other")).unwrap();
    let mut command = place.command(env!("CARGO_BIN_EXE_alpha"));
    command.current_dir(place.path("other")).args(["train", "--resume=auto", "--runDir=../elsewhere"]);
    finish(&mut command).succeeded();
    place.resume("threads", &["--threads=2"]).succeeded();
    fs::rename(place.path("old"), place.path("new")).unwrap();
    place.resume("moved", &[]).refused(1, &["old/data.txt", "does not exist"]);
    place.resume("moved", &["--data=new/data.txt"]).succeeded();
    for run in ["moved", "elsewhere", "threads"] {
        checkpoints_equal(&place, run, "whole", 10);
    }
}

#[test]
fn other_data_is_not_gone_on_with_unless_asked() {
    let place = Place::with_text();
    place.train("run", &["--steps=5"]).succeeded();
    place.write("text.txt", words(1300));
    place.resume("run", &["--steps=9"]).refused(1, &["data is not what it was", "--data", "--allowDataChange"]);
    assert_eq!(place.checkpoint_steps("run"), [5]);
    place.write("text.txt", words(1200));
    // The same text, with another part of it to train on.
    place.write("val.txt", words(100));
    place.resume("run", &["--steps=9", "--valData=val.txt"]).refused(1, &["tokens are trained on", "--valData"]);
    place.write("text.txt", words(1300));
    let done = place.resume("run", &["--steps=9", "--allowDataChange"]).succeeded();
    assert!(done.stderr.contains("warning: the data is not what it was"), "{}", done.stderr);
    // From then on it is the data.
    place.resume("run", &["--steps=12"]).succeeded();
}

#[test]
fn what_a_folder_leaves_out_is_said() {
    let place = Place::with_text();
    place.write("fold/README.md", words(300));
    place.write("fold/sub/more.txt", words(300));
    symlink("gone", place.path("fold/dead")).unwrap();
    let done = place.train("run", &["--data=fold", "--steps=1"]).succeeded();
    for word in ["only `fold/README.md` is read, as text", "`fold/dead` (a link to nothing)", "`fold/sub` (a folder)"] {
        assert!(done.stderr.contains(word), "{}", done.stderr);
    }
    // Links in circles: each file once, and an end.
    symlink(".", place.path("fold/sub/a")).unwrap();
    symlink("..", place.path("fold/sub/b")).unwrap();
    let done = place.train("glob", &["--data=fold/**/*.txt", "--steps=1", "--block=8", "--batch=1"]).succeeded();
    assert!(done.stderr.contains("only `fold/sub/more.txt` is read, as text"), "{}", done.stderr);
    assert!(done.stderr.contains("(already counted, by another path)"), "{}", done.stderr);
}

#[test]
fn packed_data_is_the_data_in_it() {
    let place = Place::with_text();
    place.train("plain", &["--steps=3"]).succeeded();
    place.write("text.txt.gz", packed("gzip", words(1200).as_bytes()));
    for cache in ["kept", "warm"] {
        place.train(cache, &["--data=text.txt.gz", "--steps=3"]).succeeded();
        checkpoints_equal(&place, cache, "plain", 3);
    }
    let whole = fs::read(place.path("text.txt.gz")).unwrap();
    place.write("cut.txt.gz", &whole[..whole.len() - 9]);
    place.train("cut", &["--data=cut.txt.gz", "--steps=3"]).refused(1, &["cut.txt.gz", "does not unpack"]);
}

#[test]
fn formats_are_known_by_their_content() {
    let place = Place::with_text();
    place.train("plain", &["--steps=3"]).succeeded();
    place.write("mark.txt", format!("\u{FEFF}{}", words(1200)));
    place.train("mark", &["--data=mark.txt", "--steps=3"]).succeeded();
    assert!(place.weights("mark", 3) == place.weights("plain", 3));
    // One object a line under another name.
    let line = |index: usize| format!("{{\"id\": {index}, \"text\": \"{}\"}}\n", words(40 + index));
    let lines: String = (0..30).map(line).collect();
    place.write("docs.jsonl", &lines);
    place.write("docs.json", format!("\u{FEFF}{lines}"));
    for data in ["docs.jsonl", "docs.json"] {
        place.train(&format!("of-{data}"), &[&format!("--data={data}"), "--steps=3"]).succeeded();
    }
    assert!(place.weights("of-docs.json", 3) == place.weights("of-docs.jsonl", 3));
    // numpy's header is skipped.
    let tokens = u16_tokens((0..900).map(|index| index * 7 % 50));
    let header = format!("{:<117}\n", "{'descr': '<u2', 'fortran_order': False, 'shape': (900,), }");
    place.write("tokens.bin", &tokens);
    place.write("tokens.npy", [b"\x93NUMPY\x01\0\x76\0", header.as_bytes(), &tokens].concat());
    let flags: &[&str] = &["--tokenizer=", "--vocabSize=50", "--steps=3"];
    place.train("bin", &[flags, &["--data=tokens.bin", "--tokenDtype=u16"]].concat()).succeeded();
    for dtype in ["--tokenDtype=", "--tokenDtype=u16"] {
        place.train("npy", &[flags, &["--data=tokens.npy", dtype]].concat()).succeeded();
        assert!(place.weights("npy", 3) == place.weights("bin", 3));
    }
    let wide: Vec<u8> = words(900).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let array = format!("[{{\"text\": \"{}\"}},\n {{\"text\": \"x\"}}]", words(300));
    let four_bytes: Vec<u8> = (0..900u32).flat_map(|index| (index * 97 % 5000).to_le_bytes()).collect();
    place.write("wide.txt", wide);
    place.write("array.json", array);
    place.write("lists.jsonl", "[\"a list\"]\n");
    place.write("u32.bin", four_bytes);
    for (data, words) in [
        ("--data=wide.txt", &["wide.txt", "UTF-16", "iconv"][..]),
        ("--data=array.json", &["array.json", "one JSON array", "jq -c '.[]'"]),
        ("--data=lists.jsonl", &["lists.jsonl", "line 1", "an object"]),
        ("--data=/dev/null", &["/dev/null", "not a regular file"]),
    ] {
        place.train("refused", &[data, "--steps=3"]).refused(1, words);
    }
    place
        .train("refused", &[flags, &["--data=u32.bin", "--tokenDtype=u16"]].concat())
        .refused(1, &["u32.bin", "--tokenDtype=u32"]);
    place.write("config.json", "\u{FEFF}{\"steps\": 2}");
    place.train("config", &["--config=config.json"]).succeeded();
}

#[test]
fn weights_are_not_given_another_tokenizer() {
    let place = Place::with_text();
    place.train("run", &["--steps=2"]).succeeded();
    fs::remove_file(place.path("run/checkpoint-2/tokenizer.json")).unwrap();
    let init: &[&str] = &["--init=run/checkpoint-2", "--steps=1", "--layers=", "--dim=", "--heads=", "--tokenizer="];
    let words = &["run/checkpoint-2", "no `tokenizer.json`", "--tokenizer=FILE"];
    place.train("other", init).refused(1, words);
    // A tokenizer that is built now is not theirs either; one that the user names is trusted.
    place.train("other", &[init, &["--tokenizer=char"]].concat()).refused(1, words);
    place.alpha(&["tokenizer", "build", "--type=char", "--input=text.txt", "--out=own.json"]).succeeded();
    place.train("named", &[init, &["--tokenizer=own.json"]].concat()).succeeded();
    place.train("kept", &[init, &["--tokenizerArtifacts=own.json"]].concat()).succeeded();
    // A folder that has its own does not take another.
    place.train("whole", &["--steps=2"]).succeeded();
    let init = ["--init=run/checkpoint-2", "--steps=1", "--layers=", "--dim=", "--heads="];
    let init = init.map(|flag| flag.replace("run/", "whole/"));
    let init: Vec<&str> = init.iter().map(String::as_str).collect();
    place.write("capitals.txt", "ABC DEF ".repeat(90));
    place.alpha(&["tokenizer", "build", "--type=char", "--input=capitals.txt", "--out=other.json"]).succeeded();
    for (flags, words) in [
        (&["--tokenizer=byte"][..], ["256 tokens", "the model only"]),
        (&["--tokenizer=other.json", "--data=capitals.txt"], ["another id", "whole/checkpoint-2"]),
    ] {
        place.train("refused", &[&init[..], flags].concat()).refused(1, &words);
    }
}

#[test]
fn words_of_a_sample_stand_apart_from_its_prompt() {
    let place = Place::with_text();
    place.train("run", &["--tokenizer=word", "--steps=40"]).succeeded();
    let sample: &[&str] = &["sample", "--checkpoint=run/checkpoint-40", "--prompt=the cat", "--steps=4", "--temp=0"];
    let done = place.alpha(sample).succeeded();
    assert!(done.stdout.starts_with("the cat "), "{}", done.stdout);
    let done = place.alpha(&[sample, &["--json"]].concat());
    let object: Value = serde_json::from_str(&done.stdout).unwrap();
    assert!(object["text"].as_str().unwrap().starts_with(' '), "{object}");
}

#[test]
fn a_shard_that_is_cut_short_ends_the_run_with_its_name() {
    let place = Place::new();
    place.write("tokens.bin", u16_tokens((0..400_000u32).map(|index| (index * 7 % 50) as u16)));
    let flags: &[&str] = &["--data=tokens.bin", "--tokenizer=", "--tokenDtype=u16", "--vocabSize=50"];
    let mut running = Running::start(&mut place.train_command("run", &[LONG, flags].concat()));
    running.read_lines(20);
    File::options().write(true).open(place.path("tokens.bin")).unwrap().set_len(4096).unwrap();
    let done = running.end();
    done.refused(1, &["tokens.bin", "cut short"]);
    let steps = place.checkpoint_steps("run");
    assert!(steps.len() == 1 && steps[0] >= 20, "{steps:?}");
}

#[test]
fn signals_that_announce_an_end_save() {
    let place = Place::with_text();
    for (signal, code) in [("HUP", 129), ("USR1", 138)] {
        let mut running = Running::start(&mut place.train_command(signal, LONG));
        running.read_lines(3);
        let done = running.end_by(signal);
        assert_eq!(done.code, Some(code), "{}", done.stderr);
        assert!(done.stderr.contains("its state is in"), "{}", done.stderr);
        assert_eq!(place.checkpoint_steps(signal).len(), 1);
    }
    // As after `nohup`.
    let mut command = place.command("sh");
    let train = place.train_command("nohup", &["--steps=400", "--evalInterval=0"]);
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(train.get_program()).args(train.get_args());
    let mut running = Running::start(&mut command);
    running.read_lines(3);
    running.signal("HUP");
    running.end().succeeded();
}

/// Text without a space is one word of BPE, which takes long to build.
#[test]
fn what_has_nothing_to_save_ends_at_once() {
    let place = Place::new();
    let mut state = 1u32;
    let letters = (0..6 << 20).map(|_| {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        b"acgt"[(state >> 16) as usize % 4]
    });
    place.write("dna.txt", letters.collect::<Vec<u8>>());
    let running = Running::start(&mut place.train_command("run", &["--data=dna.txt", "--tokenizer=bpe"]));
    thread::sleep(Duration::from_secs(3));
    let asked = Instant::now();
    let done = running.end_by("INT");
    assert_eq!(done.code, None, "not by the signal: {}", done.stderr);
    assert!(asked.elapsed() < Duration::from_secs(20));
    assert!(done.stderr.contains(" s\n"), "silent: {:?}", done.stderr);
    assert!(!place.path("run").exists());
}

#[test]
fn a_step_of_many_micro_steps_can_be_left() {
    let place = Place::with_text();
    let flags: &[&str] = &["--accumSteps=4000000", "--block=4", "--batch=1", "--steps=3"];
    let running = Running::start(&mut place.train_command("run", flags));
    while !place.path("run/metrics.jsonl").exists() {
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(2500));
    let asked = Instant::now();
    let done = running.end_by("TERM");
    assert_eq!(done.code, Some(143), "{}", done.stderr);
    assert!(asked.elapsed() < Duration::from_secs(20));
    assert!(done.stderr.contains("step: "), "silent: {}", done.stderr);
    assert_eq!(place.checkpoint_steps("run"), [0]);
}

/// Renames tensors in a safetensors file, and pads its header to its old length.
fn rename_tensors(place: &Place, folder: &str, rename: impl Fn(&str) -> Option<String>) {
    let path = place.path(folder).join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    let header: serde_json::Map<String, Value> =
        header.into_iter().filter_map(|(name, value)| Some((rename(&name)?, value))).collect();
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], &header, &bytes[8 + len..]].concat()).unwrap();
}

#[test]
fn weights_load_under_the_names_of_wrappers_and_of_the_tied_head() {
    let place = Place::with_text();
    place.train("run", &["--steps=3"]).succeeded();
    let eval = |folder: &str| {
        let done =
            place.alpha(&["eval", &format!("--checkpoint={folder}"), "--data=text.txt", "--backend=cpu"]).succeeded();
        done.stdout
    };
    let expected = eval("run/checkpoint-3");
    let own = |name: &str| name.to_owned();
    for rename in [
        |name: &str| format!("_orig_mod.{name}"),
        |name: &str| format!("module.model.{name}"),
        |name: &str| name.trim_start_matches("transformer.").to_owned(),
        |name: &str| if name == "transformer.wte.weight" { "lm_head.weight".to_owned() } else { name.to_owned() },
    ] {
        let copy = place.path("copy");
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir(&copy).unwrap();
        for name in ["config.json", "model.safetensors", "tokenizer.json"] {
            fs::copy(place.path("run/checkpoint-3").join(name), copy.join(name)).unwrap();
        }
        rename_tensors(&place, "copy", |name| Some(if name == "__metadata__" { own(name) } else { rename(name) }));
        assert_eq!(eval("copy"), expected);
    }
}

/// Another user's processes may be limited where root's may not.
#[test]
#[expect(clippy::print_stdout, reason = "a test says that it was skipped")]
fn one_thread_is_enough_where_no_more_can_be_had() {
    let place = Place::with_text();
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    let limited = "ulimit -u 1; exec \"$0\" \"$@\"";
    let mut command = if is_root { place.command("setpriv") } else { place.command("sh") };
    if is_root {
        let all = Command::new("chmod").args(["-R", "a+rwX"]).arg(place.path(".")).status();
        assert!(all.unwrap().success());
        command.args(["--reuid=65533", "--regid=65533", "--clear-groups", "sh"]);
    }
    let train = place.train_command("run", &["--tokenizer=bpe", "--threads=1", "--steps=1"]);
    command.args(["-c", limited]).arg(train.get_program()).args(train.get_args());
    let done = finish(&mut command);
    if done.stderr.contains("ermission denied") {
        println!("SKIPPED: another user cannot reach the program here");
        return;
    }
    done.succeeded();
}
