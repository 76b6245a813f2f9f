// SPDX-License-Identifier: GPL-2.0

//! Who connects to this host: one listener per local address, shared by the links of all groups.
//!
//! A connection that does not come from the peer address of one of these links is closed when it is accepted. Any other
//! has a place in a list, 3 seconds and 160 bytes until it has proven that it knows the secret of the group whose link it
//! named. Its hello is signed with that secret, and one that is not, or that another pending connection has sent before,
//! ends there: who has not recorded hellos takes no place that is kept for a proof. Whose places they are, and who goes when they are taken, is decided by `replicate_core::session::accept`. Then it
//! is handed to that link's thread. Garbage, half messages and wrong proofs cost nobody else anything: the pending
//! connection is dropped and counted.
//!
//! The thread accepts a few connections at a time, looks at those that wait, and then at whether it shall stop: a flood
//! holds up neither an honest peer nor the removal of the link.
//!
//! Locks: [`Listeners`] `inner` > `Shared::links` > the group's `lists`. A listener's thread is joined with none held.

use super::{hello, Link};
use crate::{
    event::{self, Code as Event, Severity},
    group::Group,
    reason::Reason,
    refuse::{Refusal, Text},
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{atomic::Relaxed, Arc, Mutex}, //
};
use replicate_core::{
    group::Name,
    session::accept::{self, Admission, Stage, MAX_ACCEPTS},
    units::HostId,
    wire::{
        hello::{decode_proof, encode_proof, encode_refusal, End, Hello},
        Code, HELLO_BYTES, PROOF_BYTES,
    },
};
use replicate_linux::{
    clock,
    digest::eq_const_time,
    errno::{EADDRINUSE, EADDRNOTAVAIL, ECONNABORTED},
    event::{Event as Wake, FOREVER},
    kthread::{StopToken, Thread},
    net::{Listener, Part, SocketAddr, Stream},
};

/// A pending connection's own event is for its link's thread later; until then it is looked at so often.
const POLL_MS: u32 = 10;
/// Why a connection is closed whose address has no place left.
const TOO_MANY: &str = "too many connections from this address at once";
/// Bad connections are told about at most so often.
const QUIET_NS: u64 = 10_000_000_000;

/// A connection whose peer has proven itself.
pub(crate) struct Incoming {
    pub(crate) stream: Arc<Stream>,
    pub(crate) host: HostId,
}

/// One listening address.
struct Entry {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Thread,
}

/// The links that listen there.
#[pin_data]
struct Shared {
    #[pin]
    links: Mutex<KVec<(Arc<Group>, Arc<Link>)>>,
}

impl Shared {
    /// The link of that name, and its group, if it is one to the host at `from`. May sleep.
    fn find(&self, name: &Name, from: &SocketAddr) -> Option<(Arc<Group>, Arc<Link>)> {
        let links = self.links.lock();
        links
            .iter()
            .find(|(_, l)| l.name == *name && l.peer.same_host(from))
            .cloned()
    }
}

/// All listeners of this module. See the module.
#[pin_data]
pub(crate) struct Listeners {
    #[pin]
    inner: Mutex<KVec<Entry>>,
}

impl Listeners {
    /// No listener yet. May sleep.
    pub(crate) fn new() -> Result<Arc<Listeners>> {
        Arc::pin_init(
            pin_init!(Listeners {
                inner <- new_mutex!(KVec::new()),
            }),
            GFP_KERNEL,
        )
    }

    /// Listens on the link's local address. May sleep.
    pub(crate) fn listen(&self, group: &Arc<Group>, link: &Arc<Link>) -> Result<(), Refusal> {
        let mut inner = self.inner.lock();
        if let Some(entry) = inner.iter().find(|e| e.address == link.local) {
            let mut links = entry.shared.links.lock();
            if links.iter().any(|(_, l)| l.name == link.name) {
                return Err(Refusal::new(
                    EEXIST,
                    format_args!(
                        "link {}: another group has a link of this name on {}",
                        link.name.as_str(),
                        link.local
                    ),
                ));
            }
            links.push((group.clone(), link.clone()), GFP_KERNEL)?;
            return Ok(());
        }
        inner.reserve(1, GFP_KERNEL)?;
        let wake = Wake::new()?;
        let socket = Listener::bind(link.local, wake.clone()).map_err(|e| cannot(link, e))?;
        let mut links = KVec::with_capacity(1, GFP_KERNEL)?;
        links.push((group.clone(), link.clone()), GFP_KERNEL)?;
        let shared = Arc::pin_init(
            pin_init!(Shared {
                links <- new_mutex!(links),
            }),
            GFP_KERNEL,
        )?;
        let acceptor = Acceptor {
            socket,
            wake,
            shared: shared.clone(),
            pending: KVec::new(),
            told_ns: 0,
        };
        let thread = Thread::spawn_noio(c"dmrepl-listen", move |stop| acceptor.run(stop))?;
        inner.push(
            Entry {
                address: link.local,
                shared,
                thread,
            },
            GFP_KERNEL,
        )?;
        Ok(())
    }

