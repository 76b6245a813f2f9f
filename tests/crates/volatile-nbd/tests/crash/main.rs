// SPDX-License-Identifier: GPL-2.0

//! The server's promises, asserted by a small NBD client against the real sockets: flushed and FUA
//! data survive a cut, unflushed data may or may not, a reset keeps everything, and the same seed after
//! the same history gives the same image.

mod lab;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;

use lab::{Lab, SIZE};
use seeded::Rng;
use volatile_nbd::control;
use volatile_nbd::proto as p;

const SECTORS: u64 = SIZE / 512;

fn fill(n: u64, sectors: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(64 * sectors as usize)
}

fn value(image: &[u8], sector: u64) -> u64 {
    let s = &image[sector as usize * 512..][..512];
    let n = u64::from_le_bytes(s[..8].try_into().unwrap());
    assert!(
        s.chunks(8).all(|c| c == n.to_le_bytes()),
        "sector {sector} is torn inside"
    );
    n
}

/// What each sector may hold after a cut, and what a reader sees.
#[derive(Default)]
struct Model {
    may: BTreeMap<u64, BTreeSet<u64>>,
    now: BTreeMap<u64, u64>,
}

impl Model {
    fn put(&mut self, sector: u64, sectors: u64, n: u64, durable: bool) {
        for s in sector..sector + sectors {
            let may = self.may.entry(s).or_insert_with(|| [0].into());
            if durable {
                may.clear();
            }
            may.insert(n);
            self.now.insert(s, n);
        }
    }

    fn flush(&mut self) {
        for (s, n) in &self.now {
            self.may.insert(*s, [*n].into());
        }
    }
}

/// A seeded history over both disks, two connections each; returns the models.
fn history(lab: &Lab, seed: u64) -> [Model; 2] {
    let mut rng = Rng::new(seed);
    let mut models = [Model::default(), Model::default()];
    let names = ["a", "b"];
    let mut clients: Vec<_> = (0..4).map(|i| lab.client(names[i % 2])).collect();
    for n in 1..=rng.below(120) + 10 {
        let i = rng.below(4) as usize;
        let (c, m) = (&mut clients[i], &mut models[i % 2]);
        let sectors = 1 + rng.below(16);
        // A small range, so that sectors are overwritten and several versions are cached.
        let sector = rng.below(48);
        let fua = rng.chance(100);
        match rng.below(20) {
            0 => {
                c.flush();
                m.flush();
            }
            1 | 2 => {
                let op = [p::CMD_TRIM, p::CMD_WRITE_ZEROES][rng.below(2) as usize];
                c.command(op, fua, sector, sectors).unwrap();
                m.put(sector, sectors, 0, fua);
            }
            _ => {
                c.write(sector, &fill(n, sectors), fua).unwrap();
                m.put(sector, sectors, n, fua);
            }
        }
    }
    for (i, m) in models.iter().enumerate() {
        let seen = clients[i].read(0, SECTORS).unwrap();
        for (s, n) in &m.now {
            assert_eq!(value(&seen, *s), *n, "a read sees the newest write");
        }
    }
    models
}

#[test]
fn a_cut_keeps_what_was_promised_and_may_lose_the_rest() {
    let (mut lost, mut kept, mut older) = (0u64, 0u64, 0u64);
    for seed in 0..150 {
        let lab = Lab::new(|_| ());
        let models = history(&lab, seed);
        lab.say(&format!("cut {seed}"));
        for (name, m) in ["a", "b"].iter().zip(&models) {
            let image = lab.image(name);
            for s in 0..SECTORS {
                let found = value(&image, s);
                let Some(may) = m.may.get(&s) else {
                    assert_eq!(found, 0, "seed {seed}: sector {s} was never written");
                    continue;
                };
                assert!(
                    may.contains(&found),
                    "seed {seed}: {name} sector {s}: {found} not in {may:?}"
                );
                if may.len() > 1 {
                    let newest = m.now[&s];
                    lost += u64::from(found != newest);
                    kept += u64::from(found == newest);
                    older += u64::from(found != newest && Some(&found) != may.first());
                }
            }
            let after = lab.client(name).read(0, SECTORS).unwrap();
            assert_eq!(after, image, "the cache is gone after a cut");
        }
    }
    assert!(
        lost > 100 && kept > 100 && older > 20,
        "lost {lost} kept {kept} older {older}"
    );
}

