// SPDX-License-Identifier: GPL-2.0

//! Superblocks as they are: the real bytes, changed by the core's transitions (`node::durable`), and by nothing else.
//!
//! A state holds many, and most of them are the same: each content exists once, and is known by its hash. What the
//! checks read of it is decoded once, by the core's own reading functions.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{Hash, Hasher},
    ops::Deref,
    rc::Rc,
};

use replicate_core::{
    group::{Name, Role as Recorded, Volume},
    lineage::{Epoch as Entered, Lineage},
    log::{
        format::SUPERBLOCK_BYTES,
        ring::{Mark, Place},
        superblock::{Format, Superblock, SyncState, Tail},
    },
    node::{
        durable::{
            grow::{GrowError, Limits},
            links, start,
        },
        links::LinkId,
    },
    units::{Bytes, Chain, EpochId, GroupUuid, HostId, Seq, VolumeId},
};

use crate::{
    cluster::{self, Cluster},
    config::Config,
    copies::{writing, Outcomes, DEVICE},
    disk::Epoch,
    host::LINK,
    search::Mix,
};

/// The group that the hosts share.
pub const GROUP: GroupUuid = GroupUuid([8; 16]);

/// Its name.
pub fn group() -> Name {
    Name::new(b"g").expect("a name")
}

pub fn epoch_id(n: u8) -> EpochId {
    EpochId([n; 16])
}

/// What a superblock says, as the model reads it.
#[derive(Debug)]
pub struct Said {
    pub primary: bool,
    pub line: Vec<Epoch>,
    pub applied: Seq,
    pub applied_chain: Chain,
    pub commit: Seq,
    pub tail: Mark,
    pub inconsistent: bool,
    pub redo: bool,
    pub horizon: Seq,
    /// The link's durable position; `None`: needs a sync.
    pub kept: Option<Seq>,
}

#[derive(Debug)]
struct Image {
    bytes: Vec<u8>,
    key: u64,
    /// Size of the modelled ring, which is smaller than a real one may be.
    ring: u64,
    said: Said,
}

/// A superblock.
#[derive(Clone, Debug)]
pub struct Sb(Rc<Image>);

thread_local! {
    static KNOWN: RefCell<HashMap<u64, Sb>> = RefCell::default();
}

impl PartialEq for Sb {
    fn eq(&self, other: &Sb) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for Sb {}

impl Hash for Sb {
    fn hash<H: Hasher>(&self, h: &mut H) {
        h.write_u64(self.0.key);
    }
}

impl Deref for Sb {
    type Target = Said;

    fn deref(&self) -> &Said {
        &self.0.said
    }
}

fn formatted(host: u8, ring: bool) -> Vec<u8> {
    let mut bytes = vec![0; SUPERBLOCK_BYTES];
    let sb = Superblock::mut_from(&mut bytes).expect("large enough");
    sb.format(&Format {
        host: HostId([host; 16]),
        device: DEVICE,
        physical_block: 4096,
        ring,
    })
    .expect("formatted");
    bytes
}

/// The group's history begins.
fn begins(sb: &mut Superblock) {
    sb.set_group(GROUP, group());
    let first = Entered {
        id: epoch_id(1),
        first: Seq(1),
        ..Entered::default()
    };
    sb.push_epoch(first).expect("the first epoch");
    sb.set_consistent(false);
}

impl Sb {
    /// The superblock of a host before its first start in the run. `known`: its volumes are a state of the history.
    pub fn new(cfg: &Config, primary: bool, known: bool, ring: u64, place: Place) -> Sb {
        // Whether the host has a ring is the model's, too.
        let with_ring = primary || cfg.peer != Some(crate::config::Peer::NoRing);
        let mut bytes = formatted(if primary { 1 } else { 2 }, with_ring);
        let sb = Superblock::mut_from(&mut bytes).expect("large enough");
        if known {
            begins(sb);
        } else {
            // It was added; the uuid comes with its first welcome.
            sb.set_group(GroupUuid::NONE, group());
        }
        sb.set_role(if primary {
            Recorded::Primary
        } else {
            Recorded::Secondary
        });
        if sb.ring().is_some() {
            sb.set_tail(Tail {
                seq: Seq(1),
                offset: Bytes(place.0),
                ..Tail::default()
            });
        }
        if primary {
            let mut volumes: Vec<u16> = cfg.blocks.iter().map(|b| b.0).collect();
            volumes.dedup();
            for v in volumes {
                let volume = Volume {
                    id: VolumeId(v),
                    name: Name::new(format!("v{v}").as_bytes()).expect("a name"),
                    size: cfg.size(v),
                    logical_block: 512,
                    discard_granularity: 0,
                };
                sb.adopt_volume(volume).expect("a new volume");
            }
        }
        if primary && cfg.peer.is_some() {
            let mut link = links::add(sb, LINK, group(), cfg.mode, 0).expect("a slot");
            if !cfg.sync {
                link.state = replicate_core::log::superblock::LinkState::Normal;
                link.peer = HostId([2; 16]);
            }
            assert!(sb.set_link(usize::from(LINK.0), Some(&link)));
        }
        Sb::intern(bytes, ring)
    }

