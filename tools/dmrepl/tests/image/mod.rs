// SPDX-License-Identifier: GPL-2.0

//! An SRL in a file, written as the module writes it: with the core's own code for the format.

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use replicate_core::{
    checksum::crc32c,
    group::{Name, Role},
    lineage::{Epoch, Reason},
    log::{
        batch::{descriptor_bytes, Builder, Run},
        format::SUPERBLOCK_BYTES,
        superblock::{validate, Superblock, Tail},
    },
    units::{Bytes, Chain, EpochId, GroupUuid, HostId, Op, Range, Record, Sector, Seq, VolumeId},
};

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// One application write.
#[derive(Clone, Copy)]
pub struct Write {
    pub sector: u64,
    pub bytes: u32,
}

impl Write {
    pub fn new(sector: u64, bytes: u32) -> Self {
        Write { sector, bytes }
    }

    fn payload(self, seq: u64) -> Vec<u8> {
        (0..self.bytes)
            .map(|i| (u64::from(i) * 7 + seq * 13) as u8)
            .collect()
    }

    pub fn crc(self, seq: u64) -> u32 {
        crc32c(0, &self.payload(seq))
    }
}

/// Where a batch lies.
struct Placed {
    first: u64,
    last: u64,
    offset: u64,
    lap: u64,
    payload: u64,
    chain: Chain,
}

/// The file.
pub struct Image {
    dir: tempfile::TempDir,
    path: PathBuf,
    superblock: Vec<u8>,
    next: u64,
    chain: Chain,
    head: u64,
    batches: Vec<Placed>,
}

