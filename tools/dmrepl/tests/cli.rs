// SPDX-License-Identifier: GPL-2.0

//! The tool as a process: exit codes, and that the manual page knows every command and option.

use std::{
    collections::BTreeSet,
    process::{Command, Output},
};

const MANUAL: &str = include_str!("../../../Documentation/man/dmrepl.8");

fn dmrepl(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dmrepl"))
        .args(args)
        .output()
        .expect("dmrepl runs")
}

fn help(command: &[&str]) -> String {
    let output = dmrepl(&[command, &["--help"]].concat());
    assert!(output.status.success(), "{command:?} --help");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Returns the subcommands that a help text lists.
fn subcommands(help: &str) -> Vec<String> {
    let lines = help
        .lines()
        .skip_while(|l| *l != "Commands:")
        .skip(1)
        .take_while(|l| !l.is_empty());
    let names = lines.filter(|l| l.starts_with("  ") && !l.starts_with("   "));
    names
        .filter_map(|l| l.split_whitespace().next())
        .filter(|n| *n != "help")
        .map(String::from)
        .collect()
}

fn long_options(help: &str) -> BTreeSet<String> {
    help.split(|c: char| !c.is_ascii_lowercase() && c != '-')
        .filter(|w| w.len() > 3 && w.starts_with("--") && !["--help", "--version"].contains(w))
        .map(String::from)
        .collect()
}

#[test]
fn the_manual_knows_every_command_and_option() {
    let manual = MANUAL.replace("\\-", "-");
    let mut seen = 0;
    let mut todo: Vec<Vec<String>> = vec![vec![]];
    while let Some(command) = todo.pop() {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let text = help(&words);
        for sub in subcommands(&text) {
            let name = [command.clone(), vec![sub]].concat();
            let first = name.first().expect("not empty").clone();
            let last = name.last().expect("not empty").clone();
            let known = manual
                .lines()
                .any(|l| l.contains(&format!("dmrepl {first}")) && l.contains(&last));
            assert!(
                known,
                "the manual does not mention: dmrepl {}",
                name.join(" ")
            );
            todo.push(name);
            seen += 1;
        }
        for option in long_options(&text) {
            assert!(
                manual.contains(&option),
                "the manual does not mention {option} of dmrepl {}",
                words.join(" ")
            );
            seen += 1;
        }
    }
    assert!(
        seen > 50,
        "only {seen} commands and options were found in the help"
    );
}

#[test]
fn exit_codes() {
    let code = |args: &[&str]| dmrepl(args).status.code();
    assert_eq!(code(&["version"]), Some(0));
    assert_eq!(code(&["frobnicate"]), Some(2));
    assert_eq!(code(&["group", "set", "db"]), Some(2));
    assert_eq!(code(&["srl", "check", "/nonexistent"]), Some(1));
    assert_eq!(
        code(&[
            "group",
            "add",
            "db",
            "--srl",
            "/dev/null",
            "--secret-file",
            "/nonexistent"
        ]),
        Some(1)
    );
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dmrepl"))
        .args(["completion", "bash"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("dmrepl runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}
