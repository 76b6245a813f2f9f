// SPDX-License-Identifier: GPL-2.0

//! The secondary's side of a session: wait for the primary, say what is here, take the welcome.
//!
//! The welcome is made durable by [`super::adopt`] before it is answered. Then [`super::receiver`].

use super::{
    adopt::{self, Adopted},
    error::SessionError,
    primary::SuperblockInfo,
    receiver::Session,
    worker::Worker,
};
use crate::{reason::Reason, refuse::Text};
use core::convert::Infallible;
use kernel::{prelude::*, sync::atomic::Relaxed};
use replicate_core::{
    group::{Role, Volume},
    lineage::Lineage,
    node,
    session::{
        receiver::{progress, Receiver},
        secondary::{self, Unable},
        state,
    },
    units::VolumeId,
    wire::{self, Message},
};
use replicate_linux::event::FOREVER;

impl Worker {
    /// One attempt to have a session as secondary: waits for a connection first.
    #[inline(never)]
    pub(super) fn secondary(&mut self) -> Result<Infallible, SessionError> {
        let incoming = loop {
            if let Some(incoming) = self.link.take_incoming() {
                break incoming;
            }
            self.interrupted()?;
            self.link.wake.wait(FOREVER);
            if self.group.role() != node::Role::Secondary {
                return Err(SessionError::lost(
                    Reason::Takeover,
                    format_args!("this host is primary now"),
                ));
            }
        };
        self.open(&incoming.stream)?;
        self.framed(&incoming.stream, Role::Primary);
        self.set_peer(incoming.host);
        self.check_health()?;
        let stated = self.group.inner.lock().node.stated();
        self.send_state()?;
        let header = self.recv()?;
        let adopted = match self.rx.message(&header).map_err(SessionError::wire)? {
            Message::Welcome(w) => adopt::welcome(&self.group, &self.link, stated, &w)?,
            Message::Refuse(r) => return Err(SessionError::by_peer(&r, false)),
            Message::Goodbye(r) => return Err(SessionError::by_peer(&r, true)),
            _ => return Err(Worker::unexpected(header.kind)),
        };
        self.begin(adopted)
    }

    /// Whether this host can keep what it would acknowledge. May sleep.
    pub(super) fn check_health(&self) -> Result<(), SessionError> {
        let able = {
            let inner = self.group.inner.lock();
            let volumes = inner.attached.iter().map(|a| a.volume.state());
            secondary::may_follow(&inner.node, inner.phase, volumes)
        };
        able.map_err(|why| match why {
            Unable::Failed => self.failed(),
            Unable::NotActive => SessionError::closed(
                Reason::Stopping,
                wire::Code::NotReady,
                format_args!("the secondary's group is not running normally, see its status there"),
            ),
        })
    }

    /// The session ends because this host's log, superblock or volume failed: it acknowledges nothing more. May sleep.
    pub(super) fn failed(&self) -> SessionError {
        let status = self.group.status.lock();
        let why = status.text.as_ref().map(Text::as_str);
        let reason = match status.reason {
            Reason::DataFailed => Reason::DataFailed,
            _ => Reason::LogFailed,
        };
        SessionError::closed(
            reason,
            wire::Code::Failed,
            format_args!(
                "the secondary has failed: {}",
                why.unwrap_or("see its status there")
            ),
        )
    }

    /// The welcome is durable here: answers, and runs the session.
    #[inline(never)]
    fn begin(&mut self, adopted: Adopted) -> Result<Infallible, SessionError> {
        let begun = adopted.begun;
        self.begin_session(begun.owner.session())?;
        let acks = self.group.inner.lock().node.acks_for(&begun.owner);
        let acks = acks.map_err(|refused| self.ended(refused.into()))?;
        let mut receiver = Receiver::new(begun.owner, begun.resume, begun.head);
        let envelope = self.secondary_envelope(&mut receiver);
        self.send(&envelope, &Message::Ready(progress(acks)))?;
        self.link.answered.set(true);
        {
            let mut v = self.link.view.lock();
            v.told_in_sync = false;
            v.acked = acks;
        }
        // As the receiver begins: what the former session's primary said of its writers is over.
        self.group.flush_at_once.store(false, Relaxed);
        self.link.step(
            &self.group,
            state::Event::Welcomed { sync: begun.sync },
            if begun.sync {
                Reason::Sync
            } else {
                Reason::None
            },
            format_args!("receiving from record {}", begun.resume),
        );
        self.receive(&mut Session::new(receiver, adopted.volumes))
    }

    /// Tells the other side what this host has: the first framed message of a listener.
    #[inline(never)]
    pub(super) fn send_state(&mut self) -> Result<(), SessionError> {
        let facts = SuperblockInfo::of(&self.group)?;
        let head = self
            .group
            .srl
            .read(|sb| secondary::state(&self.group.inner.lock().node, sb))
            .map_err(|_| SessionError::no_memory())?;
        let volumes = self.volumes_here(&facts)?;
        let envelope = wire::Envelope {
            session: 0,
            ..self.envelope()
        };
        let lineage: Lineage<'_> = facts.lineage();
        self.tx.push(None, |out| {
            wire::encode_state(&envelope, &head, &lineage, volumes.iter().copied(), out)
        })
    }

    /// The attached volumes. Those that have no number yet get one that nobody has, for the message only.
    #[inline(never)]
    fn volumes_here(&self, facts: &SuperblockInfo) -> Result<KVec<Volume>, SessionError> {
        let mut out = KVec::new();
        let mut spare = VolumeId(u16::MAX);
        for volume in self
            .group
            .present()
            .map_err(|_| SessionError::no_memory())?
        {
            let mut v = volume.describe();
            if volume.id().is_none() {
                let taken = |id| facts.volumes.iter().any(|f| f.id == id);
                spare = secondary::spare_id(spare, taken);
                v.id = spare;
            }
            out.push(v, GFP_KERNEL)
                .map_err(|_| SessionError::no_memory())?;
        }
        Ok(out)
    }
}
