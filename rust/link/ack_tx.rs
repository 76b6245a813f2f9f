// SPDX-License-Identifier: GPL-2.0

//! The secondary's session: what it tells. One cumulative acknowledgement per batch, and in every message how
//! much more may come.

use super::{error::SessionError, receiver::Session, worker::Worker};
use crate::reason::Reason;
use kernel::prelude::*;
use replicate_core::{
    node::{secondary::Acks, Log},
    session::{credit::Room, state},
    wire::{Credit, Envelope, Message, Progress},
};
use replicate_linux::pages::PAGE_BYTES;

impl Worker {
    /// Puts in the outbox what the primary should know.
    #[inline(never)]
    pub(super) fn report(&mut self, s: &mut Session) -> Result<(), SessionError> {
        let (acks, durable, syncing, head) = {
            let inner = self.group.inner.lock();
            let node = &inner.node;
            // Under the order lock, and for the owner only: nothing is acknowledged after a revocation or a failure.
            let acks = node.acks_for(&s.owner);
            (
                acks,
                node.copies.durable_item(),
                node.copies.is_syncing(),
                node.head(),
            )
        };
        let acks = acks.map_err(|r| self.refused(r))?;
        self.grow_credit(s);
        if let Some((from, to)) = s.resend.take() {
            let e = self.secondary_envelope(s);
            self.send(&e, &Message::Resend { from, to })?;
        }
        if s.acks != Some(acks) || s.granted.must_tell(&s.told, head, s.received) {
            s.acks = Some(acks);
            let e = self.secondary_envelope(s);
            let progress = Progress {
                received: acks.received,
                logged: acks.logged.min(acks.received),
                applied: acks.applied.min(acks.received),
            };
            self.send(&e, &Message::Ack(progress))?;
            self.show_acks(s, acks, syncing);
        }
        // The end is acknowledged as the item after the last, once the superblock says consistent.
        let over = s.items.filter(|_| !syncing);
        let item = over.map_or(durable, |n| n.saturating_add(1));
        if item > s.told_item {
            s.told_item = item;
            let e = self.secondary_envelope(s);
            self.send(&e, &Message::CopyAck { item })?;
        }
        if over.is_some() {
            s.items = None;
            self.link.view.lock().sync = None;
            self.link.step(
                &self.group,
                state::Event::Synced,
                Reason::None,
                format_args!("the synchronisation ended, this replica is consistent"),
            );
            self.show_acks(s, acks, false);
        }
        if core::mem::take(&mut s.reply) {
            let e = self.secondary_envelope(s);
            let echo_ns = self.rx.peer_time_ns;
            self.send(&e, &Message::Heartbeat { echo_ns })?;
        }
        Ok(())
    }

    fn show_acks(&self, s: &mut Session, acks: Acks, syncing: bool) {
        let level = {
            let mut v = self.link.view.lock();
            v.acked = acks;
            v.peer_head = s.peer_head;
            acks.received >= s.peer_head && !syncing
        };
        if level && !s.was_level {
            s.was_level = true;
            self.link.step(
                &self.group,
                state::Event::Level,
                Reason::None,
                format_args!("level with the primary"),
            );
        }
    }

    fn grow_credit(&self, s: &mut Session) {
        let pool = &self.group.pool;
        let pages = pool.max().saturating_sub(pool.in_use()) as u64;
        let inner = self.group.inner.lock();
        let w = &inner.node.window;
        let room = Room {
            head: w.head(),
            // Nothing is taken while this host's own log is still being loaded: memory is for that.
            slots: if w.head() < inner.node.head() {
                0
            } else {
                w.capacity().saturating_sub(w.head().since(w.base()))
            },
            pages,
            page_bytes: PAGE_BYTES as u64,
            ring: match &inner.node.log {
                Log::Ring(l) => Some((l.ring.free().0, l.ring.block())),
                Log::NoRing(_) => None,
            },
            window_bytes: self.link.window_bytes(&self.group),
        };
        drop(inner);
        s.granted = s.granted.grow(&room, s.received);
    }

    /// What every message of a secondary says: above all, how much more may come.
    pub(super) fn secondary_envelope(&self, s: &mut Session) -> Envelope {
        self.grow_credit(s);
        s.told = s.granted;
        Envelope {
            credit: Credit {
                seq: s.granted.seq,
                byte: s.granted.byte,
            },
            ..self.envelope()
        }
    }
}