    /// The link listens no more; the last one of an address closes it. May sleep; no lock may be held.
    pub(crate) fn forget(&self, link: &Link) {
        let closed = {
            let mut inner = self.inner.lock();
            let Some(i) = inner.iter().position(|e| e.address == link.local) else {
                return;
            };
            let empty = match inner.get(i) {
                Some(entry) => {
                    let mut links = entry.shared.links.lock();
                    links.retain(|(_, l)| !core::ptr::eq::<Link>(&**l, link));
                    links.is_empty()
                }
                None => false,
            };
            if empty {
                inner.remove(i).ok()
            } else {
                None
            }
        };
        if let Some(entry) = closed {
            entry.thread.stop();
        }
    }
}

fn cannot(link: &Link, e: Error) -> Refusal {
    let why = if e == EADDRINUSE {
        "address in use"
    } else if e == EADDRNOTAVAIL {
        "address not available"
    } else {
        "address not usable"
    };
    Refusal::new(
        e,
        format_args!(
            "link {}: cannot listen on --local {}: {why} (error {})",
            link.name.as_str(),
            link.local,
            e.to_errno()
        ),
    )
}

/// What a pending connection must send next.
enum Step {
    Hello,
    Proof(KBox<Challenge>),
}

/// What a pending connection must answer. It holds neither link nor group: both may be removed meanwhile.
struct Challenge {
    link: Name,
    host: HostId,
    theirs: [u8; HELLO_BYTES],
    ours: [u8; HELLO_BYTES],
}

struct Pending {
    stream: Arc<Stream>,
    from: SocketAddr,
    since_ns: u64,
    buf: [u8; HELLO_BYTES],
    got: usize,
    step: Step,
    /// The link that it named with a right MAC, or with a wrong one: both are of interest to whoever looks at that link.
    named: Option<Name>,
}

impl Pending {
    fn stage(&self) -> Stage {
        match &self.step {
            Step::Hello => Stage::Hello,
            Step::Proof(_) => Stage::Proof,
        }
    }

    /// Whether it has sent that hello, and was answered.
    fn sent(&self, hello: &[u8]) -> bool {
        matches!(&self.step, Step::Proof(c) if c.theirs == *hello)
    }
}

/// What becomes of a pending connection.
enum Turn {
    /// It has not said enough yet.
    Stays,
    /// It is gone, or was handed over.
    Leaves,
    /// It is dropped: why.
    Bad(&'static str),
}

/// The thread behind one address.
struct Acceptor {
    socket: Listener,
    wake: Arc<Wake>,
    shared: Arc<Shared>,
    pending: KVec<KBox<Pending>>,
    told_ns: u64,
}

impl Acceptor {
    fn run(mut self, stop: &StopToken) {
        while !stop.should_stop() {
            let mut timeout = self.accept_some();
            self.serve();
            self.show();
            if !self.pending.is_empty() {
                timeout = timeout.min(POLL_MS);
            }
            self.wake.wait(timeout);
        }
    }

    /// Tells each link how many connections of its peer's address wait.
    fn show(&self) {
        let links = self.shared.links.lock();
        for (_, link) in links.iter() {
            let same = self.pending.iter().filter(|p| p.from.same_host(&link.peer));
            let count = u32::try_from(same.count()).unwrap_or(u32::MAX);
            link.handshakes.store(count, Relaxed);
        }
    }

