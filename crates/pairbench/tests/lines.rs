//! `Sharing::Lines`: a program in C that knows nothing of the loop takes turns by the lines that it prints.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, process::Command, sync::Arc, time::Duration};

use pairbench::{
    Arm, LoopError, Quiet,
    draws::Randomization,
    pair::{
        self, PairRequest, PairRun,
        lines::{Disorder, StepCounter, StepLine, StepLines, plain_text},
        schedule::Blocks,
        timed_command::{Sharing, TimedCommand},
    },
    process::{isolation::Isolation, sandbox::SandboxSpec},
};

const STEPS: u64 = 40;

/// Works for a number of milliseconds a step. Its output goes through C's buffer and is never flushed.
const TRAINER: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
static double now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}
int main(int count, char **words) {
    FILE *file = fopen("settings", "r");
    char mode[32];
    double ms;
    int steps = atoi(words[count - 1]), step;
    if (fscanf(file, "%31s %lf", mode, &ms) != 2) return 2;
    if (!strcmp(mode, "buffered")) setvbuf(stdout, NULL, _IOFBF, 1 << 20);
    printf("a model of 7 parameters\n");
    for (step = 1; step <= steps; step++) {
        double until = now_ms() + ms;
        while (now_ms() < until) {}
        if (!strcmp(mode, "slow_start") && step == 1) usleep(700000);
        if (!strcmp(mode, "every_tenth") && step % 10) continue;
        if (!strcmp(mode, "backwards") && step == 20) step = 5;
        if (!strcmp(mode, "short") && step > 12) return 0;
        if (!strcmp(mode, "crashes") && step > 12) { fprintf(stderr, "out of memory\n"); return 3; }
        if (!strcmp(mode, "other_form") && step > 12) { printf("%d: fine\n", step); sleep(60); }
        if (!strcmp(mode, "silent") && step == 9) sleep(60);
        if (!strcmp(mode, "garbage")) { printf("\033[31m\377\376%c", 0); }
        if (!strcmp(mode, "endless_line") && step == 3) { int i; for (i = 0; i < 300000; i++) putchar('x'); putchar('\n'); }
        if (!strcmp(mode, "progress")) { printf("\rstep %d", step); fflush(stdout); continue; }
        printf("step %d\n", step);
        if (!strcmp(mode, "twice")) printf("step %d\n", step);
        if (!strcmp(mode, "stderr") && step == 1) dup2(2, 1);
    }
    if (!strcmp(mode, "child") && !fork()) { sleep(300); }
    return 0;
}
"#;

#[derive(Debug)]
struct Form;

impl StepLines for Form {
    fn read(&self, line: &str) -> Option<StepLine> {
        let number = line.split_once("step ")?.1.parse().ok()?;
        Some(StepLine { number: Some(number) })
    }

    fn form(&self) -> String {
        "step N".to_owned()
    }
}

/// A pair of two such trainers, each with its mode and the milliseconds of a step; one that hangs gets two seconds.
fn pair(baseline: (&str, f64), candidate: (&str, f64)) -> Result<PairRun, LoopError> {
    slowed(baseline, candidate, 0.0)
}

/// The same with a delay of the candidate's turns, as a share of them.
fn slowed(baseline: (&str, f64), candidate: (&str, f64), delay: f64) -> Result<PairRun, LoopError> {
    shared(Sharing::Lines, baseline, candidate, delay)
}

/// The same with another sharing of the machine.
fn shared(sharing: Sharing, baseline: (&str, f64), candidate: (&str, f64), delay: f64) -> Result<PairRun, LoopError> {
    let root = tempfile::tempdir().unwrap();
    let isolation = Arc::new(Isolation::detect(&[], &[]));
    let source = root.path().join("trainer.c");
    fs::write(&source, TRAINER).unwrap();
    let program = root.path().join("program");
    let done = Command::new("cc").arg("-O1").arg(&source).arg("-o").arg(&program).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let spec = |name: &str, (mode, ms): (&str, f64)| {
        let folder = root.path().join(name);
        fs::create_dir(&folder).unwrap();
        fs::copy(&program, folder.join("trainer")).unwrap();
        fs::write(folder.join("settings"), format!("{mode} {ms}")).unwrap();
        SandboxSpec::of_folder(&folder, &isolation).unwrap()
    };
    let specs = [spec("old", baseline), spec("new", candidate)];
    let hangs = matches!(candidate.0, "silent" | "other_form");
    let request = PairRequest {
        command: TimedCommand {
            line: "./trainer {steps}".to_owned(),
            steps: STEPS,
            sharing,
            turn_timeout: Duration::from_secs(if hangs { 2 } else { 60 }),
            writes_weights: false,
            step_lines: Some(Arc::new(Form)),
        },
        specs: [&specs[0], &specs[1]],
        script: &Blocks { warmup_steps: 5, block_steps: 3, blocks: 11, steps: STEPS }.script(),
        draws: Randomization::fresh(),
        number: 0,
        work: &root.path().join("work"),
        slowed: (delay > 0.0).then_some((Arm::Candidate, delay)),
    };
    let run = pair::run(&request, &Quiet)?;
    for arm in Arm::BOTH {
        let printed = fs::read(&run.arms[arm.index()].folder.output_files()[0]).unwrap();
        let printed = String::from_utf8_lossy(&printed);
        assert!(printed.contains("step 1") && printed.contains(&format!("step {STEPS}")), "{}: {printed}", arm.name());
    }
    Ok(run)
}

