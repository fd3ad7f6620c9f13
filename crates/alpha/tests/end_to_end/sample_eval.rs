//! `alpha sample` and `alpha eval` on models that know something that can be checked.

use std::fs;

use serde_json::Value;

use crate::{
    outcome::finish,
    place::{Place, u16_tokens},
    tensors::Tensors,
};

const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyz";

/// A place with a model of context 16 that has learned the alphabet, round and round.
fn with_alphabet() -> Place {
    let place = Place::new();
    place.write("text.txt", ALPHABET.repeat(60));
    place.train("run", &["--steps=80", "--batch=8", "--tokenizer=byte"]).succeeded();
    let last = *place.column("run", "loss").last().unwrap();
    assert!(last < 0.3, "the alphabet is not learned: loss {last}");
    place
}

/// This many letters after this one.
fn letters_after(letter: char, count: usize) -> String {
    ALPHABET.chars().cycle().skip_while(|&other| other != letter).skip(1).take(count).collect()
}

/// The output of `alpha sample`.
#[track_caller]
fn sample(place: &Place, flags: &[&str]) -> String {
    let done = place.alpha(&[&["sample", "--checkpoint=run/checkpoint-80"], flags].concat()).succeeded();
    assert!(done.stderr.contains("prefill") && done.stderr.contains("decode"), "{}", done.stderr);
    done.stdout
}

#[test]
fn greedy_text_is_what_was_learned_beyond_the_context_too() {
    let place = with_alphabet();
    for backend in ["--backend=cpu", "--backend=cpu_ref"] {
        for prompt in ["c", "xyzab", "abcdefghijklmnop", &ALPHABET.repeat(2)] {
            let flags = [backend, &format!("--prompt={prompt}"), "--temp=0", "--steps=70"];
            let last = prompt.chars().last().unwrap();
            assert_eq!(sample(&place, &flags), format!("{prompt}{}\n", letters_after(last, 70)), "{flags:?}");
        }
    }
}

#[test]
fn a_seed_is_a_text() {
    let place = with_alphabet();
    let flags = ["--prompt=m", "--temp=5", "--topk=0", "--steps=40"];
    let text = |seed: &str| sample(&place, &[&flags[..], &[seed]].concat());
    let first = text("--seed=1");
    assert_eq!(first, text("--seed=1"));
    assert_ne!(first, text("--seed=2"));
    // With one candidate the likeliest token is chosen at any temperature.
    let expected = format!("m{}\n", letters_after('m', 40));
    assert_eq!(sample(&place, &[&flags[..2], &["--topk=1", "--steps=40"]].concat()), expected);
    assert_eq!(sample(&place, &[&flags[..3], &["--topp=0.000001", "--steps=40"]].concat()), expected);
}

/// The object of `--json`, after a check of its keys.
#[track_caller]
fn sample_json(place: &Place, flags: &[&str]) -> Value {
    let object: Value = serde_json::from_str(&sample(place, &[&["--json"], flags].concat())).unwrap();
    let mut keys: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["decode_tok_s", "margins", "prefill_tok_s", "prompt", "schema", "text", "tokens"]);
    assert_eq!(object["schema"], "alpha.sample/1");
    assert_eq!(object["tokens"].as_array().unwrap().len(), object["margins"].as_array().unwrap().len());
    assert!(number(&object, "prefill_tok_s") > 0.0 && number(&object, "decode_tok_s") > 0.0);
    object
}

