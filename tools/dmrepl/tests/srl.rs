// SPDX-License-Identifier: GPL-2.0

//! `dmrepl srl` on files: what it formats, what it refuses, and that dump and check say what is there.

mod image;

use std::{fs, process::Output};

use image::{stderr, stdout, Image, Write};
use serde_json::Value;

fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal")
}

fn records(output: &Output) -> Vec<Value> {
    stdout(output)
        .lines()
        .map(|l| serde_json::from_str(l).expect(l))
        .collect()
}

fn seqs(output: &Output, state: &str) -> Vec<u64> {
    let all = records(output);
    all.iter()
        .filter(|r| r["state"] == state)
        .map(|r| r["seq"].as_u64().unwrap())
        .collect()
}

#[test]
fn a_blank_device_is_formatted_and_whole() {
    let image = Image::blank(16 << 20);
    let output = image.run(&["format"], &[]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(
        stdout(&output).contains("formatted as an SRL: 16 MiB, ring of"),
        "{}",
        stdout(&output)
    );

    let output = image.run(&["check"], &[]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(
        stdout(&output).contains("group: none yet"),
        "{}",
        stdout(&output)
    );

    let output = image.run(&["dump"], &["--json"]);
    assert_eq!((code(&output), stdout(&output).as_str()), (0, ""));
    assert!(stderr(&output).contains("no group has used this SRL"));
}

#[test]
fn without_a_ring_there_is_nothing_to_dump() {
    let image = Image::blank(2 << 20);
    assert!(stdout(&image.run(&["format"], &["--no-ring"])).contains("no ring"));
    assert_eq!(code(&image.run(&["check"], &[])), 0);
    let output = image.run(&["dump"], &[]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("without a ring"));
}

#[test]
fn what_is_there_is_named_and_kept() {
    for (at, bytes, named) in [
        (0x438, &[0x53, 0xef][..], "ext2/3/4"),
        (0, b"XFSB", "XFS"),
        (1000, b"something", "unknown kind at its beginning"),
        ((16 << 20) - 3, b"end", "unknown kind at its end"),
    ] {
        let image = Image::blank(16 << 20);
        image.patch(at, bytes);
        let before = fs::read(image.path()).unwrap();
        let output = image.run(&["format"], &[]);
        assert_eq!(code(&output), 1);
        let said = stderr(&output);
        assert!(
            said.contains(named) && said.contains("--force") && said.contains(&image.name()),
            "{said}"
        );
        assert!(
            before == fs::read(image.path()).unwrap(),
            "a refusal changed the device"
        );

        assert_eq!(code(&image.run(&["format"], &["--force"])), 0);
        assert_eq!(code(&image.run(&["check"], &[])), 0);
    }
}

#[test]
fn an_srl_in_use_by_a_group_is_not_formatted_again_by_mistake() {
    let image = Image::with_group(16 << 20);
    let output = image.run(&["format"], &[]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("the SRL of group db"),
        "{}",
        stderr(&output)
    );
    assert_eq!(code(&image.run(&["format"], &["--force"])), 0);
    assert!(stdout(&image.run(&["check"], &[])).contains("group: none yet"));
}

#[test]
fn a_device_that_is_too_small_is_refused() {
    let image = Image::blank(1 << 20);
    let output = image.run(&["format"], &[]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("1048576 bytes"),
        "{}",
        stderr(&output)
    );
    assert!(fs::read(image.path()).unwrap().iter().all(|b| *b == 0));
}

#[test]
fn what_is_no_srl_is_named() {
    let image = Image::blank(16 << 20);
    for command in ["check", "dump"] {
        let output = image.run(&[command], &[]);
        assert_eq!(code(&output), 6);
        assert!(
            stderr(&output).contains("not formatted"),
            "{}",
            stderr(&output)
        );
    }
    image.patch(0x438, &[0x53, 0xef]);
    assert!(stderr(&image.run(&["check"], &[])).contains("ext2/3/4"));
}

#[test]
fn dump_shows_what_was_written() {
    let mut image = Image::with_group(16 << 20);
    let writes: Vec<Write> = (0..10u64)
        .map(|i| Write::new(i * 8, 4096 << (i % 3)))
        .collect();
    image.batch(&writes[..1], 0);
    image.batch(&writes[1..7], 0);
    image.batch(&writes[7..], 3);
    let output = image.run(&["dump"], &["--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    let got = records(&output);
    assert_eq!(got.len(), writes.len());
    for (i, (got, write)) in got.iter().zip(&writes).enumerate() {
        let seq = i as u64 + 1;
        assert_eq!(
            *got,
            serde_json::json!({
                "seq": seq, "epoch": image.epoch().to_string(), "volume": 0, "sector": write.sector,
                "sectors": write.bytes / 512, "op": "write", "crc": write.crc(seq), "depends_on": seq - 1,
                "time_ns": 1_000_000_000 + seq, "fua": seq % 2 == 0, "origin": 1, "payload": "ok",
                "payload_offset": image.payload_at(seq), "state": "live", "lap": 0, "offset": got["offset"],
            })
        );
    }
    let text = stdout(&image.run(&["dump"], &[]));
    assert_eq!(text.lines().count(), writes.len());
    assert!(
        text.contains("1970-01-01T00:00:01.000Z volume 0 write"),
        "{text}"
    );
}

#[test]
fn freed_batches_are_shown_on_demand() {
    let mut image = Image::with_group(16 << 20);
    for i in 0..6 {
        image.batch(&[Write::new(i * 8, 4096)], 0);
    }
    image.free_to(4);
    assert_eq!(seqs(&image.run(&["dump"], &["--json"]), "live"), [4, 5, 6]);
    let all = image.run(&["dump"], &["--json", "--all"]);
    assert_eq!(seqs(&all, "freed"), [1, 2, 3]);
    assert_eq!(seqs(&all, "live"), [4, 5, 6]);
    let order: Vec<u64> = records(&all)
        .iter()
        .map(|r| r["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(order, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_torn_tail_is_cut_and_no_damage() {
    let mut image = Image::with_group(16 << 20);
    for i in 0..5 {
        image.batch(&[Write::new(i * 8, 4096)], 0);
    }
    image.spoil_payload(4);
    let output = image.run(&["check"], &[]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(
        stdout(&output).contains("whole up to record 3"),
        "{}",
        stdout(&output)
    );
    let all = image.run(&["dump"], &["--json", "--all"]);
    assert_eq!(code(&all), 0);
    assert_eq!(seqs(&all, "live"), [1, 2, 3]);
    // Record 5 is whole, and disowned with the torn one before it.
    assert_eq!(seqs(&all, "cut"), [4, 5]);
    let payloads: Vec<Value> = records(&all).iter().map(|r| r["payload"].clone()).collect();
    assert_eq!(payloads, ["ok", "ok", "ok", "bad", "ok"]);
}

#[test]
fn what_was_durable_and_is_missing_is_damage() {
    let mut image = Image::with_group(16 << 20);
    for i in 0..4 {
        image.batch(&[Write::new(i * 8, 4096)], 0);
    }
    image.batch(&[Write::new(80, 4096)], 4);
    image.spoil_payload(2);
    for command in [&["check"][..], &["dump", "--all"], &["dump", "--json"]] {
        let output = image.run(&command[..1], &command[1..]);
        assert_eq!(code(&output), 6, "{command:?}");
        let said = stderr(&output);
        assert!(
            said.contains("record 2 cannot be read") && said.contains("record 4 was durable"),
            "{said}"
        );
    }
}

#[test]
fn the_committed_position_proves_too() {
    let mut image = Image::with_group(16 << 20);
    for i in 0..3 {
        image.batch(&[Write::new(i * 8, 4096)], 0);
    }
    image.change(|sb| {
        let epoch = sb.lineage().newest().unwrap().id;
        sb.set_commit(replicate_core::units::Position {
            epoch,
            seq: replicate_core::units::Seq(3),
        });
    });
    assert_eq!(code(&image.run(&["check"], &[])), 0);
    image.spoil_payload(3);
    assert_eq!(code(&image.run(&["check"], &[])), 6);
}

#[test]
fn the_ring_wraps() {
    let mut image = Image::with_group(16 << 20);
    for i in 0..40 {
        image.batch(&[Write::new(i * 2048, 700 << 10)], 0);
        image.free_to(i.saturating_sub(3).max(1));
    }
    let live = seqs(&image.run(&["dump"], &["--json"]), "live");
    assert_eq!(live, [36, 37, 38, 39, 40]);
    let all = image.run(&["dump"], &["--json", "--all"]);
    assert_eq!(code(&all), 0, "{}", stderr(&all));
    let order: Vec<u64> = records(&all)
        .iter()
        .map(|r| r["seq"].as_u64().unwrap())
        .collect();
    assert!(order.len() > 10, "{order:?}");
    assert!(order.windows(2).all(|w| w[0] + 1 == w[1]), "{order:?}");
    let laps: Vec<u64> = records(&all)
        .iter()
        .map(|r| r["lap"].as_u64().unwrap())
        .collect();
    assert!(laps.first() < laps.last(), "{laps:?}");
    assert_eq!(code(&image.run(&["check"], &[])), 0);
}

#[test]
fn a_later_lineage_cuts_within_a_batch() {
    let mut image = Image::with_group(16 << 20);
    image.batch(&[0, 8, 16, 24].map(|s| Write::new(s, 4096)), 0);
    // The peer took over after record 2; this host comes back and follows it.
    image.fork_after(2);
    let output = image.run(&["dump"], &["--json"]);
    assert_eq!(
        (seqs(&output, "live"), seqs(&output, "cut")),
        (vec![1, 2], vec![3, 4])
    );
    image.batch(&[Write::new(0, 8192)], 0);
    let output = image.run(&["dump"], &["--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(
        (seqs(&output, "live"), seqs(&output, "cut")),
        (vec![1, 2, 3], vec![3, 4])
    );
}

#[test]
fn one_whole_superblock_is_enough() {
    let mut image = Image::with_group(16 << 20);
    image.batch(&[Write::new(0, 4096)], 0);
    for at in [0, 65536, (16 << 20) - 131_072] {
        image.patch(at + 100, b"garbage");
    }
    let output = image.run(&["check"], &[]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(
        stdout(&output).matches("not valid").count() == 3,
        "{}",
        stdout(&output)
    );
    assert_eq!(seqs(&image.run(&["dump"], &["--json"]), "live"), [1]);

    image.patch((16 << 20) - 65536 + 100, b"garbage");
    assert_eq!(code(&image.run(&["check"], &[])), 6);
}

#[test]
fn old_batches_of_another_group_are_not_shown() {
    let mut image = Image::with_group(16 << 20);
    for i in 0..3 {
        image.batch(&[Write::new(i * 8, 4096)], 0);
    }
    assert_eq!(code(&image.run(&["format"], &["--force"])), 0);
    let mut image = image.adopt_by_another_group();
    assert_eq!(stdout(&image.run(&["dump"], &["--all"])), "");
    image.batch(&[Write::new(64, 4096)], 0);
    assert_eq!(
        seqs(&image.run(&["dump"], &["--json", "--all"]), "live"),
        [1]
    );
    assert_eq!(
        seqs(&image.run(&["dump"], &["--json", "--all"]), "cut"),
        [] as [u64; 0]
    );
}