#[test]
fn a_program_that_prints_takes_turns() {
    let run = pair(("plain", 20.0), ("plain", 5.0)).unwrap();
    assert!(run.void.is_none(), "{:?}", run.void);
    // ln 4, if no other program is at work.
    assert!(run.log_ratio() > 0.2, "{}", run.log_ratio());
    for arm in &run.arms {
        assert_eq!(arm.turns.iter().filter(|turn| turn.block.is_some()).count(), 11);
    }
}

/// A trainer that went on during the delay would have done half of its next steps when their turn begins.
#[test]
fn a_delay_stops_the_trainer() {
    let runs: Vec<PairRun> = (0..3).map(|_| slowed(("plain", 8.0), ("plain", 8.0), 0.5).unwrap()).collect();
    let mut found: Vec<f64> = runs.iter().map(PairRun::undelayed_log_ratio).collect();
    found.sort_by(f64::total_cmp);
    // Otherwise it is ln 2 and more. Other programs may slow either.
    assert!(found[1] < 0.5, "{found:?}");
    assert!(runs.iter().all(|run| run.undelayed_log_ratio() > run.log_ratio()));
}

#[test]
fn what_programs_print_among_their_steps_does_no_harm() {
    for mode in ["garbage", "endless_line", "progress", "twice", "stderr"] {
        let run = pair((mode, 5.0), ("plain", 5.0)).unwrap_or_else(|error| panic!("{mode}: {error}"));
        assert!(run.void.is_none(), "{mode}: {:?}", run.void);
    }
}

#[test]
fn what_cannot_be_counted_is_refused() {
    for (mode, named) in [
        ("every_tenth", "for every step"),
        ("backwards", "printed step 5 after step 19"),
        ("short", "in its turn, after 12 lines like `step N`"),
        ("crashes", "out of memory"),
        ("other_form", "13: fine"),
        ("buffered", "the lines of several steps at once: its output is buffered"),
        ("silent", "no answer in its turn, after 8 lines like `step N`"),
    ] {
        let error = pair(("plain", 5.0), (mode, 5.0)).err().unwrap_or_else(|| panic!("{mode}")).to_string();
        assert!(error.contains(named) && error.contains("candidate"), "{mode}: {error}");
    }
}

/// Without turns, step lines tell the start from the rest.
#[test]
fn a_start_is_not_a_step() {
    let run = shared(Sharing::Whole, ("plain", 5.0), ("slow_start", 5.0), 0.0).unwrap();
    // Each takes 5 ms a step; the candidate starts 700 ms later than the baseline, whose 40 steps take 200 ms.
    assert!(run.log_ratio().abs() < 0.7, "{}", run.log_ratio());
    assert!(run.run_log_ratio() < -1.0, "{}", run.run_log_ratio());
    let timed = run.arms.each_ref().map(|arm| arm.turns.iter().filter(|turn| turn.block.is_some()).count());
    assert_eq!(timed, [11, 11]);
    for (mode, named) in [
        ("short", "printed 12 step lines, and was told to make 40"),
        ("every_tenth", "for every step"),
        ("buffered", "the lines of several steps at once"),
    ] {
        let error = shared(Sharing::Whole, ("plain", 5.0), (mode, 5.0), 0.0).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("candidate"), "{error}");
    }
}

/// Nobody waits for a child that keeps the terminal open.
#[test]
fn a_child_that_outlives_its_trainer_is_ended() {
    let run = pair(("plain", 5.0), ("child", 5.0)).unwrap();
    assert!(run.seconds < 200.0, "the child lives for 300 s");
}

#[test]
fn steps_are_counted_once_each() {
    let mut counter = StepCounter::default();
    let mut count = |number| counter.count(StepLine { number }).map(|counts| (counts, number));
    assert_eq!(count(Some(0)), Ok((true, Some(0))));
    assert_eq!(count(Some(0)), Ok((false, Some(0))));
    assert_eq!(count(Some(1)), Ok((true, Some(1))));
    assert_eq!(count(Some(3)), Err(Disorder::Skipped { from: 1, to: 3 }));
    assert_eq!(count(Some(0)), Err(Disorder::Back { from: 1, to: 0 }));
    assert_eq!(count(Some(2)), Ok((true, Some(2))));
    assert_eq!(counter.steps, 3);
    // Lines without numbers count one by one.
    let mut counter = StepCounter::default();
    (0..4).for_each(|_| assert_eq!(counter.count(StepLine { number: None }), Ok(true)));
    assert_eq!(counter.steps, 4);
}

#[test]
fn text_is_what_a_reader_sees() {
    for (bytes, text) in [
        (&b"\x1b[1;32mstep\x1b[0m 4\x08"[..], "step 4"),
        (b"\x1b]0;title\x07loss\t3", "loss\t3"),
        (b"\x1b(Bx\x1b", "Bx"),
        (b"\xff\xe2\x82\xacx", "\u{fffd}€x"),
    ] {
        assert_eq!(plain_text(bytes), text);
    }
}
