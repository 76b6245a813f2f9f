// SPDX-License-Identifier: GPL-2.0

//! The binary from end to end, on files: what it wrote it finds again, damage gives exit status 1, and
//! bad usage 2.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("stamp.{}.{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn disk(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::File::create(&path)
            .unwrap()
            .set_len(24 << 20)
            .unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn stamp(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stamp"))
        .args(args)
        .output()
        .unwrap()
}

fn expect(o: &Output, code: i32) -> String {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&o.stdout),
        String::from_utf8_lossy(&o.stderr)
    );
    assert_eq!(o.status.code(), Some(code), "{text}");
    text
}

fn str(p: &Path) -> &str {
    p.to_str().unwrap()
}

#[test]
fn what_is_written_is_found_and_damage_is_too() {
    let f = Folder::new("write");
    let (a, b, journal) = (f.disk("a"), f.disk("b"), f.0.join("journal"));
    let written = stamp(&[
        "write",
        "--dev",
        str(&a),
        "--dev",
        str(&b),
        "--writers",
        "2",
        "--depth",
        "3",
        "--readers",
        "1",
        "--blocks",
        "512x2,4096x4,65536,1048576,unaligned",
        "--count",
        "600",
        "--seed",
        "5",
        "--buffered",
        "--fsync-every",
        "20",
        "--fua-percent",
        "10",
        "--discard-percent",
        "3",
        "--zero-percent",
        "3",
        "--ack-file",
        str(&journal),
        "--sync-ack",
        "--verify-at-end",
    ]);
    assert!(expect(&written, 0).contains("\"violations\":0"));
    let check = |more: &[&str]| {
        let mut args = vec!["check", str(&a), str(&b), "--journal", str(&journal)];
        args.extend(more);
        stamp(&args)
    };
    let all = ["--require", "acked", "--atomic", "1048576"];
    assert!(expect(&check(&all), 0).contains("PASS"));
    assert!(expect(&check(&["--json"]), 0).contains("\"acked_lost\":0"));

    // A sector that shows a write of depth 1 before the last is put back: one flipped byte is enough.
    let image = std::fs::read(&a).unwrap();
    let at = (0..image.len() / 512)
        .find(|s| image[s * 512..].starts_with(b"DMRSTAMP"))
        .unwrap()
        * 512;
    let file = std::fs::OpenOptions::new().write(true).open(&a).unwrap();
    file.write_all_at(&[image[at + 77] ^ 1], at as u64 + 77)
        .unwrap();
    let text = expect(&check(&all), 1);
    assert!(
        text.contains("damaged stamp") && text.contains("FAIL"),
        "{text}"
    );
    file.write_all_at(&[0; 512], at as u64).unwrap();
    expect(&check(&all), 1);
    file.write_all_at(&image[at..at + 512], at as u64).unwrap();
    expect(&check(&all), 0);
}

#[test]
fn shapes_pass_on_a_file() {
    let f = Folder::new("shapes");
    let text = expect(
        &stamp(&["shapes", "--dev", str(&f.disk("a")), "--buffered"]),
        0,
    );
    assert!(text.contains("PASS"), "{text}");
}

#[test]
fn bad_usage_names_the_fault() {
    let f = Folder::new("usage");
    let a = f.disk("a");
    for (args, say) in [
        (
            vec!["write", "--dev", str(&a), "--buffered"],
            "--seconds or --count",
        ),
        (
            vec!["write", "--dev", "/nonexistent", "--count", "1"],
            "/nonexistent",
        ),
        (
            vec![
                "write",
                "--dev",
                str(&a),
                "--buffered",
                "--count",
                "1",
                "--blocks",
                "100",
            ],
            "`100`",
        ),
        (
            vec![
                "write",
                "--dev",
                str(&a),
                "--buffered",
                "--count",
                "1",
                "--region",
                "8:99999999",
            ],
            "region",
        ),
        (vec!["check", "/nonexistent"], "/nonexistent"),
        (vec!["check", str(&a), "--order", str(&a)], "order line 1"),
    ] {
        let text = expect(&stamp(&args), 2);
        assert!(text.contains(say), "{args:?}: {text}");
    }
}
