//! A loop that is ended at any moment, by any signal, goes on from there.
//!
//! The toy itself ends its parent, which is the loop: the moment is exact. Each training run leaves a mark, so that runs
//! can be counted: one for the plan of a comparison, two for a pair.

use crate::{
    changes::{FASTER, RENAMED},
    toy::{Answer, Toy, wait_until},
};

/// Where in a training run the loop is ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    /// Before `hello`.
    Start,
    /// In the trainer's turn.
    Turn,
    /// After its last `done`.
    End,
}

/// A toy whose training run number `run` sends a signal to the loop.
pub(crate) fn toy_that_signals(signal: &str, run: usize, moment: Moment) -> Toy {
    let toy = Toy::new();
    toy.without_walls();
    let marks = toy.outside("runs");
    toy.edit_start(&[
        &format!("with open(\"{}\", \"a+\") as file:", marks.display()),
        "    file.write(\"x\")",
        "    file.flush()",
        "    file.seek(0)",
        "    number = len(file.read())",
    ]);
    let place = match moment {
        Moment::Start => "    metrics, turns = Metrics(), Turns()\n",
        Moment::Turn => "        started = perf_counter()\n",
        Moment::End => "    if is_traced:\n        write_kernels",
    };
    let indent = if matches!(moment, Moment::Turn) { "        " } else { "    " };
    let condition = if matches!(moment, Moment::Turn) { " and step == 30" } else { "" };
    let lines = format!(
        "{indent}if number == {run}{condition}:\n{indent}    import signal\n\n{indent}    os.kill(os.getppid(), signal.{signal})\n"
    );
    toy.edit(place, &format!("{lines}{place}"));
    toy.commit("a trainer with a will of its own");
    toy.begin();
    toy
}

#[test]
fn ctrl_c_leaves_what_compare_continues_from() {
    // The first run of pair 5: four pairs are kept.
    let toy = toy_that_signals("SIGINT", 1 + 2 * 4 + 1, Moment::Turn);
    toy.change(RENAMED);
    let before = toy.belongings();
    let interrupted = toy.alpha(&["compare", "--budget=30m"]);
    assert_eq!(interrupted.code, Some(130), "{}", interrupted.stderr);
    assert!(interrupted.stderr.contains("hint: "), "{}", interrupted.stderr);
    assert_eq!(toy.processes(), Vec::<String>::new());
    assert_eq!(crate::toy::files(&toy.outside("tmp")), Vec::<std::path::PathBuf>::new());
    toy.assert_untouched(&before);
    let status = toy.json(&["status"]);
    assert!(status.object.to_string().contains("compare"), "{:#}", status.object);
    let runs = toy.runs();
    let compared = toy.json(&["compare", "--budget=30m"]).says("SAME", 4);
    assert_eq!(toy.runs() - runs, 2 * (compared.number("pairs") as usize - 4), "{:#}", compared.object);
}

/// An attempt that looked bad, was stopped and given up is one that the ledger counts.
#[test]
fn what_was_measured_before_a_cycle_is_dropped_leaves_a_record() {
    let toy = toy_that_signals("SIGINT", 1 + 2 * 4 + 1, Moment::Turn);
    toy.change(RENAMED);
    assert_eq!(toy.alpha(&["compare", "--budget=30m"]).code, Some(130));
    toy.alpha(&["drop", "it does not look well"]).succeeded();
    let history = toy.json(&["history"]);
    let attempts = history.object["attempts"].as_array().unwrap();
    assert_eq!((attempts.len(), &attempts[0]["pairs"]), (1, &4.into()), "{:#}", history.object);
}

/// Another precision is judged over five seeds and more, whichever call ran them.
#[test]
fn what_pairs_showed_before_an_interruption_counts() {
    let toy = toy_that_signals("SIGINT", 1 + 2 * 6 + 1, Moment::Turn);
    toy.alpha(&["drop"]).succeeded();
    toy.alpha(&["start", "less attention", "--area=attention", "--parity=t2"]).succeeded();
    toy.change(FASTER);
    assert_eq!(toy.alpha(&["compare", "--budget=30m"]).code, Some(130));
    let compared = toy.json(&["compare", "--budget=30m"]).says("FASTER", 0);
    let checks = compared.object["parity"]["checks"].as_array().unwrap();
    let held_out = checks.iter().find(|check| check["name"] == "held_out").unwrap();
    let seeds = format!("{} seeds", compared.number("pairs"));
    assert!(held_out["detail"].as_str().unwrap().contains(&seeds), "no {seeds:?} in {held_out:#}");
}