#[test]
fn json_says_what_the_text_says_and_how_sure_it_was() {
    let place = with_alphabet();
    for flags in [&["--temp=0"][..], &["--temp=3", "--topk=5", "--seed=7"], &["--temp=2", "--topk=0", "--topp=0.9"]] {
        let flags = [flags, &["--prompt=xyz", "--steps=30"]].concat();
        let object = sample_json(&place, &flags);
        let text = object["text"].as_str().unwrap();
        assert_eq!((object["prompt"].as_str(), sample(&place, &flags)), (Some("xyz"), format!("xyz{text}\n")));
        let tokens: Vec<u64> = object["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
        assert_eq!(tokens, text.bytes().map(u64::from).collect::<Vec<_>>(), "a byte's token is its number");
        let margins: Vec<f64> = object["margins"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        assert_eq!(margins.len(), 30);
        assert!(margins.iter().all(|&margin| margin >= 0.0), "{margins:?}");
        // A text learned by heart is chosen with large margins; one drawn at a high temperature is not.
        let is_greedy = flags[0] == "--temp=0";
        assert!(margins.iter().all(|&margin| if is_greedy { margin > 0.5 } else { margin <= 1.0 }), "{margins:?}");
        // The fast kernels add up in another order: margins change a little, and the text does not change where they are large.
        let other = sample_json(&place, &[&flags[..], &["--backend=cpu_ref"]].concat());
        let others: Vec<f64> = other["margins"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        let same = margins.iter().zip(&others).take_while(|(a, b)| (*a - *b).abs() < 1e-3).count();
        assert!(same == 30 || margins[same] < 1e-3, "{same}: {margins:?}, {others:?}");
        assert_eq!(object["text"].as_str().unwrap()[..same], other["text"].as_str().unwrap()[..same]);
    }
}

/// Reading a text at once and writing it a token at a time must lead to the same continuation.
#[test]
fn cached_decoding_is_reading_again() {
    let place = Place::with_text();
    // Hardly trained, so that logits are close and positions matter.
    place.train("run", &["--steps=12", "--block=48"]).succeeded();
    let greedy = |prompt: &str, steps: usize| {
        let flags = [format!("--prompt={prompt}"), format!("--steps={steps}")];
        let fixed = ["sample", "--checkpoint=run/checkpoint-12", "--temp=0"];
        let done = place.alpha(&[&fixed[..], &[&flags[0], &flags[1]]].concat()).succeeded();
        done.stdout.strip_suffix('\n').unwrap().to_owned()
    };
    let whole = greedy("the cat", 40);
    assert_eq!(whole.len(), 47);
    for read in [8, 20, 33, 46] {
        assert_eq!(greedy(&whole[..read], 47 - read), whole, "after reading {read}");
    }
}

#[test]
fn without_a_tokenizer_ids_are_taken_and_printed() {
    let place = Place::new();
    place.write("tokens.bin", u16_tokens((0..2000).map(|i| i % 20)));
    let flags = ["--data=tokens.bin", "--tokenizer=", "--tokenDtype=u16", "--vocabSize=20", "--steps=80", "--batch=8"];
    place.train("run", &flags).succeeded();
    assert!(!place.path("run/checkpoint-80/tokenizer.json").exists());
    assert_eq!(sample(&place, &["--prompt=17 18", "--temp=0", "--steps=5"]), "17 18 19 0 1 2 3\n");
}

/// The object of `alpha eval --json`.
#[track_caller]
fn eval(place: &Place, checkpoint: &str, flags: &[&str]) -> Value {
    let checkpoint = format!("--checkpoint={checkpoint}");
    let done = place.alpha(&[&["eval", &checkpoint, "--json"], flags].concat()).succeeded();
    serde_json::from_str(&done.stdout).unwrap()
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("`{key}` in {value}"))
}

#[test]
fn a_model_of_zeros_knows_nothing() {
    let place = Place::with_text();
    place.train("run", &["--steps=1"]).succeeded();
    let path = place.path("run/checkpoint-1/model.safetensors");
    let mut tensors = Tensors::read(&path);
    tensors.tensors.iter_mut().for_each(|(.., bytes)| bytes.fill(0));
    tensors.write(&path);
    let found = eval(&place, "run/checkpoint-1", &["--data=text.txt"]);
    let characters = fs::read_to_string(place.path("text.txt")).unwrap().len();
    let ln_vocab = (place.json("run/checkpoint-1/config.json")["vocab_size"].as_f64().unwrap()).ln();
    assert_eq!(found["tokens"], characters - 1);
    assert!((number(&found, "loss") - ln_vocab).abs() < 1e-5, "{found}");
    assert!((number(&found, "perplexity").ln() - ln_vocab).abs() < 1e-5, "{found}");
    // One token a byte.
    assert!((number(&found, "bitsPerByte") - ln_vocab / 2f64.ln()).abs() < 1e-5, "{found}");
}

/// Shards are read one by one, so that the whole is the mean of its parts.
#[test]
fn the_whole_is_the_mean_of_its_parts() {
    let place = Place::new();
    place.write("a.bin", u16_tokens((0..700u16).map(|i| i * 5 % 23)));
    place.write("b.bin", u16_tokens((0..333u16).map(|i| i * 7 % 29)));
    let shards = ["--tokenizer=", "--tokenDtype=u16"];
    place.train("run", &[&shards[..], &["--data=a.bin", "--vocabSize=29", "--steps=30"]].concat()).succeeded();
    let eval = |data: &str, more: &[&str]| eval(&place, "run/checkpoint-30", &[&[data, shards[1]], more].concat());
    let (a, b, both) = (eval("--data=a.bin", &[]), eval("--data=b.bin", &[]), eval("--data=*.bin", &[]));
    assert_eq!([&a, &b, &both].map(|found| found["tokens"].as_u64()), [699, 332, 699 + 332].map(Some));
    assert_eq!(both["bitsPerByte"], Value::Null);
    let sum = |found: &Value| number(found, "loss") * number(found, "tokens");
    assert!((sum(&both) - sum(&a) - sum(&b)).abs() < 1e-5 * sum(&both), "{both}, {a}, {b}");
    assert!(number(&b, "loss") > number(&a, "loss"), "only `a` was learned");
    // A part that is the whole, and batches of other sizes.
    assert_eq!(eval("--data=*.bin", &["--maxTokens=100000"]), both);
    for batch in ["--batch=1", "--batch=7", "--batch=1000"] {
        let found = eval("--data=*.bin", &[batch]);
        assert!((number(&found, "loss") - number(&both, "loss")).abs() < 1e-6, "{batch}: {found}, {both}");
    }
    // A part is the same each time, and another seed gives another part.
    let part = |seed: &str| eval("--data=*.bin", &["--maxTokens=160", seed]);
    assert_eq!(part("--seed=1"), part("--seed=1"));
    assert_ne!(part("--seed=1"), part("--seed=2"));
    assert!((100.0..=160.0).contains(&number(&part("--seed=1"), "tokens")));
}

#[test]
fn evaluation_agrees_with_the_runs_own() {
    let place = Place::with_text();
    place.train("run", &["--steps=40", "--evalInterval=40", "--evalIters=100"]).succeeded();
    let logged = place.metrics("run")[39]["valLoss"].as_f64().unwrap();
    let found = eval(&place, "run/checkpoint-40", &["--data=text.txt", "--split=val"]);
    // Windows at random against windows side by side, of a text that repeats few words.
    assert!((number(&found, "loss") - logged).abs() < 0.05 * logged, "logged {logged}, found {found}");
    let train = eval(&place, "run/checkpoint-40", &["--data=text.txt", "--split=train"]);
    let all = eval(&place, "run/checkpoint-40", &["--data=text.txt"]);
    let [train, val, whole] = [&train, &found, &all].map(|found| found["tokens"].as_u64().unwrap());
    assert_eq!(train + val + 1, whole, "the first token of each side has nothing before it");
    // The line for people says the same as the object for programs.
    let line = place.alpha(&["eval", "--checkpoint=run/checkpoint-40", "--data=text.txt"]).succeeded().stdout;
    let expected = format!(
        "loss={:.4} perplexity={:.3} bits_per_byte={:.4} tokens={}\n",
        number(&all, "loss"),
        number(&all, "perplexity"),
        number(&all, "bitsPerByte"),
        number(&all, "tokens")
    );
    assert_eq!(line, expected);
}

/// As the loop runs it: in a home folder that is empty, or that cannot be written to.
#[test]
fn evaluation_needs_no_cache() {
    let place = Place::with_text();
    place.train("run", &["--steps=2"]).succeeded();
    fs::create_dir(place.path("home")).unwrap();
    for split in ["all", "train", "val"] {
        let flags = ["--data=text.txt".to_owned(), format!("--split={split}")];
        let expected = eval(&place, "run/checkpoint-2", &[&flags[0], &flags[1]]);
        assert!(number(&expected, "loss") > 0.0);
        for home in [place.path("home"), "/dev/null".into(), "".into()] {
            let mut command = place.command(env!("CARGO_BIN_EXE_alpha"));
            command.args(["eval", "--checkpoint=run/checkpoint-2", "--json"]).args(&flags);
            let done = finish(command.env_remove("XDG_CACHE_HOME").env("HOME", &home)).succeeded();
            assert_eq!(serde_json::from_str::<Value>(&done.stdout).unwrap(), expected, "in {}", home.display());
        }
    }
}

#[test]
fn both_backends_evaluate_alike() {
    let place = Place::with_text();
    place.train("run", &["--steps=20", "--activation=swiglu", "--bias=false", "--tie=false"]).succeeded();
    let [fast, plain] = ["cpu", "cpu_ref"]
        .map(|backend| eval(&place, "run/checkpoint-20", &["--data=text.txt", &format!("--backend={backend}")]));
    assert!((number(&fast, "loss") - number(&plain, "loss")).abs() < 1e-5 * number(&plain, "loss"), "{fast}, {plain}");
}