    /// Accepts some of those who wait. Returns how long, in ms, the thread may wait for the next ones.
    fn accept_some(&mut self) -> u32 {
        for _ in 0..MAX_ACCEPTS {
            let Ok(event) = Wake::new() else {
                return POLL_MS;
            };
            match self.socket.try_accept(event) {
                Ok(Some((stream, from))) => self.accepted(stream, from),
                Ok(None) => return FOREVER,
                // It was reset before it was accepted; there may be others behind it.
                Err(e) if e == ECONNABORTED => {}
                Err(_) => return POLL_MS,
            }
        }
        0
    }

    fn accepted(&mut self, stream: Arc<Stream>, from: SocketAddr) {
        let links = self.shared.links.lock();
        let known = links.iter().any(|(_, l)| l.peer.same_host(&from));
        drop(links);
        if !known {
            return self.tell_dropped(&stream, from, None, "not the address of a peer");
        }
        let waiting = self.pending.iter().map(|p| (p.from.host(), p.stage()));
        match accept::admit(waiting, &from.host()) {
            Admission::Takes => {}
            Admission::Replaces(i) => self.reject(i, TOO_MANY),
            Admission::Closed => return self.tell_dropped(&stream, from, None, TOO_MANY),
        }
        let pending = Pending {
            stream,
            from,
            since_ns: clock::monotonic_ns(),
            buf: [0; HELLO_BYTES],
            got: 0,
            step: Step::Hello,
            named: None,
        };
        if let Ok(pending) = KBox::new(pending, GFP_KERNEL) {
            let i = self.pending.len();
            if self.pending.push(pending, GFP_KERNEL).is_ok() {
                // Its hello may be here: then no later connection takes its place.
                self.serve_one(i);
            }
        }
    }

    fn serve(&mut self) {
        let mut i = 0;
        while i < self.pending.len() {
            if self.serve_one(i) {
                i += 1;
            }
        }
    }

    /// Takes what a pending connection sent. Returns whether it stays.
    fn serve_one(&mut self, i: usize) -> bool {
        let Some((before, [pending, after @ ..])) = self.pending.split_at_mut_checked(i) else {
            return false;
        };
        let (host, since_ns) = (pending.from.host(), pending.since_ns);
        let (before, after) = (&*before, &*after);
        let sent = |some: &[KBox<Pending>], hello: &[u8]| some.iter().any(|p| p.sent(hello));
        let repeated = |hello: &[u8]| sent(before, hello) || sent(after, hello);
        match turn(pending, &self.shared, repeated) {
            Turn::Stays => {
                let same = self.pending.iter().filter(|p| p.from.host() == host);
                let age_ns = clock::monotonic_ns().saturating_sub(since_ns);
                if !accept::is_late(age_ns, same.count()) {
                    return true;
                }
                self.reject(i, "authentication timed out");
            }
            Turn::Leaves => drop(self.pending.remove(i)),
            Turn::Bad(why) => self.reject(i, why),
        }
        false
    }

    fn reject(&mut self, i: usize, why: &'static str) {
        if let Ok(pending) = self.pending.remove(i) {
            self.tell_dropped(&pending.stream, pending.from, pending.named, why);
        }
    }

