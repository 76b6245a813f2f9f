// SPDX-License-Identifier: GPL-2.0

//! NBD on the wire, as far as this server speaks it: fixed newstyle negotiation with `GO`, `INFO`,
//! `LIST`, `EXPORT_NAME` and `ABORT`, then simple replies. Called by the connections.

use std::io::{self, Read, Write};

pub const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
pub const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
pub const OPT_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
pub const REPLY_MAGIC: u32 = 0x6744_6698;

pub const FLAG_FIXED_NEWSTYLE: u16 = 1;
pub const FLAG_NO_ZEROES: u16 = 2;

pub const OPT_EXPORT_NAME: u32 = 1;
pub const OPT_ABORT: u32 = 2;
pub const OPT_LIST: u32 = 3;
pub const OPT_INFO: u32 = 6;
pub const OPT_GO: u32 = 7;

pub const REP_ACK: u32 = 1;
pub const REP_SERVER: u32 = 2;
pub const REP_INFO: u32 = 3;
pub const REP_ERR_UNSUP: u32 = 0x8000_0001;
pub const REP_ERR_INVALID: u32 = 0x8000_0003;
pub const REP_ERR_UNKNOWN: u32 = 0x8000_0006;

pub const INFO_EXPORT: u16 = 0;
pub const INFO_BLOCK_SIZE: u16 = 3;

pub const EXPORT_HAS_FLAGS: u16 = 1;
pub const EXPORT_READ_ONLY: u16 = 2;
pub const EXPORT_FLUSH: u16 = 4;
pub const EXPORT_FUA: u16 = 8;
pub const EXPORT_TRIM: u16 = 32;
pub const EXPORT_WRITE_ZEROES: u16 = 64;
pub const EXPORT_MULTI_CONN: u16 = 256;

pub const CMD_READ: u16 = 0;
pub const CMD_WRITE: u16 = 1;
pub const CMD_DISC: u16 = 2;
pub const CMD_FLUSH: u16 = 3;
pub const CMD_TRIM: u16 = 4;
pub const CMD_WRITE_ZEROES: u16 = 6;
pub const CMD_FLAG_FUA: u16 = 1;

pub const MAX_PAYLOAD: u32 = 32 << 20;
const MAX_OPTION: u32 = 64 << 10;

/// What the client needs to know about a disk.
#[derive(Clone, Copy, Debug)]
pub struct Export {
    pub size: u64,
    pub flags: u16,
    pub block: u32,
}

/// A request header.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub flags: u16,
    pub command: u16,
    pub cookie: u64,
    pub at: u64,
    pub len: u32,
}

fn u16_of(r: &mut impl Read) -> io::Result<u16> {
    let mut b = [0; 2];
    r.read_exact(&mut b)?;
    Ok(u16::from_be_bytes(b))
}

fn u32_of(r: &mut impl Read) -> io::Result<u32> {
    let mut b = [0; 4];
    r.read_exact(&mut b)?;
    Ok(u32::from_be_bytes(b))
}

