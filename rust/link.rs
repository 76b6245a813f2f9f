// SPDX-License-Identifier: GPL-2.0

//! A link: the relation of a group to one peer host.
//!
//! One thread per link does everything in its session, sending and receiving, without ever blocking on the socket:
//! it waits on one event, which the socket, the group's order and the commands notify. Its role in the
//! session is the group's: [`primary`] connects and sends, [`secondary`] is connected to and acknowledges. Both
//! roles listen ([`listener`]), because a primary that took over must be able to answer the old one.
//!
//! | module | what it is |
//! |---|---|
//! | [`manage`], [`sync`] | commands: add, remove, set, connect, disconnect; synchronisation |
//! | [`worker`] | the thread: attempts, back-off, what the end of a session does |
//! | [`hello`], [`listener`] | before the proof |
//! | [`channel`] | messages on a connection |
//! | [`primary`], [`sender`], [`acks`], [`read_back`] | the primary's session |
//! | [`secondary`], [`receiver`], [`adopt`] | the secondary's session |
//! | [`status`] | what is shown |
//!
//! Locks of a link are leaves: none is held while another lock is taken or anything is waited for. The
//! decisions are in `replicate_core::session`.

pub(crate) mod acks;
pub(crate) mod adopt;
pub(crate) mod channel;
pub(crate) mod error;
pub(crate) mod hello;
pub(crate) mod listener;
pub(crate) mod manage;
pub(crate) mod primary;
pub(crate) mod read_back;
pub(crate) mod receiver;
pub(crate) mod regions;
pub(crate) mod secondary;
pub(crate) mod sender;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod worker;

use crate::{
    event::{self, Code, Severity},
    group::{Counter, Group},
    reason::Reason,
    refuse::Text,
};
use core::fmt;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, Mutex, SpinLock,
    },
};
use replicate_core::{
    group::{Mode, Name},
    node::links::LinkId,
    session::{
        state::{self, State},
        syncs::Syncs,
    },
    units::{HostId, Seq},
};
use replicate_linux::{
    clock,
    event::Event,
    kthread::Thread,
    net::{SocketAddr, Stream},
};

/// What `link add` says.
pub(crate) struct Config {
    pub(crate) name: Name,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) mode: Mode,
    pub(crate) heartbeat_ms: u32,
    pub(crate) peer_timeout_ms: u32,
    pub(crate) progress_timeout_ms: u32,
    /// `None`: the group's.
    pub(crate) window_bytes: Option<u64>,
}

/// What may be changed live.
pub(crate) struct Settings {
    pub(crate) heartbeat_ms: Atomic<u32>,
    pub(crate) peer_timeout_ms: Atomic<u32>,
    /// A peer that owes acknowledgements and moves none for so long loses its session; 0: never.
    pub(crate) progress_timeout_ms: Atomic<u32>,
    /// 0: the group's.
    pub(crate) window_bytes: Atomic<u64>,
}

/// Counters, for status.
#[derive(Default)]
pub(crate) struct Stats {
    pub(crate) messages_sent: Counter,
    pub(crate) messages_received: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) connects: Counter,
    pub(crate) resets: Counter,
    pub(crate) crc_errors: Counter,
    pub(crate) resends: Counter,
    pub(crate) dropped: Counter,
}

/// A switch that any thread may throw.
pub(crate) struct Flag(Atomic<u32>);

impl Flag {
    fn new(on: bool) -> Flag {
        Flag(Atomic::new(u32::from(on)))
    }

    pub(crate) fn set(&self, on: bool) {
        self.0.store(u32::from(on), Relaxed);
    }

