//! A trainer in C that prints a line for each step (`examples/c`) gets verdicts without an edit.

use crate::toy::Toy;

const MAKEFILE: &str = include_str!("../../../../examples/c/Makefile");
const TRAINER: &str = include_str!("../../../../examples/c/train.c");
const TEXT: &str = include_str!("../../../../examples/c/text.txt");
const LOOP_TOML: &str = include_str!("../../../../examples/c/loop.toml");

/// The example, committed, compiled with little optimisation.
fn example() -> Toy {
    let toy = Toy::empty();
    toy.write("Makefile", &MAKEFILE.replace("-O2", "-O1"));
    toy.write("train.c", TRAINER);
    toy.write("text.txt", TEXT);
    toy.write(".gitignore", "train\n");
    toy.commit("a trainer in C");
    toy
}

/// With the `loop.toml` that `init` writes, made quick: effects of these tests are several times as large as ε.
fn ready() -> Toy {
    let toy = example();
    let quick = LOOP_TOML.replace("epsilon_pct = 0.5 ", "epsilon_pct = 30 ").replace("\"5m\"", "\"20s\"");
    let steps = quick.lines().find(|line| line.starts_with("steps = ")).unwrap();
    toy.write("loop.toml", &quick.replace(steps, "steps = 60"));
    toy.commit("loop.toml");
    toy.alpha(&["start", "it can be faster"]).succeeded();
    toy
}

#[test]
fn init_writes_the_file_of_the_example() {
    let toy = example();
    let made = toy.json(&["init"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert_eq!((made.text("kind"), &made.object["probed"]["turns"]), ("make", &"lines".into()));
    // The number of steps depends on the machine's speed.
    let of = |text: &str| text.lines().filter(|line| !line.starts_with("steps = ")).collect::<Vec<_>>().join("\n");
    assert_eq!(of(&toy.read("loop.toml")), of(LOOP_TOML));
}

#[test]
fn what_init_cannot_find_out_it_asks_for() {
    let toy = example();
    for (from, to, named) in [
        ("step <= steps; step++", "step <= 7; step++", "printed 7 lines for steps where 16"),
        ("    return 0;\n}\n", "    return 3;\n}\n", "exit status: 3"),
    ] {
        toy.write("train.c", &TRAINER.replace(from, to));
        let made = toy.json(&["init"]);
        assert_eq!(made.code, Some(1), "{}", made.stderr);
        // It is written all the same, so that it can be mended.
        assert!(toy.path("loop.toml").exists() && made.object["probed"].is_null());
        assert!(made.text("problem").contains(named), "{}", made.text("problem"));
        std::fs::remove_file(toy.path("loop.toml")).unwrap();
    }
    // A trainer that prints a line every tenth step, and one that prints none.
    for (from, to, named) in [
        ("        printf(\"step %lu", "        if (step % 10 == 0) printf(\"step %lu", "a log interval of 1"),
        ("printf(\"step %lu/%lu | loss", "printf(\"%lu of %lu, L", "`workload.metrics`: no step lines"),
    ] {
        toy.write("train.c", &TRAINER.replace(from, to));
        let made = toy.json(&["init"]);
        assert_eq!((made.code, &made.object["probed"]["turns"]), (Some(0), &"whole".into()), "{}", made.stderr);
        assert!(made.stderr.contains(named), "{}", made.stderr);
        std::fs::remove_file(toy.path("loop.toml")).unwrap();
    }
    // The user's own words.
    toy.alpha(&["init", "--command=./train --steps=9"]).failed(2, &["has no `{steps}`"]);
    toy.alpha(&["init", "--preset=nothing"]).failed(2, &["not a kind of trainer", "make"]);
    toy.write("train.c", TRAINER);
    let made = toy.json(&["init", "--preset=make", "--command=./train --steps={steps} --seed={seed}", "--probe=false"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert!(toy.read("loop.toml").contains("command = \"./train --steps={steps} --seed={seed}\""));
}

#[test]
fn a_gain_is_found_and_another_training_is_refused() {
    let toy = ready();
    toy.write("Makefile", &MAKEFILE.replace("-O2", "-O3"));
    toy.json(&["compare"]).says("FASTER", 0);
    // Half the batch is twice as fast, and not the same training.
    toy.write("train.c", &TRAINER.replace("BATCH = 64", "BATCH = 32"));
    toy.json(&["compare"]).is_refused_for(&["parity: loss_1_5"]);
    // A step less than asked.
    toy.write("train.c", &TRAINER.replace("step <= steps; step++", "step < steps; step++"));
    toy.alpha(&["compare"]).failed(1, &["in its turn, after 59 lines like `llm.c`"]);
}