#[test]
fn a_loop_that_is_killed_goes_on() {
    for (pair, moment) in
        [(0, Moment::Start), (0, Moment::Turn), (3, Moment::Start), (3, Moment::Turn), (3, Moment::End)]
    {
        let run = 1 + 2 * pair + usize::from(pair > 0);
        let toy = toy_that_signals("SIGKILL", run, moment);
        toy.change(RENAMED);
        let before = toy.belongings();
        let killed = toy.alpha(&["compare", "--budget=30m"]);
        assert_eq!(killed.code, None, "{moment:?} of run {run}: {killed:?}");
        wait_until("the trainers to end by themselves", || toy.processes().is_empty());
        toy.assert_untouched(&before);
        let runs = toy.runs();
        let compared = toy.json(&["compare", "--budget=30m"]).says("SAME", 4);
        let pairs = compared.number("pairs") as usize;
        // The one that had begun is used up, and counts against the candidate; before the first there was only the plan.
        let (plan, lost) = (usize::from(pair == 0), usize::from(pair > 0));
        assert_eq!(compared.number("lost") as usize, lost, "{moment:?} of run {run}: {:#}", compared.object);
        assert_eq!(
            toy.runs() - runs,
            plan + 2 * (pairs - pair - lost),
            "{moment:?} of run {run}: {:#}",
            compared.object
        );
    }
}

/// One in turns ends when its socket does; this one would sleep on.
#[test]
fn a_trainer_without_turns_ends_with_a_killed_loop() {
    let toy = Toy::new();
    toy.without_walls();
    toy.edit_file("loop.toml", "turn_timeout = \"8s\"", "turn_timeout = \"8s\"\nsharing = \"whole\"");
    toy.edit_file("loop.toml", "weights = \"run/checkpoint-{step}/model.safetensors\"\n", "");
    toy.edit_start(&["import os, signal, time", "os.kill(os.getppid(), signal.SIGKILL)", "time.sleep(600)"]);
    toy.commit("a trainer that kills");
    toy.begin();
    toy.change(RENAMED);
    let killed = toy.alpha(&["compare", "--budget=30m"]);
    assert_eq!(killed.code, None, "{killed:?}");
    wait_until("the trainer to be ended", || toy.processes().is_empty());
}

#[test]
fn a_loop_that_is_killed_while_it_builds_goes_on() {
    let toy = Toy::new();
    toy.begin();
    toy.change(RENAMED);
    toy.without_walls();
    let mark = toy.outside("killed");
    let line = format!("mkdir -p out\n[ -e {mark:?} ] || {{ touch {mark:?}; kill -KILL $PPID; exit 1; }}\n");
    toy.edit_file("build.sh", "mkdir -p out\n", &line);
    assert_eq!(toy.alpha(&["compare", "--budget=30m"]).code, None);
    wait_until("the build to end by itself", || toy.processes().is_empty());
    toy.json(&["compare", "--budget=30m"]).says("SAME", 4);
}

/// Neither half a commit nor a second chance: the same confirmation goes on.
#[test]
fn a_commit_that_is_killed_goes_on() {
    let toy = toy_that_signals("SIGKILL", 0, Moment::Turn);
    toy.change(FASTER);
    toy.json(&["compare", "--budget=30m"]).says("FASTER", 0);
    let (parent, runs) = (toy.head(), toy.runs());
    let started = toy.start(&["commit", "-m", "no waste in attention"]);
    wait_until("some runs of the confirmation", || toy.runs() >= runs + 12);
    started.signal("KILL");
    assert_eq!(started.end().code, None);
    wait_until("the trainers to end by themselves", || toy.processes().is_empty());
    assert_eq!(toy.head(), parent);
    let landed = toy.json(&["commit", "-m", "no waste in attention"]);
    assert_eq!(landed.code, Some(0), "{:#}\n{}", landed.object, landed.stderr);
    assert_eq!(toy.git(&["rev-parse", "HEAD^"]), parent);
    assert_eq!(toy.git(&["status", "--porcelain"]), "");
    toy.alpha(&["verify", "HEAD"]).succeeded();
}

#[test]
fn sigterm_ends_it_too() {
    let toy = toy_that_signals("SIGKILL", 0, Moment::Turn);
    toy.change(RENAMED);
    let running = toy.start(&["compare", "--budget=30m", "--json"]);
    wait_until("the first pair", || toy.runs() >= 3);
    running.signal("TERM");
    let done = running.end();
    assert_eq!(done.code, Some(143), "{done:?}");
    assert_eq!(toy.processes(), Vec::<String>::new());
    Answer::of(toy.alpha(&["compare", "--budget=30m", "--json"])).says("SAME", 4);
}