    pub(crate) fn get(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    /// Clears it; whether it was set.
    pub(crate) fn take(&self) -> bool {
        self.get() && self.0.xchg(0, Relaxed) != 0
    }
}

/// What the thread shows of itself, and why.
pub(crate) struct LinkStatus {
    /// The state machine's.
    pub(crate) state: State,
    /// The last one that is worth showing: a handshake that is tried again every few seconds is not.
    pub(crate) shown: State,
    pub(crate) reason: Reason,
    pub(crate) text: Option<Text>,
    pub(crate) since_ns: u64,
    pub(crate) peer_host: HostId,
    /// Where the other side's log ended when it last spoke.
    pub(crate) peer_head: Seq,
    /// On a secondary: what it acknowledged.
    pub(crate) acked: replicate_core::node::secondary::Acks,
    /// On a secondary: the primary said in its last message that its writers wait for us.
    pub(crate) told_in_sync: bool,
    /// When the peer last had everything, ns since 1970.
    pub(crate) level_ns: u64,
    /// On a primary: the synchronisations that run or were asked for.
    pub(crate) syncs: Syncs,
    /// How far the one is that is under way.
    pub(crate) sync: Option<sync::Job>,
}

/// A link. See the module.
#[pin_data]
pub(crate) struct Link {
    pub(crate) name: Name,
    /// Its slot in the superblock.
    pub(crate) id: LinkId,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    /// What its thread waits on without a connection; with one it is the connection's event.
    pub(crate) wake: Arc<Event>,
    /// Notified when the state changed, for commands that wait.
    pub(crate) changed: Arc<Event>,
    pub(crate) settings: Settings,
    pub(crate) stats: Stats,
    /// The session should stand: not disconnected by command.
    enabled: Flag,
    /// The session should begin anew, at once.
    restart_wanted: Flag,
    /// The log gave the link up.
    overflow: Flag,
    /// A handshake was concluded or refused since the link was added.
    answered: Flag,
    /// A session or handshake stands.
    connected: Flag,
    /// It is being removed.
    closing: Flag,
    /// What `sync --assume-clean` asked for was done, or refused.
    sync_over: Flag,
    last_rx_ns: Atomic<u64>,
    rtt_us: Atomic<u64>,
    sent: Atomic<u64>,
    /// Connections from the peer's address that the listener keeps, and that have proven nothing yet.
    pub(crate) handshakes: Atomic<u32>,
    #[pin]
    pub(crate) view: Mutex<LinkStatus>,
    #[pin]
    stream: SpinLock<Option<Arc<Stream>>>,
    #[pin]
    incoming: SpinLock<Option<listener::Incoming>>,
    #[pin]
    thread: Mutex<Option<Thread>>,
}

pub(crate) use manage::Change;

impl Link {
    /// The state machine's state.
    pub(crate) fn state(&self) -> State {
        self.view.lock().state
    }

    /// Whether the peer concluded a handshake, or one of the two refused, since the link was added.
    pub(crate) fn answered(&self) -> bool {
        self.answered.get()
    }

    /// Whether a session or a handshake stands.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected.get()
    }

    /// On a secondary: whether the primary's writers waited for this host when it last spoke.
    pub(crate) fn was_in_sync(&self) -> bool {
        self.view.lock().told_in_sync
    }

    /// Wakes the link's thread, whichever of its two events it waits on. Does not sleep.
    pub(crate) fn wake_thread(&self) {
        self.wake.notify();
        let stream = self.stream.lock().clone();
        if let Some(stream) = stream {
            stream.event().notify();
        }
    }

    /// The log no longer keeps what this link needs: its session ends, only a sync helps.
    pub(crate) fn overflowed(&self) {
        self.overflow.set(true);
        self.wake_thread();
    }

    /// Begins a new handshake at once: a volume was added, a sync was asked for.
    pub(crate) fn restart(&self) {
        self.restart_wanted.set(true);
        self.wake_thread();
    }

    /// Ends the session and waits until no acknowledgement can leave any more. The link stays idle until
    /// [`Self::connect`]; `false`: it was disconnected by command before. May sleep; no lock may be held.
    pub(crate) fn close_for_takeover(&self) -> bool {
        let enabled = self.enabled.get();
        self.disable();
        self.changed
            .wait_until_always(replicate_linux::event::FOREVER, || !self.is_connected());
        enabled
    }