#[test]
fn the_same_seed_gives_the_same_image() {
    let run = |seed: u64, cut: u64| {
        let lab = Lab::new(|_| ());
        history(&lab, seed);
        let before = lab.say(&format!("crash-image {cut} {}", lab.dir.display()).replace(
            &format!("{}", lab.dir.display()),
            &{
                let d = lab.dir.join("crash");
                std::fs::create_dir_all(&d).unwrap();
                d.display().to_string()
            },
        ));
        assert!(before.contains("policy="));
        lab.say(&format!("cut {cut}"));
        let images = [lab.image("a"), lab.image("b")];
        let copies = [lab.image("crash/a"), lab.image("crash/b")];
        assert_eq!(images, copies, "a crash image is what the cut leaves");
        images
    };
    let mut differ = 0;
    for seed in 0..20 {
        assert_eq!(run(seed, 7), run(seed, 7));
        differ += u64::from(run(seed, 7) != run(seed, 8));
    }
    assert!(differ > 0, "the seed of the cut matters");
}

#[test]
fn a_reset_drops_connections_and_keeps_everything_still_volatile() {
    let mut lost_after_reset = false;
    for seed in 0..40 {
        let lab = Lab::new(|_| ());
        let models = history(&lab, seed);
        let mut old = lab.client("a");
        lab.say("reset");
        assert!(old.gone());
        for (name, m) in ["a", "b"].iter().zip(&models) {
            let seen = lab.client(name).read(0, SECTORS).unwrap();
            for (s, n) in &m.now {
                assert_eq!(value(&seen, *s), *n);
            }
        }
        lab.say(&format!("cut {seed}"));
        let image = lab.image("a");
        for (s, may) in &models[0].may {
            assert!(may.contains(&value(&image, *s)));
            lost_after_reset |= value(&image, *s) != models[0].now[s];
        }
    }
    assert!(
        lost_after_reset,
        "a cache that survived a reset must still be volatile"
    );
}

#[test]
fn a_flush_covers_other_connections_but_not_requests_in_flight() {
    let (mut lost, mut torn) = (false, false);
    for seed in 0..60 {
        let lab = Lab::new(|_| ());
        let (mut one, mut two) = (lab.client("a"), lab.client("a"));
        one.write(0, &fill(1, 4), false).unwrap();
        lab.say("delay 30000 a");
        // In flight for the rest of the test: neither may count as covered or durable.
        one.send(p::CMD_WRITE, 0, 16 * 512, 4 * 512, &fill(2, 4));
        one.send(
            p::CMD_WRITE,
            p::CMD_FLAG_FUA,
            32 * 512,
            8 * 512,
            &fill(3, 8),
        );
        while !lab.say("stats").contains("\"writes\":3") {
            std::thread::yield_now();
        }
        lab.say("delay 0");
        two.flush();
        lab.say(&format!("cut {seed}"));
        assert!(one.gone() && two.gone());
        let image = lab.image("a");
        assert!(
            (0..4).all(|s| value(&image, s) == 1),
            "completed, then flushed by another connection"
        );
        let n = (32..40).filter(|s| value(&image, *s) == 3).count();
        lost |= value(&image, 16) == 0;
        torn |= n > 0 && n < 8;
    }
    assert!(lost && torn, "lost {lost} torn {torn}");
}

#[test]
fn requests_of_an_old_session_do_not_reach_the_disk() {
    let lab = Lab::new(|_| ());
    let mut c = lab.client("a");
    lab.say("hang on a");
    c.send(p::CMD_WRITE, p::CMD_FLAG_FUA, 0, 512, &fill(9, 1));
    lab.say("cut 1");
    lab.say("hang off");
    assert!(c.gone());
    assert_eq!(value(&lab.client("a").read(0, 1).unwrap(), 0), 0);
}

