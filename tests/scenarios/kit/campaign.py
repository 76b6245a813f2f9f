# SPDX-License-Identifier: GPL-2.0
"""Kills, one after the other, on one history, with a verdict over the disks that each would leave.

A kill is a power cut (volatile disks lose a seeded subset of what was not flushed) or a reset (they
lose nothing). Most are taken from hosts that stand still: all guests are frozen at one instant, the disk
servers say what a cut of either side would leave, the judge recovers and takes over from that, and the
hosts go on; what a host would have kept in memory is in no image. In every REAL-th round hosts are killed
in earnest: they boot again, and replication must go on from what they find. The order of record is what
was in the logs before the cut, so that it knows more than any survivor. Everything random comes from the
printed seed.
"""

import itertools
import json
import os
import random
import shutil
import time

from lab.lab import MIB

from . import judge, load, oracle
from .host import Host, seen
from .pair import LINK, Pair, disks, volume_names

# Kills of each side in one `make test`; each campaign takes a share of it.
KILLS = int(os.environ.get("KILLS", "50"))
SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)

# Of so many rounds one kills in earnest.
REAL = 4

# With these modes, what was acknowledged is on the peer's stable storage.
DURABLE = ("logged", "applied")

# How much of the kills are power cuts; the others are resets.
CUTS = 0.75

LINK_OPTIONS = "--heartbeat 300ms --peer-timeout 3s"

# Here nobody may notice that time stood still. A peer that was killed says so itself when it is back.
PATIENT = "--heartbeat 1s --peer-timeout 60s"

# Of the mix of sizes most are small, so that the logs (which are copied) stay small.
BLOCKS = "512,4096x12,16384x2,65536,unaligned"


def share(of_all: float) -> int:
    """This campaign's share of the kills of each side."""
    return max(1, round(KILLS * of_all))