    /// Ends the session; the thread does not try again. Does not wait.
    fn disable(&self) {
        self.enabled.set(false);
        if self.state() == State::Handshake {
            // Nobody is owed a goodbye yet, and a peer that is slow to prove itself is not waited for.
            self.shutdown_stream();
        }
        self.wake_thread();
    }

    /// Breaks the connection, if one stands: whoever waits on it goes on. Does not sleep.
    fn shutdown_stream(&self) {
        let stream = self.stream.lock().clone();
        if let Some(stream) = stream {
            stream.shutdown();
        }
    }

    /// Bytes that the connection holds: sent, and not acknowledged by the peer's TCP. May sleep.
    pub(crate) fn unacked_bytes(&self) -> u32 {
        let stream = self.stream.lock().clone();
        // The last reference is dropped where it may sleep.
        stream.map_or(0, |s| u32::try_from(s.unacked()).unwrap_or(u32::MAX))
    }

    /// The connection that [`Self::shutdown_stream`] breaks.
    fn set_stream(&self, stream: Option<Arc<Stream>>) {
        let old = core::mem::replace(&mut *self.stream.lock(), stream);
        // May be the last reference: released where it may sleep.
        drop(old);
    }

    /// Hands over a connection whose peer has proven itself. An older one that waits is dropped.
    pub(crate) fn offer(&self, incoming: listener::Incoming) {
        let old = self.incoming.lock().replace(incoming);
        drop(old);
        self.wake_thread();
    }

    fn take_incoming(&self) -> Option<listener::Incoming> {
        self.incoming.lock().take()
    }

    fn has_incoming(&self) -> bool {
        self.incoming.lock().is_some()
    }

    fn incoming_host(&self) -> Option<HostId> {
        self.incoming.lock().as_ref().map(|i| i.host)
    }

    /// How much a secondary lets its primary have under way.
    fn window_bytes(&self, group: &Group) -> u64 {
        match self.settings.window_bytes.load(Relaxed) {
            0 => group.settings.window_bytes.load(Relaxed),
            n => n,
        }
    }

    /// Somebody named this link and was turned away: that may be why a link that waits for its peer still
    /// waits, and is shown. Anybody can do so, so it changes nothing else. May sleep.
    fn turned_away(&self, reason: Reason, text: &str) {
        let owned = Text::new(format_args!("{text}"));
        let mut v = self.view.lock();
        if v.state == State::Connecting {
            v.reason = reason;
            v.text = Some(owned);
        }
    }

    /// One step of the state machine, shown with its reason. May sleep, but waits for no memory: writers may wait for
    /// this very link from now on.
    fn step(&self, group: &Group, event: state::Event, reason: Reason, text: fmt::Arguments<'_>) {
        let shown = Text::new(text);
        let owned = Text::new(format_args!("{}", shown.as_str()));
        let (ended, told) = {
            let mut v = self.view.lock();
            let next = state::step(v.state, event);
            let ended = v.state.flows() && !next.flows();
            let again = next == State::Handshake
                && matches!(
                    v.shown,
                    State::Refused | State::NeedsSync | State::Connecting
                );
            let changed = !again && (v.shown != next || v.reason != reason);
            v.state = next;
            if changed {
                v.shown = next;
                v.reason = reason;
                v.since_ns = clock::wall_ns();
            }
            if !again {
                v.text = Some(owned);
            }
            (ended, changed.then_some(next))
        };
        self.changed.notify();
        if let Some(state) = told {
            let severity = match state {
                State::Refused | State::NeedsSync => Severity::Warning,
                State::Connecting if ended => Severity::Warning,
                State::Idle
                | State::Connecting
                | State::Handshake
                | State::CatchingUp
                | State::Streaming
                | State::Syncing => Severity::Info,
            };
            let line = Text::new(format_args!("{}: {}", state.name(), shown.as_str()));
            event::link(
                group,
                self,
                Code::LinkState,
                severity,
                reason,
                line.as_str(),
            );
        }
    }
}