    /// The superblock of host `h` of a cluster: all have the same history, of which nothing was written yet.
    pub fn of_cluster(h: usize, cfg: &Cluster) -> Sb {
        let mut bytes = formatted(h as u8 + 1, true);
        let sb = Superblock::mut_from(&mut bytes).expect("large enough");
        begins(sb);
        sb.set_role(if h == 0 {
            Recorded::Primary
        } else {
            Recorded::Secondary
        });
        sb.set_tail(Tail {
            seq: Seq(1),
            ..Tail::default()
        });
        sb.adopt_volume(cluster::volume()).expect("a new volume");
        for (l, ends) in cfg.links.iter().enumerate() {
            if ends.0 == h || ends.1 == h {
                let name = Name::new(format!("l{l}").as_bytes()).expect("a name");
                links::add(sb, LinkId(l as u8), name, cfg.mode, 0).expect("a slot");
            }
        }
        Sb::intern(bytes, cluster::RING)
    }

    fn intern(bytes: Vec<u8>, ring: u64) -> Sb {
        let mut h = Mix::default();
        // What lies behind the volumes is zero.
        let used = SUPERBLOCK_BYTES.min(16 << 10);
        h.write(&bytes[..used]);
        h.write_u64(ring);
        let key = h.finish();
        KNOWN.with_borrow_mut(|known| {
            let new = || {
                let said = Said::of(Superblock::ref_from(&bytes).expect("large enough"), ring);
                let image = Image {
                    bytes: bytes.clone(),
                    key,
                    ring,
                    said,
                };
                Sb(Rc::new(image))
            };
            known.entry(key).or_insert_with(new).clone()
        })
    }

    /// The bytes, to read.
    pub fn bytes(&self) -> &Superblock {
        Superblock::ref_from(&self.0.bytes).expect("large enough")
    }

    /// The lineage.
    pub fn lineage(&self) -> Lineage<'_> {
        self.bytes().lineage()
    }

    /// A sync of the link that is not over.
    pub fn link_sync(&self) -> Option<SyncState> {
        self.bytes().link(usize::from(LINK.0))?.sync
    }

    /// The volumes of its table.
    pub fn volumes(&self) -> impl Iterator<Item = Volume> + '_ {
        self.bytes().volumes().map(|v| v.volume)
    }

    /// What it becomes by one of the core's transitions; an error where that refuses.
    pub fn edit<T, E>(
        &self,
        change: impl FnOnce(&mut Superblock) -> Result<T, E>,
    ) -> Result<Sb, E> {
        let mut bytes = self.0.bytes.clone();
        change(Superblock::mut_from(&mut bytes).expect("large enough"))?;
        Ok(Sb::intern(bytes, self.0.ring))
    }

    /// The same, for a transition that cannot refuse.
    pub fn changed(&self, change: impl FnOnce(&mut Superblock)) -> Sb {
        let edited = self.edit(|sb| {
            change(sb);
            Ok::<(), std::convert::Infallible>(())
        });
        match edited {
            Ok(sb) => sb,
            Err(never) => match never {},
        }
    }

    /// What may come of writing `next` over this one, where that does not succeed.
    pub fn writing(&self, next: &Sb) -> Outcomes {
        let (former, next) = (&self.0, &next.0);
        writing((former.key, &former.bytes), (next.key, &next.bytes))
            .unwrap_or_else(|e| panic!("superblock writes: {e}"))
    }

    /// A primary starts with `head`: its new epoch. `None`: its own replay needs the epoch that would be folded.
    pub fn begin_life(&self, head: Seq, epoch: u8, limits: Limits) -> Result<Option<Sb>, String> {
        let life = start::Life {
            name: group(),
            role: replicate_core::node::Role::Primary,
            head,
            uuid: GROUP,
            epoch: epoch_id(epoch),
            time_ns: 0,
            limits,
        };
        match self.edit(|sb| start::begin_life(sb, &life)) {
            Ok(sb) => Ok(Some(sb)),
            Err(GrowError::ReplayNeeds { .. }) => Ok(None),
            Err(e) => Err(e.to_string()),
        }
    }
}

impl Said {
    /// Number of the epoch of `seq`; 0: none.
    pub fn epoch(&self, seq: Seq) -> u8 {
        let own = self.line.iter().rev().find(|e| e.1 <= seq.0);
        own.map_or(0, |e| e.0)
    }

    /// Number of the newest epoch; 0: none.
    pub fn newest(&self) -> u8 {
        self.line.last().map_or(0, |e| e.0)
    }

    fn of(sb: &Superblock, ring: u64) -> Said {
        let tail = sb.tail();
        let link = sb.link(usize::from(LINK.0));
        Said {
            primary: sb.role() == Recorded::Primary,
            line: sb
                .lineage()
                .iter()
                .map(|e| (e.id.0[0], e.first.0))
                .collect(),
            applied: sb.applied().seq,
            applied_chain: sb.checkpoint().1,
            commit: sb.commit().seq,
            tail: Mark {
                first: tail.seq,
                place: Place(tail.lap * ring + tail.offset.0),
                chain: tail.chain,
            },
            inconsistent: sb.inconsistent().is_some(),
            redo: sb.redo(),
            horizon: sb.horizon().seq,
            kept: link.as_ref().and_then(start::kept),
        }
    }
}