#[test]
fn write_through_has_no_cache_to_lose() {
    let lab = Lab::new(|c| c.write_through = true);
    let mut c = lab.client("a");
    assert_eq!(c.flags & (p::EXPORT_FLUSH | p::EXPORT_FUA), 0);
    for n in 0..64 {
        c.write(n, &fill(n + 1, 1), false).unwrap();
    }
    for seed in 0..20 {
        lab.say(&format!("cut {seed}"));
        let image = lab.image("a");
        assert!((0..64).all(|n| value(&image, n) == n + 1));
    }
}

#[test]
fn a_full_cache_writes_back_and_keeps_its_promises() {
    for seed in 0..20 {
        let lab = Lab::new(|c| c.cache_max = 16 << 10);
        let models = history(&lab, seed);
        lab.say(&format!("cut {seed}"));
        let image = lab.image("a");
        for (s, may) in &models[0].may {
            assert!(may.contains(&value(&image, *s)), "seed {seed} sector {s}");
        }
        assert!(lab.say("stats").contains("\"unflushed\":0"));
    }
}

#[test]
fn whole_disk_trim_reads_zeros() {
    let lab = Lab::new(|c| c.size = Some(8 << 20));
    let path = lab.dir.join("a.img");
    let f = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    f.write_all_at(&[7; 512], 4 << 20).unwrap();
    let d = lab.server.disks[0].clone();
    let s = d.session();
    use volatile_nbd::disk::Request;
    let w = Request::Write {
        at: 0,
        data: fill(5, 1).into(),
        fua: false,
    };
    let started = d.begin(s, w).unwrap();
    d.complete(s, &started).unwrap();
    let t = d
        .begin(
            s,
            Request::Trim {
                at: 0,
                len: 8 << 20,
                fua: false,
            },
        )
        .unwrap();
    d.complete(s, &t).unwrap();
    let r = d
        .begin(
            s,
            Request::Read {
                at: 0,
                len: 8 << 20,
            },
        )
        .unwrap();
    assert!(r.data.iter().all(|b| *b == 0));
    assert!(lab.image("a").iter().all(|b| *b == 0));
}

#[test]
fn faults_are_reported_and_change_nothing() {
    let lab = Lab::new(|_| ());
    let mut c = lab.client("b");
    c.write(8, &fill(1, 8), false).unwrap();
    lab.say("fail write on 10:2 b");
    assert_eq!(c.write(0, &fill(2, 11), false), Err(5));
    assert_eq!(c.command(p::CMD_WRITE_ZEROES, false, 11, 1), Err(5));
    assert_eq!(c.write(12, &fill(3, 1), false), Ok(()));
    lab.say("fail write off b");
    lab.say("fail read on 12:1 b");
    assert_eq!(c.read(0, 16), Err(5));
    assert_eq!(value(&c.read(8, 1).unwrap(), 0), 1);
    lab.say("fail read off");
    lab.say("fail flush on");
    assert_eq!(c.command(p::CMD_FLUSH, false, 0, 0), Err(5));
    assert!(lab.say("stats").contains("\"unflushed\":8"));
    lab.say("fail flush off");
    c.flush();
    assert!(!lab.say("stats").contains("\"unflushed\":8"));
    lab.say("error-after 1 b");
    c.write(0, &fill(4, 1), true).unwrap();
    assert_eq!(c.write(0, &fill(5, 1), true), Err(5));
    lab.say("error-after off");
    let seen = c.read(0, 16).unwrap();
    let values: Vec<u64> = (0..16).map(|s| value(&seen, s)).collect();
    assert_eq!(values, [4, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 3, 1, 1, 1]);
    // Out of range and unaligned are refused, not clipped.
    assert!(c.write(SECTORS, &fill(1, 1), false).is_err());
    c.send(p::CMD_READ, 0, 100, 512, &[]);
    assert_eq!(c.receive(512), Err(22));
}

#[test]
fn a_lost_cache_is_seen_by_clients_that_stay() {
    let mut lost = 0;
    for seed in 0..20 {
        let lab = Lab::new(|_| ());
        let mut c = lab.client("a");
        c.write(0, &fill(1, 8), true).unwrap();
        c.write(0, &fill(2, 4), false).unwrap();
        let mut other = lab.client("b");
        other.write(0, &fill(3, 8), false).unwrap();
        lab.say(&format!("lose {seed} a"));
        let seen = c.read(0, 8).unwrap();
        assert!((0..4).all(|s| [1, 2].contains(&value(&seen, s))));
        assert!((4..8).all(|s| value(&seen, s) == 1));
        assert_eq!(value(&other.read(0, 1).unwrap(), 0), 3);
        lost += (0..4).filter(|s| value(&seen, *s) == 1).count();
    }
    assert!(lost > 0);
}