impl Image {
    /// Nothing but zeros.
    pub fn blank(bytes: u64) -> Self {
        let dir = tempfile::tempdir().expect("a place for temporary files");
        let path = dir.path().join("srl.img");
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&path)
            .expect("a new file");
        file.set_len(bytes).expect("room");
        Image {
            dir,
            path,
            superblock: Vec::new(),
            next: 1,
            chain: Chain(0),
            head: 0,
            batches: Vec::new(),
        }
    }

    /// Formatted, and used by group db with one epoch.
    pub fn with_group(bytes: u64) -> Self {
        let image = Self::blank(bytes);
        let output = image.run(&["format"], &[]);
        assert!(output.status.success(), "{}", stderr(&output));
        image.start_group(0xab)
    }

    /// After a second format: the next group on the same device.
    pub fn adopt_by_another_group(self) -> Self {
        self.start_group(0xcd)
    }

    fn start_group(mut self, uuid: u8) -> Self {
        (self.next, self.chain, self.head, self.batches) = (1, Chain(0), 0, Vec::new());
        self.superblock = vec![0; SUPERBLOCK_BYTES];
        let newest = [0, 65536u64]
            .map(|at| self.read(at, SUPERBLOCK_BYTES))
            .into_iter()
            .max_by_key(|b| validate(b).map_or(0, |f| f.generation))
            .expect("two slots");
        self.sb().load(&newest).expect("formatted");
        self.change(|sb| {
            sb.set_group(GroupUuid([uuid; 16]), Name::new(b"db").expect("a name"));
            sb.set_role(Role::Primary);
            sb.push_epoch(epoch(uuid, 1, Reason::Created))
                .expect("room");
        });
        self
    }

    fn sb(&mut self) -> &mut Superblock {
        Superblock::mut_from(&mut self.superblock).expect("a whole superblock")
    }

    /// Changes the superblock and writes it.
    pub fn change(&mut self, f: impl FnOnce(&mut Superblock)) {
        let sb = self.sb();
        f(sb);
        sb.advance();
        let offsets = sb.write_offsets();
        let sealed = sb.seal().to_vec();
        for offset in offsets {
            self.patch(offset.0, &sealed);
        }
    }

    /// Returns the current epoch.
    pub fn epoch(&self) -> EpochId {
        let sb = Superblock::ref_from(&self.superblock).expect("a whole superblock");
        sb.lineage().newest().expect("an epoch").id
    }

    /// Writes one batch with the next records; `durable` is the highest seq known to be durable.
    pub fn batch(&mut self, writes: &[Write], durable: u64) {
        let sb = Superblock::ref_from(&self.superblock).expect("a whole superblock");
        let ring = sb.ring().expect("a ring");
        let run = Run {
            group: sb.group(),
            epoch: self.epoch(),
            epoch_index: sb.last_epoch_index(),
            first_seq: Seq(self.next),
            chain: self.chain,
            block: sb.block(),
        };
        let mut descriptor = vec![0; 64 << 10];
        let mut builder = Builder::new(&mut descriptor, run).expect("a builder");
        let mut payload = Vec::new();
        for (seq, write) in (self.next..).zip(writes) {
            builder
                .push(&record(seq, *write))
                .expect("room in the batch");
            payload.extend(write.payload(seq));
        }
        let length = u64::from(builder.length());
        let size = ring.length.0;
        if self.head % size + length > size {
            self.head = (self.head / size + 1) * size;
        }
        let (offset, lap) = (self.head % size, self.head / size);
        let built = builder
            .finish(Bytes(offset), lap, Seq(durable))
            .expect("a batch");
        let front = u64::from(descriptor_bytes(writes.len() as u32, run.block));
        self.patch(
            ring.start.0 + offset,
            &descriptor[..built.descriptor as usize],
        );
        self.patch(ring.start.0 + offset + front, &payload);
        self.batches.push(Placed {
            first: self.next,
            last: self.next + writes.len() as u64 - 1,
            offset,
            lap,
            payload: ring.start.0 + offset + front,
            chain: self.chain,
        });
        self.next += writes.len() as u64;
        self.chain = built.head.chain_after;
        self.head += length;
    }

    /// Moves the tail to the batch that begins with `seq`.
    pub fn free_to(&mut self, seq: u64) {
        let batch = self
            .batches
            .iter()
            .find(|b| b.first == seq)
            .expect("a batch");
        let tail = Tail {
            seq: Seq(seq),
            offset: Bytes(batch.offset),
            lap: batch.lap,
            chain: batch.chain,
        };
        self.change(|sb| sb.set_tail(tail));
    }

    /// Returns where the payload of a record lies in the file: searched for, not computed.
    pub fn payload_at(&self, seq: u64) -> usize {
        let batch = self
            .batches
            .iter()
            .find(|b| b.first <= seq && seq <= b.last)
            .expect("a batch");
        let front = Write::new(0, 512).payload(seq);
        let file = std::fs::read(&self.path).expect("the file");
        let from = usize::try_from(batch.payload).expect("a small file");
        let sectors = file[from..].chunks(512);
        from + 512
            * sectors
                .enumerate()
                .find(|(_, s)| *s == front)
                .expect("the payload")
                .0
    }

    /// Changes one byte of the payload of a batch that begins with `seq`.
    pub fn spoil_payload(&self, seq: u64) {
        let batch = self
            .batches
            .iter()
            .find(|b| b.first == seq)
            .expect("a batch");
        let old = self.read(batch.payload + 17, 1);
        self.patch(batch.payload + 17, &[!old[0]]);
    }

    /// A new epoch begins after `seq`, and with it another record of the next number.
    pub fn fork_after(&mut self, seq: u64) {
        let batch = self
            .batches
            .iter()
            .find(|b| b.first <= seq && seq <= b.last)
            .expect("a batch");
        let mut chain = batch.chain;
        let data = self.run(&["dump"], &["--json"]);
        for line in stdout(&data).lines() {
            let r: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let number = |key: &str| r[key].as_u64().expect("a number");
            if number("seq") >= batch.first && number("seq") <= seq {
                let write = Write::new(number("sector"), number("sectors") as u32 * 512);
                let next =
                    replicate_core::record::chain_record(chain, &record(number("seq"), write));
                chain = next.expect("a record");
            }
        }
        self.change(|sb| {
            sb.push_epoch(epoch(0xee, seq + 1, Reason::TookOver))
                .expect("room");
        });
        (self.next, self.chain) = (seq + 1, chain);
    }

    fn read(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let file = OpenOptions::new()
            .read(true)
            .open(&self.path)
            .expect("the file");
        file.read_exact_at(&mut bytes, at).expect("within the file");
        bytes
    }

    /// Overwrites some bytes.
    pub fn patch(&self, at: u64, bytes: &[u8]) {
        let file = OpenOptions::new()
            .write(true)
            .open(&self.path)
            .expect("the file");
        file.write_all_at(bytes, at).expect("within the file");
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Runs `dmrepl srl COMMAND FILE OPTIONS`.
    pub fn run(&self, command: &[&str], options: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_dmrepl"))
            .arg("srl")
            .args(command)
            .arg(&self.path)
            .args(options)
            .current_dir(self.dir.path())
            .output()
            .expect("dmrepl runs")
    }
}

fn epoch(id: u8, first: u64, reason: Reason) -> Epoch {
    Epoch {
        id: EpochId([id; 16]),
        first: Seq(first),
        host: HostId([1; 16]),
        reason,
        time_ns: 5,
        index: 0,
    }
}

fn record(seq: u64, write: Write) -> Record {
    Record {
        seq: Seq(seq),
        op: Op::Write,
        fua: seq % 2 == 0,
        no_unmap: false,
        range: Range {
            volume: VolumeId(0),
            sector: Sector(write.sector),
            sectors: write.bytes / 512,
        },
        depends_on: Seq(seq - 1),
        time_ns: 1_000_000_000 + seq,
        origin: 1,
        payload_crc: write.crc(seq),
    }
}