    /// Closes a connection, counts it, and tells of it now and then. `named`: the link that it named, if it did; else it is
    /// nobody's in particular.
    fn tell_dropped(
        &mut self,
        stream: &Stream,
        from: SocketAddr,
        named: Option<Name>,
        why: &'static str,
    ) {
        stream.shutdown();
        let now = clock::monotonic_ns();
        let tell = self.told_ns == 0 || now.saturating_sub(self.told_ns) > QUIET_NS;
        if tell {
            self.told_ns = now;
        }
        let links = self.shared.links.lock();
        for (group, link) in links.iter() {
            if named.is_some_and(|n| n != link.name) {
                continue;
            }
            link.stats.dropped.add(1);
            if !tell && named.is_none() {
                continue;
            }
            let text = Text::new(format_args!("connection from {from} dropped: {why}"));
            if named.is_some() {
                link.turned_away(Reason::Auth, text.as_str());
            }
            if tell {
                event::link(
                    group,
                    link,
                    Event::BadPeer,
                    Severity::Warning,
                    Reason::Auth,
                    text.as_str(),
                );
            }
        }
    }
}

/// Reads what a pending connection said, and answers. `repeated`: whether another one has sent this hello.
fn turn(pending: &mut Pending, shared: &Shared, repeated: impl Fn(&[u8]) -> bool) -> Turn {
    let want = match pending.step {
        Step::Hello => HELLO_BYTES,
        Step::Proof(_) => PROOF_BYTES,
    };
    while pending.got < want {
        let Some(to) = pending.buf.get_mut(pending.got..want) else {
            return Turn::Leaves;
        };
        match pending.stream.try_recv(to) {
            Ok(0) => {
                return if pending.got >= 8 && !starts_well(pending) {
                    Turn::Bad("not the dm-replicate protocol")
                } else {
                    Turn::Stays
                }
            }
            Ok(n) => pending.got += n,
            Err(_) if pending.got == 0 && matches!(pending.step, Step::Hello) => {
                // Somebody looked whether the port is open.
                return Turn::Leaves;
            }
            Err(_) => return Turn::Bad("closed before authentication"),
        }
    }
    pending.got = 0;
    match &pending.step {
        Step::Hello => greet(pending, shared, repeated),
        Step::Proof(challenge) => admit(pending, challenge, shared),
    }
}

fn starts_well(pending: &Pending) -> bool {
    pending
        .buf
        .first_chunk::<8>()
        .is_some_and(|f| replicate_core::wire::Clear::peek(f).is_ok())
}

/// A hello is there: find its link, answer with ours.
fn greet(pending: &mut Pending, shared: &Shared, repeated: impl Fn(&[u8]) -> bool) -> Turn {
    let Ok(them) = Hello::decode(&pending.buf) else {
        return Turn::Bad("invalid hello");
    };
    let Some((group, link)) = shared.find(&them.link, &pending.from) else {
        let no = Text::new(format_args!("unknown link '{}'", them.link.as_str()));
        refuse(pending, Code::UnknownLink, no.as_str());
        return Turn::Bad("unknown link");
    };
    let us = hello::ours(&group, &link);
    if let Err(e) = us.agree(&them) {
        let no = hello::disagree(e, &link);
        refuse(
            pending,
            no.tell.unwrap_or(Code::Protocol),
            no.refusal.text(),
        );
        return Turn::Bad("protocol version or host id not accepted");
    }
    if !eq_const_time(&them.mac, &hello::sign(&group, &them)) {
        pending.named = Some(link.name);
        return wrong_secret(pending);
    }
    if repeated(&pending.buf) {
        return Turn::Bad("a repeated hello");
    }
    let ours = us.encode();
    let challenge = Challenge {
        link: link.name,
        host: them.host,
        theirs: pending.buf,
        ours,
    };
    let Ok(challenge) = KBox::new(challenge, GFP_KERNEL) else {
        return Turn::Bad("out of memory");
    };
    // A new socket has room for so little; if not, the pending connection has no patience left soon.
    if !send(pending, &ours) {
        return Turn::Bad("send timed out");
    }
    pending.named = Some(link.name);
    pending.step = Step::Proof(challenge);
    Turn::Stays
}

/// A proof is there: check it, answer with ours, hand the connection over.
fn admit(pending: &Pending, c: &Challenge, shared: &Shared) -> Turn {
    let Some((group, link)) = shared.find(&c.link, &pending.from) else {
        return Turn::Bad("its link was removed");
    };
    let mac = pending.buf.first_chunk::<PROOF_BYTES>().map(decode_proof);
    let right = match mac {
        Some(Ok(mac)) => eq_const_time(
            &mac,
            &hello::prove(&group, End::Connector, &c.theirs, &c.ours),
        ),
        Some(Err(_)) | None => false,
    };
    if !right {
        return wrong_secret(pending);
    }
    let ours = encode_proof(&hello::prove(&group, End::Listener, &c.theirs, &c.ours));
    if !send(pending, &ours) {
        return Turn::Bad("send timed out");
    }
    link.offer(Incoming {
        stream: pending.stream.clone(),
        host: c.host,
    });
    Turn::Leaves
}

fn wrong_secret(pending: &Pending) -> Turn {
    refuse(
        pending,
        Code::WrongSecret,
        "the proof is wrong: is the same --secret-file used on both hosts?",
    );
    Turn::Bad("authentication failed: wrong secret")
}

fn send(pending: &Pending, bytes: &[u8]) -> bool {
    matches!(pending.stream.try_send(&[Part::Bytes(bytes)], 0, false), Ok(n) if n == bytes.len())
}

fn refuse(pending: &Pending, code: Code, text: &str) {
    send(pending, &encode_refusal(code, text));
}
