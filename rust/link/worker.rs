// SPDX-License-Identifier: GPL-2.0

//! The link's thread: attempts to have a session, one after the other, and what the end of one does.
//!
//! The end of a session comes in this order and no other: the event that the link left in-sync, then its
//! positions, then the log worker is woken, which releases the writers that waited (P2); then the connection is closed,
//! because that may wait for memory, which such a writer may be the one to free. Nothing is locked
//! while the thread waits; every wait ends by thread stop, `link disconnect`, or the peer timeout.
//!
//! Kernel stacks are small: what is called once and not at the bottom of a chain is not inlined.

use super::{
    channel::{Inbox, Outbox},
    error::SessionError,
    read_back::ReadBack,
    regions::Regions,
    Link,
};
use crate::{
    event::{self, Code as Event, Severity},
    group::{
        inner::{Phase, SenderWaker},
        Group,
    },
    reason::Reason,
};
use kernel::{
    prelude::*,
    sync::{atomic::Relaxed, Arc},
};
use replicate_core::{
    group,
    node::Role,
    session::{
        state::{self, backoff_ms, State},
        SessionId,
    },
    units::{Position, Seq},
    wire::{self, Code, Envelope, Header, Kind, Message},
};
use replicate_linux::{
    clock,
    event::{Event as Wake, FOREVER},
    kthread::{should_stop, StopToken},
    net::Stream,
};

/// A peer that refuses, or needs a sync, is asked again so often.
const SLOW_MS: u32 = 5000;

/// The thread's own things. See the module.
pub(crate) struct Worker {
    pub(crate) group: Arc<Group>,
    pub(crate) link: Arc<Link>,
    pub(crate) rx: Inbox,
    pub(crate) tx: Outbox,
    /// What the thread waits on now.
    pub(crate) wake: Arc<Wake>,
    /// Reads the log back for a peer that is far behind; made when it is first needed.
    pub(crate) back: Option<ReadBack>,
    /// For the event that the session's link left in-sync.
    left_sync: Option<event::Reserved>,
    /// Reads regions for a synchronisation.
    pub(crate) regions: Regions,
    /// The session, if one stands.
    pub(crate) session: Option<SessionId>,
    attempts: u32,
}

impl Worker {
    /// The thread of `link`, not started. May sleep.
    pub(crate) fn new(group: Arc<Group>, link: Arc<Link>) -> Result<KBox<Worker>> {
        let worker = Worker {
            rx: Inbox::new()?,
            tx: Outbox::new()?,
            wake: link.wake.clone(),
            back: None,
            left_sync: None,
            regions: Regions::default(),
            session: None,
            attempts: 0,
            group,
            link,
        };
        Ok(KBox::new(worker, GFP_KERNEL)?)
    }

    /// The thread's body.
    pub(crate) fn run(&mut self, stop: &StopToken) {
        while !stop.should_stop() {
            if self.link.overflow.take() {
                let ended = self.overrun();
                self.teardown(ended);
            }
            if !self.link.enabled.get() {
                self.link.wake.wait(FOREVER);
                continue;
            }
            if self.link.restart_wanted.take() {
                self.attempts = 0;
            }
            let role = self.group.role();
            let Err(ended) = match role {
                Role::Primary => self.primary(),
                Role::Secondary => self.secondary(),
            };
            self.teardown(ended);
            self.back_off(role);
        }
    }

    /// Waits before the next attempt; ends early when there is something new.
    fn back_off(&mut self, role: Role) {
        if role == Role::Secondary {
            // It waits for a connection anyway.
            return;
        }
        let ms = match self.link.state() {
            State::Idle => return,
            State::Refused | State::NeedsSync => SLOW_MS,
            State::Connecting
            | State::Handshake
            | State::CatchingUp
            | State::Streaming
            | State::Syncing => backoff_ms(self.attempts),
        };
        self.attempts = self.attempts.saturating_add(1);
        let link = &self.link;
        link.wake.wait_until(ms, || {
            link.restart_wanted.get()
                || link.overflow.get()
                || !link.enabled.get()
                || link.has_incoming()
        });
    }

    /// A connection stands; what follows is shown as a handshake. The peer's messages are framed from here on.
    pub(crate) fn open(&mut self, stream: &Arc<Stream>) -> Result<(), SessionError> {
        self.link.set_stream(Some(stream.clone()));
        self.link.connected.set(true);
        self.link.stats.connects.add(1);
        self.wake = stream.event().clone();
        stream.set_user_timeout(self.link.settings.peer_timeout_ms.load(Relaxed));
        self.link.step(
            &self.group,
            state::Event::Connected,
            Reason::None,
            format_args!("connected to {}", stream.peer()),
        );
        // A command that came before there was a stream to break.
        self.interrupted()
    }

