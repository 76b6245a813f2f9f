// SPDX-License-Identifier: GPL-2.0

//! Two disks behind real sockets, and a small NBD client.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use volatile_nbd::control;
use volatile_nbd::disk::{Config, Disk, Trim};
use volatile_nbd::proto as p;
use volatile_nbd::server::Server;

pub const SIZE: u64 = 1 << 20;

pub struct Lab {
    pub dir: PathBuf,
    pub server: Arc<Server>,
}

static NEXT: AtomicU64 = AtomicU64::new(0);

fn config(dir: &Path, name: &str) -> Config {
    Config {
        name: name.into(),
        path: dir.join(format!("{name}.img")),
        size: Some(SIZE),
        unit: 512,
        write_through: false,
        read_only: false,
        cache_max: 64 << 20,
        trim: Trim::Zero,
    }
}

impl Lab {
    pub fn new(tweak: impl Fn(&mut Config)) -> Self {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("volatile-nbd.{}.{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let disks = ["a", "b"]
            .iter()
            .map(|name| {
                let mut c = config(&dir, name);
                tweak(&mut c);
                Arc::new(Disk::open(c).unwrap())
            })
            .collect();
        let server = Arc::new(Server::new(disks));
        server.listen(&dir.join("sock"), None).unwrap();
        control::listen(&server, &dir.join("control"), || ()).unwrap();
        Self { dir, server }
    }

    pub fn client(&self, export: &str) -> Client {
        Client::connect(&self.dir.join("sock"), export)
    }

    pub fn say(&self, line: &str) -> String {
        let mut s = UnixStream::connect(self.dir.join("control")).unwrap();
        writeln!(s, "{line}").unwrap();
        let mut answer = String::new();
        BufReader::new(s).read_line(&mut answer).unwrap();
        assert!(answer.starts_with("ok "), "{line}: {answer}");
        answer
    }

    pub fn image(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir.join(format!("{name}.img"))).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub struct Client {
    s: UnixStream,
    pub flags: u16,
    cookie: u64,
}

impl Client {
    pub fn connect(sock: &Path, export: &str) -> Self {
        let mut s = UnixStream::connect(sock).unwrap();
        let mut hello = [0; 18];
        s.read_exact(&mut hello).unwrap();
        assert_eq!(&hello[..16], b"NBDMAGICIHAVEOPT");
        let mut out = 3u32.to_be_bytes().to_vec();
        // Structured replies: must be declined, and negotiation go on.
        for (opt, data) in [
            (8u32, vec![]),
            (p::OPT_GO, {
                let mut d = (export.len() as u32).to_be_bytes().to_vec();
                d.extend_from_slice(export.as_bytes());
                d.extend_from_slice(&0u16.to_be_bytes());
                d
            }),
        ] {
            out.extend_from_slice(&p::IHAVEOPT.to_be_bytes());
            out.extend_from_slice(&opt.to_be_bytes());
            out.extend_from_slice(&(data.len() as u32).to_be_bytes());
            out.extend_from_slice(&data);
        }
        s.write_all(&out).unwrap();
        let mut flags = None;
        loop {
            let mut h = [0; 20];
            s.read_exact(&mut h).unwrap();
            let opt = u32::from_be_bytes(h[8..12].try_into().unwrap());
            let kind = u32::from_be_bytes(h[12..16].try_into().unwrap());
            let mut data = vec![0; u32::from_be_bytes(h[16..20].try_into().unwrap()) as usize];
            s.read_exact(&mut data).unwrap();
            match (opt, kind) {
                (8, k) => assert_eq!(k, p::REP_ERR_UNSUP),
                (_, p::REP_INFO) if data[..2] == [0, 0] => {
                    assert_eq!(u64::from_be_bytes(data[2..10].try_into().unwrap()), SIZE);
                    flags = Some(u16::from_be_bytes(data[10..12].try_into().unwrap()));
                }
                (_, p::REP_INFO) => (),
                (_, k) => {
                    assert_eq!(k, p::REP_ACK);
                    break;
                }
            }
        }
        Self {
            s,
            flags: flags.unwrap(),
            cookie: 0,
        }
    }

    pub fn send(&mut self, command: u16, flags: u16, at: u64, len: u32, data: &[u8]) {
        self.cookie += 1;
        let mut out = p::REQUEST_MAGIC.to_be_bytes().to_vec();
        out.extend_from_slice(&flags.to_be_bytes());
        out.extend_from_slice(&command.to_be_bytes());
        out.extend_from_slice(&self.cookie.to_be_bytes());
        out.extend_from_slice(&at.to_be_bytes());
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(data);
        self.s.write_all(&out).unwrap();
    }

    pub fn receive(&mut self, len: usize) -> Result<Vec<u8>, u32> {
        let mut h = [0; 16];
        self.s.read_exact(&mut h).unwrap();
        assert_eq!(h[..4], p::REPLY_MAGIC.to_be_bytes());
        let errno = u32::from_be_bytes(h[4..8].try_into().unwrap());
        if errno != 0 {
            return Err(errno);
        }
        let mut data = vec![0; len];
        self.s.read_exact(&mut data).unwrap();
        Ok(data)
    }

    pub fn write(&mut self, sector: u64, data: &[u8], fua: bool) -> Result<(), u32> {
        self.send(
            p::CMD_WRITE,
            u16::from(fua),
            sector * 512,
            data.len() as u32,
            data,
        );
        self.receive(0).map(|_| ())
    }

    pub fn read(&mut self, sector: u64, sectors: u64) -> Result<Vec<u8>, u32> {
        self.send(p::CMD_READ, 0, sector * 512, (sectors * 512) as u32, &[]);
        self.receive((sectors * 512) as usize)
    }

    pub fn command(
        &mut self,
        command: u16,
        fua: bool,
        sector: u64,
        sectors: u64,
    ) -> Result<(), u32> {
        self.send(
            command,
            u16::from(fua),
            sector * 512,
            (sectors * 512) as u32,
            &[],
        );
        self.receive(0).map(|_| ())
    }

    pub fn flush(&mut self) {
        self.command(p::CMD_FLUSH, false, 0, 0).unwrap();
    }

    /// True when the server has closed this connection.
    pub fn gone(&mut self) -> bool {
        matches!(self.s.read(&mut [0]), Ok(0) | Err(_))
    }
}