fn u64_of(r: &mut impl Read) -> io::Result<u64> {
    let mut b = [0; 8];
    r.read_exact(&mut b)?;
    Ok(u64::from_be_bytes(b))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Negotiates; returns the index of the chosen export, or `None` when the client gave up.
/// `find` maps an export name to its index, `names` lists them, `about` describes one; `enter` is called
/// before the client hears that it has entered the transmission phase.
pub fn negotiate(
    r: &mut impl Read,
    w: &mut impl Write,
    names: &[String],
    find: impl Fn(&str) -> Option<usize>,
    about: impl Fn(usize) -> Export,
    mut enter: impl FnMut(usize) -> io::Result<()>,
) -> io::Result<Option<usize>> {
    let mut hello = Vec::new();
    hello.extend_from_slice(&NBDMAGIC.to_be_bytes());
    hello.extend_from_slice(&IHAVEOPT.to_be_bytes());
    hello.extend_from_slice(&(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes());
    w.write_all(&hello)?;
    let client = u32_of(r)?;
    loop {
        if u64_of(r)? != IHAVEOPT {
            return Err(bad("option without its magic"));
        }
        let (opt, len) = (u32_of(r)?, u32_of(r)?);
        if len > MAX_OPTION {
            return Err(bad("option too long"));
        }
        let mut data = vec![0; len as usize];
        r.read_exact(&mut data)?;
        match opt {
            OPT_EXPORT_NAME => {
                let name = String::from_utf8_lossy(&data);
                let i = find(&name).ok_or_else(|| bad("unknown export"))?;
                let e = about(i);
                enter(i)?;
                let mut out = Vec::new();
                out.extend_from_slice(&e.size.to_be_bytes());
                out.extend_from_slice(&e.flags.to_be_bytes());
                if client & u32::from(FLAG_NO_ZEROES) == 0 {
                    out.resize(out.len() + 124, 0);
                }
                w.write_all(&out)?;
                return Ok(Some(i));
            }
            OPT_ABORT => {
                reply_option(w, opt, REP_ACK, &[])?;
                return Ok(None);
            }
            OPT_LIST => {
                for name in names {
                    let mut item = (name.len() as u32).to_be_bytes().to_vec();
                    item.extend_from_slice(name.as_bytes());
                    reply_option(w, opt, REP_SERVER, &item)?;
                }
                reply_option(w, opt, REP_ACK, &[])?;
            }
            OPT_INFO | OPT_GO => {
                let Some(name) = name_in_info(&data) else {
                    reply_option(w, opt, REP_ERR_INVALID, &[])?;
                    continue;
                };
                let Some(i) = find(&name) else {
                    reply_option(w, opt, REP_ERR_UNKNOWN, b"no such disk")?;
                    continue;
                };
                let e = about(i);
                let mut info = INFO_EXPORT.to_be_bytes().to_vec();
                info.extend_from_slice(&e.size.to_be_bytes());
                info.extend_from_slice(&e.flags.to_be_bytes());
                reply_option(w, opt, REP_INFO, &info)?;
                let mut info = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
                info.extend_from_slice(&e.block.to_be_bytes());
                info.extend_from_slice(&4096u32.max(e.block).to_be_bytes());
                info.extend_from_slice(&MAX_PAYLOAD.to_be_bytes());
                reply_option(w, opt, REP_INFO, &info)?;
                if opt == OPT_GO {
                    enter(i)?;
                }
                reply_option(w, opt, REP_ACK, &[])?;
                if opt == OPT_GO {
                    return Ok(Some(i));
                }
            }
            _ => reply_option(w, opt, REP_ERR_UNSUP, &[])?,
        }
    }
}

fn name_in_info(data: &[u8]) -> Option<String> {
    let len = u32::from_be_bytes(data.get(..4)?.try_into().ok()?) as usize;
    let name = data.get(4..4usize.checked_add(len)?)?;
    String::from_utf8(name.to_vec()).ok()
}

fn reply_option(w: &mut impl Write, opt: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let mut out = OPT_REPLY_MAGIC.to_be_bytes().to_vec();
    out.extend_from_slice(&opt.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
    w.write_all(&out)
}

/// Reads one request header.
pub fn read_header(r: &mut impl Read) -> io::Result<Header> {
    if u32_of(r)? != REQUEST_MAGIC {
        return Err(bad("request without its magic"));
    }
    Ok(Header {
        flags: u16_of(r)?,
        command: u16_of(r)?,
        cookie: u64_of(r)?,
        at: u64_of(r)?,
        len: u32_of(r)?,
    })
}

/// Sends one simple reply.
pub fn write_reply(w: &mut impl Write, cookie: u64, errno: u32, data: &[u8]) -> io::Result<()> {
    let mut out = Vec::with_capacity(16 + data.len());
    out.extend_from_slice(&REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&errno.to_be_bytes());
    out.extend_from_slice(&cookie.to_be_bytes());
    out.extend_from_slice(data);
    w.write_all(&out)
}
