# SPDX-License-Identifier: GPL-2.0
"""Hosts joined by links: boots guests, configures a primary and its secondaries, and compares them."""

from lab.lab import MIB

from .host import Host

LINK = "dr"


def disks(volumes: int = 1, size: int = 32 * MIB, srl: int = 64 * MIB) -> dict:
    """The lab's disks of one host: the SRL, and data, data2, ..."""
    found = {"srl": srl}
    for i in range(volumes):
        found["data" if i == 0 else f"data{i + 1}"] = size
    return found


def volume_names(count: int) -> dict:
    """Volume name -> disk name; they are the same."""
    return {n: n for n in disks(count) if n != "srl"}


class Pair:
    """A primary a with a secondary b, and with three hosts a further secondary c (links dr, dr2)."""

    def __init__(self, guests: list, volumes: int = 1, mode: str = "async", modes: list = None,
                 ring: bool = True, options: str = "", link_options: str = "", say=None):
        names = volume_names(volumes)
        self.a = Host(guests[0], "primary", volumes=names, options=options, say=say)
        self.others = [Host(g, "secondary", volumes=names, ring=ring, options=options, say=say)
                       for g in guests[1:]]
        self.b = self.others[0]
        self.modes = modes or [mode] * len(self.others)
        self.link_options = link_options

    @property
    def hosts(self) -> list:
        return [self.a, *self.others]

    def link_names(self) -> list:
        return [LINK if i == 0 else f"{LINK}{i + 1}" for i in range(len(self.others))]

    def configure(self, sync: str = "assume-clean", force: bool = False):
        """From blank disks to configured hosts; `sync` None leaves them unsynchronised."""
        for host in self.hosts:
            host.load()
            host.format(force)
            host.links.clear()
            host.group_add()
        for link, other, mode in zip(self.link_names(), self.others, self.modes):
            other.create()
            other.link_add(link, self.a, mode, self.link_options)
            self.a.link_add(link, other, mode, self.link_options)
        self.a.create()
        self.a.wait("waiting for nothing but links",
                    lambda s: s["state"] in ("active", "holding"))
        if sync:
            for link in self.link_names():
                self.a.wait_link(link, "needs-sync", "catching-up", "streaming")
                self.a.sync(link, sync)
            for link in self.link_names():
                self.a.wait_link(link, "streaming", timeout=120)
            self.a.wait_active()
        return self

    def drain(self, timeout: float = 90):
        for link in self.link_names():
            self.a.wait_drained(link, timeout)

    def same(self, timeout: float = 90):
        """All that was written is on every host, as a reader finds it."""
        equal(self.a, self.others, lambda: self.drain(timeout))


def equal(primary, others: list, drain):
    """The hosts hold the same. A mounted filesystem may write while they are read; then they are read again."""
    head, sums = None, {}
    while primary.status()["head_seq"] != head:
        head = primary.status()["head_seq"]
        drain()
        sums = {v: {h.name: h.sum(v) for h in [primary, *others]} for v in primary.volumes}
    for volume, found in sums.items():
        assert len(set(found.values())) == 1, f"volume {volume} differs at record {head}: {found}"


def boot(lab, count: int = 2, volumes: int = 1, size: int = 32 * MIB, srl: int = 64 * MIB,
         **options) -> list:
    """Guests with the disks of a group."""
    return lab.guests(count, disks=disks(volumes, size, srl), **options)


def make(lab, count: int = 2, volumes: int = 1, size: int = 32 * MIB, srl: int = 64 * MIB,
         volatile: bool = False, bus: str = "virtio", sync: str = "assume-clean", **options) -> Pair:
    """Boots and configures in one go."""
    guests = boot(lab, count, volumes, size, srl, volatile=volatile, bus=bus)
    return Pair(guests, volumes, **options).configure(sync)