    /// Messages may flow: the peer has proven itself.
    pub(crate) fn framed(&mut self, stream: &Arc<Stream>, from: group::Role) {
        // Not before: what strangers send may not touch the system's last pages.
        stream.set_memalloc();
        self.rx.open(stream.clone(), from);
        self.tx.open(stream.clone());
    }

    /// The session begins: from now on the group wakes this thread.
    pub(crate) fn begin_session(&mut self, session: SessionId) -> Result<(), SessionError> {
        self.session = Some(session);
        self.rx.begin_session(session);
        self.attempts = 0;
        if self.left_sync.is_none() {
            self.left_sync = event::Reserved::new().ok();
        }
        let there = {
            let mut inner = self.group.inner.lock();
            inner.senders.retain(|s| s.id != self.link.id);
            let sender = SenderWaker {
                id: self.link.id,
                wake: self.wake.clone(),
                sent: Seq::NONE,
                wants: Seq(u64::MAX),
            };
            inner.senders.push_within_capacity(sender).is_ok()
        };
        if there {
            Ok(())
        } else {
            Err(SessionError::no_memory())
        }
    }

    /// Whether the thread, or the session, shall end now.
    pub(crate) fn interrupted(&self) -> Result<(), SessionError> {
        if should_stop() {
            return Err(SessionError::asked(
                Code::Stopping,
                format_args!("the link or its group is being removed"),
            ));
        }
        if !self.link.enabled.get() {
            let phase = self.group.inner.lock().phase;
            return Err(if phase == Phase::TakingOver {
                SessionError::asked(Code::TakeOver, format_args!("this host takes over"))
            } else {
                SessionError::asked(Code::Disconnected, format_args!("disconnected by command"))
            });
        }
        if self.link.overflow.take() {
            return Err(self.overrun());
        }
        if self.link.restart_wanted.get() {
            return Err(SessionError::asked(
                Code::Busy,
                format_args!("the session begins anew"),
            ));
        }
        Ok(())
    }

    pub(super) fn overrun(&self) -> SessionError {
        self.link.forget_sync();
        SessionError::needs_sync(
            Reason::LogOverrun,
            format_args!("the log keeps no more what the peer lacks (it was full, or a volume got larger blocks): use 'dmrepl sync --full' once the peer is back"),
        )
    }

    /// Waits for the next message of the handshake.
    pub(crate) fn recv(&mut self) -> Result<Header, SessionError> {
        let limit_ms = self.link.settings.peer_timeout_ms.load(Relaxed);
        let start = clock::monotonic_ns();
        loop {
            self.tx.flush(&self.link.stats)?;
            if let Some(header) = self.rx.poll(&self.link.stats)? {
                self.touch_last_rx();
                return Ok(header);
            }
            self.interrupted()?;
            self.resolve_simultaneous_open()?;
            let spent = (clock::monotonic_ns().saturating_sub(start) / 1_000_000) as u32;
            if spent >= limit_ms {
                return Err(SessionError::lost(
                    Reason::PeerTimeout,
                    format_args!("the peer said nothing for {limit_ms} ms in the handshake"),
                ));
            }
            self.wake.wait(limit_ms - spent);
        }
    }

    /// Two primaries that connect to each other would wait for each other: the one with the higher host id answers.
    fn resolve_simultaneous_open(&self) -> Result<(), SessionError> {
        let host = self.link.incoming_host();
        if host.is_some_and(|h| self.group.identity().host > h) {
            return Err(SessionError::lost(
                Reason::NotConnected,
                format_args!("answering the peer's own connection"),
            ));
        }
        Ok(())
    }

    /// The peer was heard.
    pub(crate) fn touch_last_rx(&self) {
        self.link.last_rx_ns.store(clock::wall_ns(), Relaxed);
    }

    /// What every message of this host says.
    pub(crate) fn envelope(&self) -> Envelope {
        let inner = self.group.inner.lock();
        let head = inner.node.head();
        Envelope {
            session: SessionId::to_wire(self.session),
            position: Position {
                epoch: inner.epochs.at(head).0,
                seq: head,
            },
            commit: inner.node.commit(),
            time_ns: clock::wall_ns(),
            ..Envelope::default()
        }
    }

    /// Puts a small message in the outbox.
    pub(crate) fn send(
        &mut self,
        envelope: &Envelope,
        message: &Message<'_>,
    ) -> Result<(), SessionError> {
        self.tx
            .push(None, |out| wire::encode(envelope, message, out))
    }

