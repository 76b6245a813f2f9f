// SPDX-License-Identifier: GPL-2.0

//! Before anything else: both ends prove that they know the group's secret.
//!
//! Only fixed sizes are read here, and nothing but what a proof needs is parsed. The connector runs this in the
//! link's thread ([`connect`]); the listener's half, for pending that nobody knows yet, is in [`super::listener`].

use super::error::{self, SessionError};
use crate::{group::Group, link::Link, reason::Reason};
use kernel::prelude::*;
use replicate_core::{
    units::HostId,
    wire::{
        hello::{
            decode_proof, decode_refusal, encode_proof, signed, transcript, Clear, End, Hello,
        },
        Code, WireError, CLEAR_REFUSAL_BYTES, HELLO_BYTES, PROOF_BYTES,
    },
};
use replicate_linux::{
    digest::{eq_const_time, hmac_sha256},
    net::{Part, Stream},
    random,
};

/// How long each step may take.
pub(crate) const STEP_MS: u32 = 3000;

/// A hello of this host for `link`, with a new nonce.
pub(crate) fn ours(group: &Group, link: &Link) -> Hello {
    let mut nonce = [0u8; 32];
    random::fill(&mut nonce);
    Hello::new(link.name, group.identity().host, nonce)
}

/// The MAC that a hello of the connector carries.
#[inline(never)]
pub(crate) fn sign(group: &Group, hello: &Hello) -> [u8; 32] {
    let words = signed(hello);
    let lists = group.lists.lock();
    hmac_sha256(lists.secret.as_bytes(), &[&words])
}

/// The proof of `prover` over the two hellos as they were sent.
#[inline(never)]
pub(crate) fn prove(
    group: &Group,
    prover: End,
    connector: &[u8; HELLO_BYTES],
    listener: &[u8; HELLO_BYTES],
) -> [u8; 32] {
    let words = transcript(prover, connector, listener);
    let lists = group.lists.lock();
    hmac_sha256(lists.secret.as_bytes(), &[&words])
}

/// The connector's half; the peer's host id. Sleeps.
#[inline(never)]
pub(crate) fn connect(group: &Group, link: &Link, stream: &Stream) -> Result<HostId, SessionError> {
    let mut us = ours(group, link);
    us.mac = sign(group, &us);
    let sent = us.encode();
    stream
        .send_all(&[Part::Bytes(&sent)], STEP_MS)
        .map_err(SessionError::io)?;
    let mut got = [0u8; HELLO_BYTES];
    receive(stream, Clear::Hello, &mut got)?;
    let them = Hello::decode(&got).map_err(SessionError::wire)?;
    if them.mac != [0; 32] {
        return Err(SessionError::wire(WireError::Field("MAC of a listener")));
    }
    us.agree(&them).map_err(|e| disagree(e, link))?;
    let proof = encode_proof(&prove(group, End::Connector, &sent, &got));
    stream
        .send_all(&[Part::Bytes(&proof)], STEP_MS)
        .map_err(SessionError::io)?;
    let mut answer = [0u8; PROOF_BYTES];
    receive(stream, Clear::Proof, &mut answer)?;
    let mac = decode_proof(&answer).map_err(SessionError::wire)?;
    if eq_const_time(&mac, &prove(group, End::Listener, &sent, &got)) {
        Ok(them.host)
    } else {
        Err(SessionError {
            tell: None,
            ..SessionError::refused(
                Reason::Auth,
                Code::WrongSecret,
                format_args!("the peer does not know the group's secret: is the same --secret-file used on both hosts, and is {} the right host?", link.peer),
            )
        })
    }
}

/// What a hello that does not go with ours means.
pub(crate) fn disagree(e: WireError, link: &Link) -> SessionError {
    let name = link.name.as_str();
    match e {
        WireError::Version { lowest, highest } => SessionError::refused(
            Reason::Version,
            Code::Version,
            format_args!("the peer speaks protocol versions {lowest} to {highest}, this host speaks {}: use the same module version on both", replicate_core::wire::VERSION),
        ),
        WireError::SameHost => SessionError::refused(
            Reason::Protocol,
            Code::SameHost,
            format_args!("both ends of link {name} have the same host id: is one SRL a copy of the other? Format one again"),
        ),
        other => SessionError::refused(
            Reason::Protocol,
            Code::Protocol,
            format_args!("hello of link {name} is not acceptable: {other}"),
        ),
    }
}

/// Reads what must come next in the clear; a refusal may come instead, and is shown.
fn receive(stream: &Stream, want: Clear, to: &mut [u8]) -> Result<(), SessionError> {
    let mut first = [0u8; 8];
    stream
        .recv_exact(&mut first, STEP_MS)
        .map_err(SessionError::io)?;
    let kind = Clear::peek(&first).map_err(SessionError::wire)?;
    if kind == Clear::Refusal {
        let mut bytes = [0u8; CLEAR_REFUSAL_BYTES];
        put(&first, &mut bytes);
        if let Some(rest) = bytes.get_mut(first.len()..) {
            stream.recv_exact(rest, STEP_MS).map_err(SessionError::io)?;
        }
        let refusal = decode_refusal(&bytes).map_err(SessionError::wire)?;
        return Err(SessionError::by_peer(&refusal, false));
    }
    if kind != want {
        return Err(SessionError::lost(
            Reason::Protocol,
            format_args!("the peer sent something else than {}", name(want)),
        ));
    }
    put(&first, to);
    match to.get_mut(first.len()..) {
        Some(rest) => stream.recv_exact(rest, STEP_MS).map_err(SessionError::io),
        None => Ok(()),
    }
}

fn name(clear: Clear) -> &'static str {
    match clear {
        Clear::Hello => "a hello",
        Clear::Proof => "a proof",
        Clear::Refusal => "a refusal",
    }
}

fn put(first: &[u8; 8], to: &mut [u8]) {
    if let Some(start) = to.first_chunk_mut::<8>() {
        *start = *first;
    }
}

/// Why a connection could not be had, as a user reads it.
pub(crate) fn unreachable(link: &Link, e: Error) -> SessionError {
    SessionError::lost(
        Reason::Unreachable,
        format_args!(
            "cannot connect to {} from {}: {} (error {}); trying again",
            link.peer,
            link.local,
            error::what(e),
            e.to_errno()
        ),
    )
}
