// SPDX-License-Identifier: GPL-2.0

//! Stamped writes, and the oracle that checks the images which are found afterwards.
//!
//! In a guest, `stamp write` puts a [`block::Stamp`] (run, writer, number, time, place, issue order)
//! into every 512-byte sector that it writes, and streams a [`journal`] of issues and completions to
//! the host, so that the host knows the acknowledged writes even when the guest is killed. Readers run
//! beside the writers ([`tracker`]). `stamp shapes` exercises every shape of request.
//!
//! On the host, `stamp check` checks images of the volumes, copied after the kill:
//!
//! * [`prefix`]: by the stamps and the journal alone. A visible write needs every write that had
//!   completed when it was issued (visible, or overwritten by something not older); on demand also the
//!   durable or all acknowledged ones, and no write may be torn.
//! * [`replay`]: with the order of record, the one seq at which all images together equal the replay.
//! * [`closed`]: with the order of record, for a replica without a ring: everything up to the highest
//!   `depends_on` of what is visible must be there; what was concurrent is free.
//!
//! Discarded sectors are undefined until written again, and skipped.
//!
//! Order in time: issues and completions are numbered by one counter in the writing process. `a` is
//! *older* than `b` when `a` completed before `b` was issued; otherwise they are concurrent, and either
//! may be the last. Everything but [`io`], [`workload`], [`shapes`] and [`sink`] is pure.

pub mod block;
pub mod check;
pub mod closed;
pub mod coverage;
pub mod crc;
pub mod history;
pub mod io;
pub mod journal;
pub mod order;
pub mod prefix;
pub mod replay;
pub mod shapes;
pub mod sink;
pub mod tracker;
pub mod workload;

/// Bytes of a sector, the unit of every check.
pub const SECTOR: usize = 512;
