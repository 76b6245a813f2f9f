// SPDX-License-Identifier: GPL-2.0

//! An NBD server whose disks have a volatile write cache that can lose power.
//!
//! Killing a virtual machine is not a power cut: what the guest wrote stays in the page cache of the
//! host, so no missing flush can ever show. The disks of crash tests therefore come from this server.
//! Each disk is a *stable image* (a raw sparse file, the platter) plus a cache in memory that holds
//! every write which no flush has covered yet. Reads see the cache.
//!
//! * A **power cut** keeps a seeded subset of the unflushed blocks, forgets the rest and drops all
//!   connections. Several versions of a block may be unflushed: any one of them may be the survivor,
//!   or the stable one. The same seed after the same history gives the same image.
//! * A **reset** only drops the connections: the cache survives, and is still volatile.
//! * A write with FUA is durable when its reply is sent; a flush covers the writes whose replies were
//!   sent before it arrived, on any connection. With a delay set, requests in flight are not covered.
//!
//! Modules: [`image`] (the platter), [`cache`] (versions), [`cut`] (which of them survive), [`disk`]
//! (one disk: cache, faults, counters), [`proto`] (NBD on the wire), [`stream`] (one connection),
//! [`server`] (all of them) and [`control`] (the command lines). `volatile-nbd --help` lists the options
//! and the commands.
//!
//! Killing the server itself loses the caches (as a cut that keeps nothing); `quit` writes them out.

pub mod cache;
pub mod control;
pub mod cut;
pub mod disk;
pub mod image;
pub mod proto;
pub mod server;
pub mod stream;
