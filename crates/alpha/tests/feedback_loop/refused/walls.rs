//! A hostile change reaches only its own folder, and makes no gain that a user would not have.

use std::process::Stdio;

use pairbench::process::isolation::Isolation;

use crate::{changes::FASTER, toy::Toy};

/// Whether this machine has walls; where not, the loop says what is not protected, and these tests check nothing.
fn has_walls() -> bool {
    Isolation::detect(&[], &[]).has_walls()
}

#[test]
fn a_trainer_sees_neither_the_other_arm_nor_the_loop_nor_any_process() {
    if !has_walls() {
        return;
    }
    let toy = Toy::new();
    toy.begin();
    let (root, home) = (toy.root(), toy.outside("home"));
    toy.edit_start(&[
        "import signal",
        &format!("assert not os.path.exists({root:?}) and not os.path.exists({home:?}), 'the repository or the cache'"),
        "assert sorted(os.listdir('/alpha')) in [['run'], ['run', 'turns']], os.listdir('/alpha')",
        "others = {int(name) for name in os.listdir('/proc') if name.isdigit()} - {1, os.getpid()}",
        "assert len(others) <= 1, others",
        "try:",
        "    open('data/text.txt', 'a').write('mine')",
        "    raise SystemExit('an input can be written')",
        "except OSError:",
        "    pass",
    ]);
    let smoke = toy.alpha(&["smoke"]);
    assert_eq!(smoke.code, Some(0), "{}{}", smoke.stdout, smoke.stderr);
}

/// Text that a process types into a terminal runs as the user's own.
#[test]
fn a_trainer_does_not_have_the_user_s_terminal() {
    if !has_walls() {
        return;
    }
    let toy = Toy::new();
    toy.begin();
    toy.edit_start(&["assert not os.isatty(os.open('/dev/tty', os.O_RDWR)), 'the terminal'"]);
    let in_terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let mut command = toy.command("python3");
    command.args(["-c", in_terminal, "/bin/sh", "-c", "test -t 2 </dev/tty && exec \"$@\"", "sh"]);
    command.args([env!("CARGO_BIN_EXE_alpha"), "loop", "smoke"]);
    let smoke = command.stdin(Stdio::null()).output().unwrap();
    assert!(smoke.status.success(), "{}", String::from_utf8_lossy(&smoke.stdout));
}

/// A folder that was open before there were walls leads around them.
#[test]
fn a_trainer_does_not_inherit_what_the_user_has_open() {
    let toy = Toy::new();
    toy.begin();
    toy.edit_start(&["assert not os.path.lexists('/proc/self/fd/7'), 'an open folder'"]);
    let mut command = toy.command("/bin/sh");
    command.args(["-c", "exec 7</ && test -e /proc/self/fd/7 && exec \"$@\"", "sh"]);
    command.args([env!("CARGO_BIN_EXE_alpha"), "loop", "smoke"]);
    let smoke = command.stdin(Stdio::null()).output().unwrap();
    assert!(smoke.status.success(), "{}", String::from_utf8_lossy(&smoke.stderr));
}

#[test]
fn what_visible_names_must_be_there_and_may_not_show_the_repository() {
    let toy = Toy::untested();
    let text = toy.read("loop.toml");
    let kept = toy.path(".git/objects").display().to_string();
    for (path, named) in [("/nowhere/data", "`/nowhere/data`"), ("/", "which shows"), (&kept, "which shows")] {
        toy.write("loop.toml", &text.replacen("schema = 1", &format!("schema = 1\nvisible = [{path:?}]"), 1));
        toy.commit("another folder");
        toy.alpha(&["status"]).failed(2, &["`visible`", named]);
    }
}

#[test]
fn records_of_somebody_else_are_not_read() {
    let toy = Toy::new();
    toy.begin();
    toy.edit_start(&[
        "import atexit",
        "atexit.register(lambda: (os.remove('run/metrics.jsonl'), os.symlink('/etc/hostname', 'run/metrics.jsonl')))",
    ]);
    toy.alpha(&["compare"]).failed(4, &["borrowed_records"]);
    // The pair that it began is lost to it, and asking again changes nothing.
    toy.alpha(&["compare"]).failed(4, &["borrowed_records"]);
}

#[test]
fn a_gain_that_is_there_only_while_it_is_measured_is_refused() {
    let toy = Toy::new();
    toy.begin();
    toy.edit_start(&[
        "if os.environ.get('ALPHA_TURNS'):",
        "    WORK.update(attention=2_000, attention_backward=2_000)",
    ]);
    toy.json(&["compare"]).says("FASTER", 0);
    let parent = toy.head();
    toy.alpha(&["commit", "-m", "fast while somebody looks"]).failed(4, &["only_while_measured"]);
    assert_eq!(toy.head(), parent);
}

#[test]
fn work_that_is_done_while_weights_are_written_is_counted() {
    let toy = Toy::new();
    toy.begin();
    toy.change(FASTER);
    // As much as the steps have saved, in the answers to `save`.
    toy.edit(
        "turns.before_step(lambda done: write_weights(f\"run/checkpoint-{done}\", s.params))",
        "turns.before_step(lambda done: (spin(600_000), write_weights(f\"run/checkpoint-{done}\", s.params)))",
    );
    toy.json(&["compare"]).is_refused_for(&["moved_work"]);
}

#[test]
fn work_that_is_gathered_in_few_steps_is_counted() {
    let toy = Toy::new();
    toy.begin();
    // The median over blocks sees none of it.
    toy.edit("spin(WORK.get(kernel.__name__, 0))", "spin(0 if step % 30 else 30 * WORK.get(kernel.__name__, 0))");
    toy.json(&["compare"]).is_refused_for(&["moved_work"]);
}

#[test]
fn a_training_that_stops_to_learn_after_the_workload_is_refused() {
    let toy = Toy::new();
    toy.begin();
    toy.change(FASTER);
    toy.edit("s.step, s.lr = step, rate(step)", "s.step, s.lr = step, rate(step) if step <= 60 else 0.0");
    toy.json(&["compare"]).says("FASTER", 0);
    let parent = toy.head();
    toy.alpha(&["commit", "-m", "learns as long as somebody looks"]).failed(4, &["parity in plain runs"]);
    assert_eq!(toy.head(), parent);
}

#[test]
fn a_guard_s_workload_is_trained_too() {
    let toy = Toy::new();
    let text = toy.read("loop.toml");
    toy.write(
        "loop.toml",
        &(text
            + "\n[guards.short]\nkind = \"workload\"\nmargin_pct = 50\n[guards.short.workload]\n\
               command = \"./out/trainer --steps={steps} --seed={seed}\"\nsteps = 30\ntokens_per_step = 16\n\
               inputs = [\"data/text.txt\"]\n"),
    );
    toy.commit("a guard");
    toy.begin();
    toy.change(FASTER);
    toy.edit("s.step, s.lr = step, rate(step)", "s.step, s.lr = step, rate(step) if steps != 30 else 0.0");
    toy.json(&["compare"]).is_refused_for(&["guard short: parity"]);
}