    /// How long the thread may wait: until a heartbeat is due, or the peer is late. Says which is due now.
    pub(crate) fn check_timers(&self) -> Result<(bool, u32), SessionError> {
        let s = &self.link.settings;
        let beat = u64::from(s.heartbeat_ms.load(Relaxed).max(10));
        let limit = u64::from(s.peer_timeout_ms.load(Relaxed).max(100));
        let now = clock::monotonic_ns();
        let silent = now.saturating_sub(self.rx.rx_ns) / 1_000_000;
        if silent >= limit {
            return Err(SessionError::closed(
                Reason::PeerTimeout,
                Code::Stopping,
                format_args!("the peer said nothing for {limit} ms; trying again"),
            ));
        }
        let quiet = now.saturating_sub(self.tx.tx_ns) / 1_000_000;
        let due = quiet >= beat;
        let wait = (limit - silent).min(beat.saturating_sub(quiet).max(1));
        Ok((due, wait.min(u64::from(FOREVER - 1)) as u32))
    }

    /// The end of an attempt. See the module for the order.
    #[inline(never)]
    fn teardown(&mut self, ended: SessionError) {
        self.send_goodbye(&ended);
        let had_session = self.session.take().is_some();
        let was_in_sync = {
            let inner = self.group.inner.lock();
            inner
                .node
                .positions
                .get(self.link.id)
                .is_some_and(|p| p.in_sync)
        };
        if was_in_sync {
            event::link_with(
                self.left_sync.take(),
                &self.group,
                &self.link,
                Event::LeftSync,
                Severity::Warning,
                ended.reason,
                ended.refusal.text(),
            );
        }
        {
            let mut inner = self.group.inner.lock();
            inner.node.positions.disconnected(self.link.id);
            inner.node.inbound_ended(self.link.id);
            inner.senders.retain(|s| s.id != self.link.id);
        }
        self.group.log_wake.notify();
        self.group.moved.notify();
        let proven = self.close(&ended);
        if had_session {
            self.link.stats.resets.add(1);
        }
        if ended.is_broken_message() {
            self.link.stats.crc_errors.add(1);
        }
        self.show(&ended, proven);
        self.link.connected.set(false);
        self.link.changed.notify();
    }

    /// Closes the connection, which may wait for memory: no writer may wait for this link any more. Returns whether
    /// the peer was who it should be.
    fn close(&mut self, ended: &SessionError) -> bool {
        let proven = self.tx.stream.is_some();
        self.link.set_stream(None);
        if let Some(stream) = self.rx.stream.take() {
            if ended.tell.is_some() && !self.tx.holds_much() {
                stream.shutdown();
            } else {
                // Nobody reads it any more: it would hold pages of the pool until TCP gives up.
                stream.abort();
            }
        }
        self.tx.close();
        self.wake = self.link.wake.clone();
        proven
    }

    /// Tells the peer why, if it is there to hear it. What does not go out at once is not waited for.
    fn send_goodbye(&mut self, ended: &SessionError) {
        let Some(code) = ended.tell else {
            return;
        };
        if self.tx.stream.is_none() {
            return;
        }
        let envelope = self.envelope();
        let words = wire::Refusal {
            code,
            text: ended.refusal.text(),
        };
        let refuses = matches!(
            ended.event,
            Some(state::Event::Refused | state::Event::Overflowed)
        );
        let message = if refuses || self.session.is_none() {
            Message::Refuse(words)
        } else {
            Message::Goodbye(words)
        };
        if self.send(&envelope, &message).is_ok() {
            let _ = self.tx.flush(&self.link.stats);
        }
    }

    /// The state machine's step, and the events that go with it. `proven`: the peer was who it should be; what
    /// anybody else says is shown, but is no answer.
    fn show(&self, ended: &SessionError, proven: bool) {
        let link = &self.link;
        let text = ended.refusal.text();
        let before = link.view.lock().reason;
        if matches!(
            ended.event,
            Some(state::Event::Refused | state::Event::Overflowed)
        ) {
            if proven {
                link.answered.set(true);
            }
            let mut v = link.view.lock();
            if v.syncs.refused() {
                drop(v);
                link.sync_over.set(true);
            }
        }
        let step = match ended.event {
            Some(event) => event,
            None if !link.enabled.get() => state::Event::Disable,
            None => state::Event::Lost,
        };
        link.step(&self.group, step, ended.reason, format_args!("{text}"));
        if before == ended.reason {
            return;
        }
        let special = match (ended.event, ended.reason) {
            (Some(state::Event::Overflowed), _) => Some((Event::NeedsSync, Severity::Warning)),
            (Some(state::Event::Refused), Reason::Forked) => {
                Some((Event::Forked, Severity::Critical))
            }
            (_, Reason::Integrity) => Some((Event::Integrity, Severity::Warning)),
            (_, Reason::Protocol) => Some((Event::BadPeer, Severity::Warning)),
            _ => None,
        };
        if let Some((code, severity)) = special {
            event::link(&self.group, link, code, severity, ended.reason, text);
        }
    }

    /// A message that has no place here.
    pub(crate) fn unexpected(kind: Kind) -> SessionError {
        SessionError::closed(
            Reason::Protocol,
            Code::Protocol,
            format_args!("connection dropped: {kind} where it makes no sense"),
        )
    }
}
