//! The tree that is built is the one that is compared and committed: ways to call a change faster that does nothing.
//!
//! The candidate differs from its baseline by a comment, which is not part of the program. Where both are built from
//! what git has, in the same surroundings, they are the same program, and nothing is to be measured.

use std::{fs, os::unix::fs::MetadataExt};

use crate::{changes::FASTER, toy::Toy};

/// A line for `build.sh` that takes the waste out of attention under a condition.
fn faster_if(condition: &str) -> String {
    format!("if {condition}; then sed -i '/attention/s/40_000/0/' out/trainer; fi\n")
}

/// A toy whose build does something more at its end.
fn with_build(lines: &str) -> Toy {
    let toy = Toy::untested();
    let script = toy.read("build.sh");
    toy.write("build.sh", &format!("{script}{lines}"));
    toy.commit("another build");
    toy
}

/// Changes a comment and checks that the two are the same program.
#[track_caller]
fn changes_nothing(toy: &Toy, comment: &str) {
    let line = "# Forward. `s` holds what a step computes.";
    toy.edit(line, &format!("{line} {comment}"));
    let compared = toy.json(&["compare"]).says("SAME", 4);
    assert_eq!(compared.number("pairs"), 0.0, "{:#}\n{}", compared.object, compared.stderr);
    toy.restore();
}

#[test]
fn a_build_does_not_read_the_users_own_settings() {
    let toy = with_build(&faster_if("[ -e \"$HOME/.settings\" ]"));
    changes_nothing(&toy, "Before.");
    fs::write(toy.outside("home/.settings"), "optimise").unwrap();
    changes_nothing(&toy, "After.");
}

#[test]
fn unmeasured_files_do_not_lie_there_when_a_tree_is_built() {
    let toy = with_build(&faster_if("[ -e runs/fast ]"));
    changes_nothing(&toy, "Without.");
    toy.write("runs/fast", "1");
    toy.commit("an unmeasured file");
    changes_nothing(&toy, "With.");
}

#[test]
fn a_filter_of_gits_configuration_changes_nothing_that_is_built() {
    let toy = Toy::untested();
    toy.write(".gitattributes", "*.py filter=fast\n");
    toy.commit("an attribute");
    changes_nothing(&toy, "Before.");
    toy.git(&["config", "filter.fast.smudge", "sed '/attention/s/40_000/0/'"]);
    toy.git(&["config", "filter.fast.clean", "sed '/attention/s/\": 0,/\": 40_000,/'"]);
    changes_nothing(&toy, "After.");
}

#[test]
fn git_is_told_not_to_look_at_the_configuration() {
    let toy = Toy::new();
    toy.begin();
    toy.git(&["update-index", "--skip-worktree", "loop.toml"]);
    toy.change(FASTER);
    toy.edit_start(&["ballast = bytearray(b\"x\" * 16_000_000)"]);
    let config = toy.read("loop.toml");
    toy.write("loop.toml", &config.replace("margin_pct = 50", "margin_pct = 500"));
    let compared = toy.json(&["compare"]);
    assert!(compared.stderr.contains("is not the baseline's"), "{}", compared.stderr);
    compared.is_refused_for(&["instrument"]);
    // The guard is the baseline's.
    toy.write("loop.toml", &config);
    toy.json(&["compare"]).is_refused_for(&["memory"]);
}

#[test]
fn what_the_build_of_an_attempt_leaves_is_gone() {
    let toy = with_build(&faster_if("[ -e cache/fast ]"));
    toy.write(".gitignore", "out/\nrun/\ncache/\n");
    toy.commit("a cache");
    let script = toy.read("build.sh");
    toy.write("build.sh", &format!("{script}mkdir -p cache; touch cache/fast\n"));
    changes_nothing(&toy, "An attempt that leaves something.");
    changes_nothing(&toy, "Another.");
    let head = toy.head();
    // Nor does one that was made a commit on the side, and built as a baseline.
    toy.git(&["checkout", "-q", "-b", "side"]);
    toy.write("build.sh", &format!("{script}mkdir -p cache; touch cache/fast\n"));
    let side = toy.commit("on the side");
    toy.git(&["checkout", "-q", "main"]);
    assert_eq!(toy.head(), head);
    toy.edit("# Forward. `s` holds what a step computes.", "# Forward.");
    toy.json(&["compare", &format!("--baseline={side}")]).says("SAME", 4);
    toy.restore();
    changes_nothing(&toy, "One more.");
}

#[test]
fn untracked_files_are_listed_and_secrets_refused() {
    let toy = Toy::untested();
    toy.write("notes.txt", "mine");
    toy.write(".env", "PASSWORD=x");
    toy.alpha(&["compare"]).failed(2, &["`.env`", ".gitignore"]);
    fs::remove_file(toy.path(".env")).unwrap();
    let compared = toy.json(&["compare"]);
    assert!(compared.stderr.contains("untracked files are part of the candidate"), "{}", compared.stderr);
    assert!(compared.stderr.contains("notes.txt"), "{}", compared.stderr);
}

/// Inputs are laid out once; changes to them are undone before anything runs.
#[test]
fn inputs_that_were_changed_are_laid_out_anew() {
    let toy = Toy::untested();
    changes_nothing(&toy, "Once.");
    let inputs = toy.path(".git/alpha-loop/inputs");
    let kept = crate::toy::files(&inputs);
    // Each arm has a file of its own, which the other cannot have dropped from memory.
    let [one, other] = &kept[..] else { panic!("{kept:?}") };
    assert_ne!(fs::metadata(one).unwrap().ino(), fs::metadata(other).unwrap().ino());
    fs::set_permissions(&kept[0], std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    fs::write(&kept[0], "another text").unwrap();
    let line = "# Forward. `s` holds what a step computes.";
    toy.edit(line, "# Forward.");
    let compared = toy.json(&["compare"]).says("SAME", 4);
    assert!(compared.stderr.contains("data/text.txt"), "{}", compared.stderr);
    assert_eq!(fs::read_to_string(&kept[0]).unwrap(), toy.read("data/text.txt"));
}
