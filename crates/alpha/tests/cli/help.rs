//! Help of every command, and completions.

use crate::alpha;

#[test]
fn help_of_every_command() {
    for command in [
        "",
        "train",
        "sample",
        "eval",
        "tokenizer",
        "tokenizer build",
        "datagen",
        "datagen abc",
        "check",
        "devices",
        "loop",
        "loop compare",
        "completions",
    ] {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        let (code, stdout, stderr) = alpha(&arguments);
        assert_eq!((code, stderr.as_str()), (0, ""), "{command}");
        insta::assert_snapshot!(format!("help {command}").trim().replace(' ', "_"), stdout);
    }
}

#[test]
fn version() {
    let (code, stdout, stderr) = alpha(&["--version"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, format!("alpha {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn nothing_to_do_is_answered_with_help_on_stderr() {
    for (arguments, usage) in
        [(&[][..], "Usage: alpha <COMMAND>"), (&["tokenizer"], "Usage: alpha tokenizer <COMMAND>")]
    {
        let (code, stdout, stderr) = alpha(arguments);
        assert_eq!((code, stdout.as_str()), (2, ""));
        assert!(stderr.contains(usage), "{stderr}");
    }
}

#[test]
fn completions_of_every_shell_know_the_flags() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (code, stdout, stderr) = alpha(&["completions", shell]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{shell}");
        assert!(stdout.contains("accumSteps"), "{shell}");
    }
}