class Campaign:
    """A primary a and a secondary b. `wrap`: the ring is smaller than the run, so the verdict is by
    stamps alone."""

    def __init__(self, lab, bus: str = "virtio", mode: str = "async", ring: bool = True,
                 volumes: int = 2, size: int = 16 * MIB, srl: int = 96 * MIB, wrap: bool = False,
                 load_options: str = "--fsync-every 25 --fua-percent 5",
                 salt: int = 0):
        self.lab, self.mode, self.ring, self.wrap = lab, mode, ring, wrap
        self.seed = SEED + salt
        self.random = random.Random(self.seed)
        print(f"seed: {self.seed} ({mode}, {bus}, {'ring' if ring else 'no ring'})", flush=True)
        layout = disks(volumes, size, srl)
        volatile = {n: {"size": s, "volatile": True, "bus": bus} for n, s in layout.items()}
        guests = lab.guests(2, disks=volatile)
        self.judge = judge.boot(lab, layout, volume_names(volumes))
        self.pair = Pair(guests, volumes, mode=mode, ring=ring, link_options=PATIENT)
        self.a, self.b = self.pair.a, self.pair.b
        self.load_options = load_options
        self.journals = []
        self.kills, self.real = {"a": 0, "b": 0}, {"a": 0, "b": 0}
        self.verdicts, self.judged_in_sync = 0, 0
        self.writers, self.heard = None, None
        self.numbers = itertools.count(1)
        self.folder = lab.folder / "copies"
        self.folder.mkdir(exist_ok=True)
        self.pair.configure()

    # A round ----------------------------------------------------------------

    def run(self, kills: int):
        """At least `kills` kills of each side, some of them in earnest."""
        turns = itertools.cycle(self.random.sample([["a"], ["b"], ["a", "b"]], 3))
        while min(self.kills.values()) < kills:
            number = next(self.numbers)
            self.ready()
            self.write()
            if number % REAL:
                self.still(number)
            else:
                self.earnest(number, next(turns))
        if not self.real["a"] + self.real["b"]:
            self.write()
            self.earnest(next(self.numbers), ["a", "b"])
        if self.writers:
            self.writers.stop(120)
        self.pair.same()
        if self.wrap:
            wrapped(self.copy(self.a, "srl", "order-last"))
        print(f"note: kills {self.kills['a']} + {self.kills['b']} ({self.real['a']} + {self.real['b']} in "
              f"earnest), {self.judged_in_sync} in-sync", flush=True)
        if self.mode in DURABLE:
            assert self.judged_in_sync >= self.verdicts // 4, "hardly ever in-sync: nothing was judged"

    def ready(self):
        """Both sides are back, and what can be level is."""
        self.a.wait_active()
        if self.mode == "async":
            self.a.wait_link(LINK, "streaming")
        else:
            self.a.wait_in_sync(LINK)

    def write(self):
        """Sees to it that writers run, and lets them do some."""
        self.left = len(seen(self.heard, code="left-sync")) if self.heard else 0
        if self.writers is None:
            self.heard, self.left = self.a.events(), 0
            self.writers = load.Load(self.a, seconds=3600, seed=self.random.randrange(1 << 31),
                                     writers=self.random.choice([1, 2, 4]),
                                     depth=self.random.choice([1, 4, 16]),
                                     blocks=load.MIX if self.wrap else BLOCKS,
                                     options=self.load_options)
            self.journals.append(self.folder / f"journal-{len(self.journals)}")
        self.writers.wait_acked(self.writers.acked() + self.random.randrange(20, 300))

    def in_sync(self) -> bool:
        """Whether the link has been in-sync ever since `ready` found it so."""
        return self.mode != "async" and len(seen(self.heard, code="left-sync")) == self.left

    def still(self, number: int):
        """Both sides as a kill at this instant would leave them; they go on afterwards."""
        seed = self.random.randrange(1 << 31)
        cut = {s: self.random.random() < CUTS for s in "ab"}
        print(f"round {number}: still, {said(cut)}, seed {seed}", flush=True)
        for host in (self.a, self.b):
            host.guest.freeze()
        try:
            in_sync = self.in_sync()
            self.writers.save(self.journals[-1])
            orders = [self.copy(h, "srl", f"order-{number}") for h in (self.a, self.b)]
            for s in "ab":
                self.kills[s] += 1
                copies = image(self.side(s).guest, self.folder / f"{s}-order-{number}", seed, cut[s])
                self.verdict(s, copies, orders, in_sync)
        finally:
            for host in (self.a, self.b):
                host.guest.thaw()
        self.forget(number)

    def earnest(self, number: int, sides: list):
        """Kills; the verdict; and they come back."""
        seed = self.random.randrange(1 << 31)
        cut = {s: self.random.random() < CUTS for s in sides}
        print(f"round {number}: killed, {said(cut)}, seed {seed}", flush=True)
        before, in_sync = self.writers.journal(), self.in_sync()
        for s in sides:
            self.side(s).guest.kill()
            self.kills[s] += 1
            self.real[s] += 1
        if "a" in sides:
            # A write that the guest saw complete had been acknowledged while the peer was alive.
            self.writers.save(self.journals[-1])
        else:
            # Later completions may be those that the lost peer released.
            if self.mode == "async":
                self.writers.stop()
            self.writers.save(self.journals[-1], before)
        orders = [self.copy(h, "srl", f"order-{number}") for h in (self.a, self.b)]
        images = {}
        for s in "ab":
            guest = self.side(s).guest
            where = self.folder / f"{s}-order-{number}"
            if s in sides:
                if cut[s]:
                    guest.power_cut(seed)
                images[s] = image(guest, where, seed, cut=False)
            elif s == "b":
                images[s] = image(guest, where, seed, cut=True)
        for s in sides:
            self.side(s).guest.start()
        for s, copies in images.items():
            self.verdict(s, copies, orders, in_sync)
        self.forget(number)
        for s in reversed(sides):
            self.side(s).guest.wait_boot()
            self.side(s).up()
        if "a" not in sides:
            # The next rounds need to know of what was written after the kill, too.
            if self.writers.job.running():
                self.writers.stop(120)
            self.writers.save(self.journals[-1])
        self.writers = self.heard = None
        self.a.wait_active()
        self.pair.same()

    def side(self, name: str) -> Host:
        return self.a if name == "a" else self.b

    def copy(self, host: Host, disk: str, name: str):
        target = self.folder / f"{host.name}-{name}-{disk}.img"
        host.guest.disks[disk].copy_to(target)
        return target

    def forget(self, number: int):
        for file in self.folder.glob(f"*-order-{number}*"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()

    # The verdict ------------------------------------------------------------

    def verdict(self, side: str, copies: dict, orders: list, in_sync: bool):
        """Activates a side's copies at the judge and checks what is found there."""
        self.verdicts += 1
        images = self.judge.disks()
        if side == "a":
            require = "durable"
        elif in_sync and self.mode in DURABLE:
            require = "acked"
            self.judged_in_sync += 1
        else:
            require = "none"
        # A record may have reached the peer before the primary's own log.
        known = [] if self.wrap else (orders if side == "b" and self.ring else orders[:1])
        try:
            self.judge.take(copies, "primary" if side == "a" else "secondary")
            self.judge.drop()
            found = oracle.check(images, self.journals, known, require, closed=side == "b" and not self.ring)
        except Exception as why:
            keep(self.lab, self.seed, [*copies.values(), *orders, *self.journals], images)
            raise type(why)(f"seed {self.seed}, side {side}, required: {require}\n{why}") from None
        print(f"  {side} ({require}): {found}", flush=True)


def said(cut: dict) -> str:
    return " and ".join(f"{s} {'cut' if cut[s] else 'reset'}" for s in cut)


class Alone:
    """One host, no link: images as a kill at any instant would leave them, judged one after the other
    while the host stands still. No boot between two of them, so there can be many."""

    def __init__(self, lab, bus: str = "scsi", size: int = 16 * MIB, srl: int = 64 * MIB,
                 volumes: int = 2, wrap: bool = False, options: str = "", salt: int = 0,
                 load_options: str = "--fsync-every 10 --fua-percent 10", evidence: bool = True):
        self.seed = SEED + salt
        self.random = random.Random(self.seed)
        self.lab, self.wrap = lab, wrap
        self.kills, self.evidence = 0, evidence
        print(f"seed: {self.seed} (alone, {bus})", flush=True)
        layout = disks(volumes, size, srl)
        volatile = {n: {"size": s, "volatile": True, "bus": bus} for n, s in layout.items()}
        (guest,) = lab.guests(1, disks=volatile)
        names = volume_names(volumes)
        self.host = Host(guest, "primary", volumes=names, options=options)
        self.judge = judge.boot(lab, layout, names)
        self.folder = lab.folder / "copies"
        self.folder.mkdir(exist_ok=True)
        self.load_options = load_options
        # Writes, of which all records stay in the ring.
        self.room = srl // (2 * 20 * 1024)
        self.host.load()

    def fresh(self, force: bool):
        """A new history, on what the volumes hold now; the writers that make it."""
        self.host.format(force)
        self.host.group_add()
        self.base = []
        for disk in self.host.volumes.values():
            self.base.append(self.folder / f"base-{disk}.img")
            self.host.guest.disks[disk].copy_to(self.base[-1])
        self.host.create()
        self.host.wait_active()
        writers = load.Load(self.host, seconds=3600, writers=3, depth=8, seed=self.random.randrange(1 << 31),
                            blocks=load.MIX if self.wrap else BLOCKS, options=self.load_options)
        writers.wait_acked(50)
        return writers

    def run(self, kills: int):
        """Judges `kills` images; raises Violated at the first that is wrong."""
        writers, records = self.fresh(force=False), 0
        for number in range(1, kills + 1):
            if writers.acked() > self.room and not self.wrap:
                writers.stop()
                self.host.down()
                writers = self.fresh(force=True)
            time.sleep(self.random.uniform(0.02, 0.4))
            records += self.kill(number, writers)["records"]
        writers.stop()
        if self.wrap:
            self.host.guest.disks["srl"].copy_to(self.folder / "order.img")
            wrapped(self.folder / "order.img")
        print(f"note: {kills} kills judged, {records} records compared", flush=True)

    def kill(self, number: int, writers) -> dict:
        self.kills += 1
        seed, cut = self.random.randrange(1 << 31), self.random.random() < CUTS
        guest = self.host.guest
        guest.freeze()
        try:
            journal = writers.save(self.folder / "journal")
            copies = image(guest, self.folder / "cut", seed, cut)
            order = self.folder / "order.img"
            guest.disks["srl"].copy_to(order)
            print(f"{'cut' if cut else 'reset'} {number} seed {seed}", flush=True)
            images = self.judge.disks()
            try:
                self.judge.take(copies, "primary")
                self.judge.drop()
                found = oracle.check(images, [journal], [] if self.wrap else [order], "durable",
                                     base=self.base)
            except Exception as why:
                if self.evidence:
                    keep(self.lab, self.seed, [*copies.values(), order, journal, *self.base], images)
                raise type(why)(f"seed {self.seed}, kill {number}\n{why}") from None
        finally:
            guest.thaw()
        print(f"  {found}", flush=True)
        return found


def image(guest, where, seed: int, cut: bool) -> dict:
    """{disk: image} of all disks as a power cut now, or a reset, would leave them."""
    where.mkdir(exist_ok=True)
    if cut:
        guest.nbd(f"crash-image {seed} {where}")
    else:
        for name, disk in guest.disks.items():
            disk.copy_to(where / f"{name}.img")
    return {name: where / f"{name}.img" for name in guest.disks}


def wrapped(srl):
    """The ring was meant to be smaller than the run."""
    records = oracle.dump(srl).read_text().splitlines()
    laps = max((json.loads(line).get("lap", 0) for line in records if line.startswith("{")), default=0)
    assert laps > 0, "the ring never wrapped"
    print(f"note: the ring went round {laps} times", flush=True)


def keep(lab, seed: int, files: list, judged: list):
    """Saves what a violation was found in beside the logs."""
    target = lab.logs / f"evidence-{seed}"
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        os.system(f"cp --sparse=always '{file}' '{target}/'")
    for file in judged:
        os.system(f"cp --sparse=always '{file}' '{target}/judged-{file.name}'")
    print(f"evidence: {target}", flush=True)
