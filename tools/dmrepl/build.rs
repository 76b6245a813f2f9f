// SPDX-License-Identifier: GPL-2.0

//! Turns the generated uapi header into Rust, so that the tool and the module share one list of
//! numbers and names. Fails the build when the header has a shape that it does not know.

use std::{env, fmt::Write, fs, path::Path};

const HEADER: &str = "../../include/uapi/linux/dm_replicate.h";
const PREFIX: &str = "DM_REPLICATE_";

fn main() {
    println!("cargo:rerun-if-changed={HEADER}");
    println!("cargo:rerun-if-changed=build.rs");
    let header = fs::read_to_string(HEADER).unwrap_or_else(|e| panic!("cannot read {HEADER}: {e}"));
    let out = Path::new(&env::var("OUT_DIR").expect("set by cargo")).join("uapi.rs");
    fs::write(&out, generate(&without_comments(&header))).expect("OUT_DIR is writable");
}

fn without_comments(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("/*") {
        out.push_str(before);
        rest = after.split_once("*/").expect("every comment ends").1;
    }
    out + rest
}

fn generate(header: &str) -> String {
    let mut out = String::new();
    for line in header.lines() {
        let Some(define) = line.strip_prefix("#define ") else {
            continue;
        };
        let Some((name, value)) = define.split_once(char::is_whitespace) else {
            continue;
        };
        let Some(name) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let value = value.trim();
        let kind = if value.starts_with('"') {
            "&str"
        } else {
            "u32"
        };
        writeln!(out, "pub const {name}: {kind} = {value};").unwrap();
    }

    // Named enums are values with names; anonymous ones number attributes or commands.
    for block in header.split("enum ").skip(1) {
        let (head, body) = block.split_once('{').expect("an enum has a body");
        let body = body.split_once('}').expect("an enum ends").0;
        let entries: Vec<&str> = body
            .split(',')
            .map(|e| e.split('=').next().unwrap_or("").trim())
            .filter(|e| !e.is_empty())
            .collect();
        match head.trim() {
            "" => numbers(&mut out, &entries),
            name => names(&mut out, name, &entries, body),
        }
    }
    out
}

fn names(out: &mut String, name: &str, entries: &[&str], body: &str) {
    assert!(!body.contains('='), "{name}: an enum here counts from 0");
    let prefix = format!("{}_", name.to_uppercase());
    let constant = name.to_uppercase().replace(PREFIX, "");
    writeln!(out, "pub const {constant}: &[&str] = &[").unwrap();
    for entry in entries {
        let entry = entry
            .strip_prefix(&prefix)
            .expect("entries carry the enum's name");
        writeln!(out, "    \"{}\",", kebab(entry)).unwrap();
    }
    writeln!(out, "];").unwrap();
}

fn numbers(out: &mut String, entries: &[&str]) {
    let max = entries
        .iter()
        .find_map(|e| e.strip_prefix("__")?.strip_suffix("MAX"))
        .expect("an anonymous enum ends in __X_MAX");
    let module = max
        .trim_start_matches(PREFIX)
        .trim_end_matches('_')
        .to_lowercase();
    let kind = if module == "cmd" { "u8" } else { "u16" };
    let mut list = String::new();
    writeln!(out, "pub mod {module} {{").unwrap();
    for (i, entry) in entries
        .iter()
        .take_while(|e| !e.starts_with("__"))
        .enumerate()
    {
        let entry = entry
            .strip_prefix(max)
            .expect("entries carry the set's name");
        writeln!(out, "    pub const {entry}: {kind} = {};", i + 1).unwrap();
        write!(list, "\"{}\", ", kebab(entry)).unwrap();
    }
    writeln!(
        out,
        "    pub const NAMES: &[&str] = &[{}];\n}}",
        list.trim_end_matches(", ")
    )
    .unwrap();
}

fn kebab(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}