#[test]
fn a_snapshot_is_what_a_reader_sees() {
    let lab = Lab::new(|_| ());
    history(&lab, 3);
    let file = lab.dir.join("snap");
    lab.say(&format!("snapshot a {}", file.display()));
    assert_eq!(
        std::fs::read(file).unwrap(),
        lab.client("a").read(0, SECTORS).unwrap()
    );
}

#[test]
fn blocks_of_4096_are_kept_or_lost_whole() {
    let mut lost = 0;
    for seed in 0..60 {
        let lab = Lab::new(|c| c.unit = 4096);
        let mut c = lab.client("a");
        assert_eq!(
            c.write(1, &fill(1, 8), false),
            Err(22),
            "unaligned to the block"
        );
        for n in 0..8 {
            c.write(n * 8, &fill(n + 1, 16), false).unwrap();
        }
        lab.say(&format!("cut {seed}"));
        let image = lab.image("a");
        for block in 0..9 {
            let v = value(&image, block * 8);
            assert!((0..8).all(|s| value(&image, block * 8 + s) == v));
            lost += u64::from(v != (block + 1).min(8));
        }
    }
    assert!(lost > 0);
}

#[test]
fn bad_commands_are_named() {
    let lab = Lab::new(|_| ());
    for (line, say) in [
        ("cut x", "`x` is not a number"),
        ("reset nosuch", "no disk `nosuch`"),
        ("fail all on", "`all` is not read"),
        ("frobnicate", "unknown command"),
    ] {
        let control::Answer::Line(answer) = control::run(&lab.server, line) else {
            panic!("{line} ended the server");
        };
        assert!(
            answer.starts_with("error") && answer.contains(say),
            "{answer}"
        );
    }
}

#[test]
fn what_a_killed_client_left_behind_does_not_arrive_after_a_look() {
    let lab = Lab::new(|_| ());
    for round in 0..60u64 {
        let mut c = lab.client("a");
        for n in 0..40 {
            c.send(p::CMD_WRITE, 0, n * 4096, 4096, &fill(round * 100 + n, 8));
        }
        drop(c);
        let look = |name: &str| {
            let file = lab.dir.join(name);
            lab.say(&format!("snapshot a {}", file.display()));
            std::fs::read(file).unwrap()
        };
        let first = look("first");
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(first == look("second"), "round {round}");
    }
}

#[test]
fn what_a_stopped_client_has_sent_does_not_arrive_after_quiet() {
    let lab = Lab::new(|_| ());
    // It has sent much, and has fetched no reply; and a second one stopped in the middle of a write.
    let mut c = lab.client("a");
    let mut half = lab.client("a");
    let mut last = Vec::new();
    for round in 0..60u64 {
        for n in 0..40 {
            c.send(p::CMD_WRITE, 0, n * 4096, 4096, &fill(round * 100 + n, 8));
        }
        if round == 0 {
            half.send(p::CMD_WRITE, 0, 0, 4096, &fill(7777, 1));
        }
        lab.say("quiet a");
        let file = lab.dir.join("look");
        lab.say(&format!("snapshot a {}", file.display()));
        last = std::fs::read(file).unwrap();
        for n in 0..40 {
            assert_eq!(value(&last, n * 8), round * 100 + n, "round {round}");
            c.receive(0).unwrap();
        }
    }
    // Replies that nobody fetches fill the socket: what is behind them stays there.
    for _ in 0..4 {
        c.send(p::CMD_READ, 0, 0, SIZE as u32 / 2, &[]);
    }
    c.send(p::CMD_WRITE, 0, 0, 4096, &fill(8888, 8));
    lab.say("quiet");
    std::thread::sleep(std::time::Duration::from_millis(20));
    let file = lab.dir.join("look");
    lab.say(&format!("snapshot a {}", file.display()));
    assert!(
        std::fs::read(file).unwrap() == last,
        "the write is behind what does not fit"
    );
}
