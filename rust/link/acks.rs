// SPDX-License-Identifier: GPL-2.0

//! The primary's session: what comes back. Acknowledgements release writers and free the log.

use super::{error::SessionError, sender::Session, worker::Worker};
use crate::{
    event::{self, Code as Event, Severity},
    reason::Reason,
};
use kernel::{prelude::*, sync::atomic::Relaxed};
use replicate_core::{
    session::{resync::Copied, sender::Change, state},
    units::Seq,
    wire::{Message, Progress},
};
use replicate_linux::clock;

/// Messages taken in one turn: a peer that never stops talking does not keep us from sending.
const MAX_MESSAGES: u32 = 256;

/// A message, as far as it is needed after its bytes are gone.
enum Said {
    Ack(Progress),
    CopyAck(u64),
    Resend(Seq),
    Nothing,
}

impl Worker {
    /// Takes what has arrived.
    pub(super) fn take_acks(&mut self, s: &mut Session) -> Result<(), SessionError> {
        let mut newest: Option<Progress> = None;
        for _ in 0..MAX_MESSAGES {
            let Some(header) = self.rx.poll(&self.link.stats)? else {
                break;
            };
            let credit = header.envelope.credit;
            s.sender.set_credit(credit.seq, credit.byte);
            let said = match self.rx.message(&header).map_err(SessionError::wire)? {
                Message::Ack(p) => Said::Ack(p),
                Message::CopyAck { item } => Said::CopyAck(item),
                Message::Resend { from, .. } => Said::Resend(from),
                Message::Heartbeat { echo_ns } => {
                    self.measure(echo_ns);
                    Said::Nothing
                }
                Message::Refuse(r) => return Err(SessionError::by_peer(&r, false)),
                Message::Goodbye(r) => return Err(SessionError::by_peer(&r, true)),
                _ => return Err(Worker::unexpected(header.kind)),
            };
            self.touch_last_rx();
            match said {
                Said::Ack(p) => {
                    // Cumulative, and in order on one connection: the last one says it all.
                    newest = Some(p);
                }
                Said::CopyAck(item) => self.copies_durable(s, item)?,
                Said::Resend(from) => {
                    self.link.stats.resends.add(1);
                    let oldest = self.group.inner.lock().node.oldest();
                    s.sender.resend(from, oldest);
                }
                Said::Nothing => {}
            }
        }
        match newest {
            Some(p) => {
                let change = s.sender.acknowledged(&mut self.group.inner.lock().node, p);
                self.follow(&change.map_err(SessionError::wire)?);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Does what follows from an acknowledgement.
    #[inline(never)]
    fn follow(&self, change: &Change) {
        if change.releases && self.group.release() {
            self.group.log_wake.notify();
        }
        if change.gates {
            // Writers wait from now on: what they wait for is flushed at once, here and there.
            self.group.log_wake.notify();
        }
        if change.logged {
            self.group.apply_wake.notify();
        }
        self.group.moved.notify();
        if change.whole {
            self.link.view.lock().level_ns = clock::wall_ns();
        }
        if change.level {
            self.link.step(
                &self.group,
                state::Event::Level,
                Reason::None,
                format_args!("the peer has everything but the newest"),
            );
        }
        if change.in_sync {
            event::link(
                &self.group,
                &self.link,
                Event::InSync,
                Severity::Info,
                Reason::None,
                "in-sync: writes wait for the peer from now on",
            );
        }
    }

    #[inline(never)]
    fn copies_durable(&mut self, s: &mut Session, item: u64) -> Result<(), SessionError> {
        match s.sender.copies_durable(item).map_err(SessionError::wire)? {
            Copied::Nothing => {}
            Copied::Moved(cursor) => self.sync_moved(cursor, &s.volumes)?,
            Copied::Over => s.over = true,
        }
        Ok(())
    }

    /// The peer said that it is consistent, and the superblock is to say so.
    #[inline(never)]
    pub(super) fn sync_over(&mut self, s: &mut Session) -> Result<(), SessionError> {
        if !self.sync_is_over()? {
            return Ok(());
        }
        s.over = false;
        self.link.step(
            &self.group,
            state::Event::Synced,
            Reason::None,
            format_args!("the synchronisation ended, the secondary is consistent"),
        );
        let change = s.sender.sync_over(&mut self.group.inner.lock().node);
        self.follow(&change);
        Ok(())
    }

    /// The round trip, from the send time of our last message that the peer has seen.
    fn measure(&self, echo_ns: u64) {
        let now = clock::wall_ns();
        if echo_ns > 0 && echo_ns <= now {
            self.link.rtt_us.store((now - echo_ns) / 1000, Relaxed);
        }
    }
}
