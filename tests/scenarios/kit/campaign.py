# SPDX-License-Identifier: GPL-2.0
"""Kills, one after the other, on one history: writers run, a side is killed (or both), the verdict is
spoken over copies of its disks, the killed side comes back, and replication must go on.

A kill is a power cut (volatile disks lose a seeded subset of what was not flushed) or a reset (they
lose nothing). The order of record is what was in the logs before the cut, so that it knows more than
any survivor. Everything random comes from the printed seed.
"""

import itertools
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

# With these modes, what was acknowledged is on the peer's stable storage.
DURABLE = ("logged", "applied")

LINK_OPTIONS = "--heartbeat 300ms --peer-timeout 3s"


def share(of_all: float) -> int:
    """This campaign's share of the kills of each side."""
    return max(1, round(KILLS * of_all))


class Campaign:
    """`wrap`: the ring is smaller than the run, so the verdict is by stamps alone."""

    def __init__(self, lab, bus: str = "virtio", mode: str = "async", ring: bool = True,
                 volumes: int = 2, size: int = 16 * MIB, srl: int = 512 * MIB, wrap: bool = False,
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
        self.pair = Pair(guests, volumes, mode=mode, ring=ring, link_options=LINK_OPTIONS)
        self.a, self.b = self.pair.a, self.pair.b
        self.load_options = load_options
        self.journals = []
        self.kills = {"a": 0, "b": 0}
        self.verdicts, self.judged_in_sync = 0, 0
        self.numbers = itertools.count(1)
        self.folder = lab.folder / "copies"
        self.folder.mkdir(exist_ok=True)
        self.pair.configure()

    # A round ----------------------------------------------------------------

    def run(self, kills: int):
        """At least `kills` kills of each side."""
        while min(self.kills.values()) < kills:
            behind = [s for s in "ab" if self.kills[s] < kills]
            sides = self.random.choice([behind, [behind[0]], ["a", "b"]])
            self.round(sides)
            if sum(self.kills.values()) % 10 < len(sides):
                self.pair.same()
        self.pair.same()
        print(f"note: kills {self.kills['a']} + {self.kills['b']}, {self.verdicts} verdicts, "
              f"{self.judged_in_sync} in-sync", flush=True)
        if self.mode in DURABLE:
            assert self.judged_in_sync >= self.verdicts // 4, "hardly ever in-sync: nothing was judged"

    def round(self, sides: list):
        number = next(self.numbers)
        cut = {s: self.random.random() < 0.7 for s in sides}
        seed = self.random.randrange(1 << 31)
        print(f"round {number}: {', '.join(s + (' cut' if cut[s] else ' reset') for s in sides)} "
              f"seed {seed}", flush=True)
        self.ready()
        events = self.a.events()
        writers = load.Load(self.a, seed=seed, writers=self.random.choice([1, 2, 4]),
                            depth=self.random.choice([1, 4, 16]), options=self.load_options)
        writers.wait_acked(self.random.randrange(20, 500))

        before = writers.journal()
        in_sync = self.mode != "async" and not seen(events, code="left-sync")
        for s in sides:
            self.side(s).guest.kill()
            self.kills[s] += 1
        if "a" in sides:
            # A write that the guest saw complete had been acknowledged while the peer was alive.
            self.journals.append(writers.save(self.folder / f"journal-{number}"))
        else:
            # Later completions may be those that the lost peer released.
            writers.stop()
            self.journals.append(writers.save(self.folder / f"journal-{number}", before))
        orders = [self.copy(h, "srl", f"order-{number}") for h in (self.a, self.b)]
        if "a" not in sides and not self.wrap:
            # The next rounds need to know of what was written after the kill, too.
            after = writers.save(self.folder / f"journal-{number}-all")
        images = {s: self.crashed(s, cut.get(s), s in sides, seed, number) for s in "ab"
                  if s in sides or (s == "b" and self.ring)}
        for s in sides:
            self.side(s).guest.start()
        for s, copies in images.items():
            self.verdict(s, copies, orders, in_sync)
        if "a" not in sides and not self.wrap:
            self.journals[-1] = after
        for file in self.folder.glob(f"*order-{number}-*"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        for s in reversed(sides):
            self.side(s).guest.wait_boot()
            self.side(s).up()

    def ready(self):
        """Both sides are back, and what can be level is."""
        self.a.wait_active()
        self.a.wait_drained(LINK)
        if self.mode != "async":
            self.a.wait_in_sync(LINK)

    def side(self, name: str) -> Host:
        return self.a if name == "a" else self.b

    # Copies -----------------------------------------------------------------

    def copy(self, host: Host, disk: str, name: str):
        target = self.folder / f"{host.name}-{name}-{disk}.img"
        host.guest.disks[disk].copy_to(target)
        return target

    def crashed(self, side: str, cut, dead: bool, seed: int, number: int) -> dict:
        """{disk: image} of a side's disks: after its kill, or as a power cut now would leave them."""
        host = self.side(side)
        names = [n for n in host.guest.disks]
        if not dead:
            where = self.folder / f"{side}-order-{number}-live"
            where.mkdir(exist_ok=True)
            host.guest.nbd(f"crash-image {seed} {where}")
            return {n: where / f"{n}.img" for n in names}
        if cut:
            host.guest.power_cut(seed)
        return {n: self.copy(host, n, f"order-{number}-dead") for n in names}

    # The verdict ------------------------------------------------------------

    def verdict(self, side: str, copies: dict, orders: list, in_sync: bool):
        """Activates a side's copies at the judge and checks what is found there."""
        self.verdicts += 1
        role = "primary" if side == "a" else "secondary"
        self.judge.take(copies, role)
        images = self.judge.images()
        if side == "a":
            require = "durable"
        elif in_sync and self.mode in DURABLE:
            require = "acked"
            self.judged_in_sync += 1
        else:
            require = "none"
        known = [] if self.wrap else (orders[:1] if side == "a" else self.logs(orders))
        try:
            found = oracle.check(images, self.journals, known, require,
                                 closed=side == "b" and not self.ring)
        except oracle.Violated as why:
            keep(self.lab, self.seed, [*copies.values(), *orders, *self.journals], images)
            raise oracle.Violated(f"seed {self.seed}, side {side}, required: {require}\n{why}") from None
        print(f"  {side}: {found}", flush=True)

    def logs(self, orders: list) -> list:
        """Both logs: a record may have reached the peer before the primary's own log."""
        return orders if self.ring else orders[:1]


class Alone:
    """One host, no link: images as a kill at any instant would leave them, judged one after the other
    while the host stands still. No boot between two of them, so there can be many."""

    def __init__(self, lab, bus: str = "nvme", size: int = 16 * MIB, srl: int = 256 * MIB,
                 volumes: int = 2, wrap: bool = False, options: str = "", salt: int = 0,
                 load_options: str = "--fsync-every 10 --fua-percent 10"):
        self.seed = SEED + salt
        self.random = random.Random(self.seed)
        self.lab, self.wrap = lab, wrap
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
        self.room = srl // (2 * 24 * 1024)
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
                            options=self.load_options)
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
        print(f"note: {kills} kills judged, {records} records compared", flush=True)

    def kill(self, number: int, writers) -> dict:
        seed, cut = self.random.randrange(1 << 31), self.random.random() < 0.8
        guest = self.host.guest
        guest.freeze()
        try:
            journal = writers.save(self.folder / "journal")
            copies = image(guest, self.folder / "cut", seed, cut)
            order = self.folder / "order.img"
            guest.disks["srl"].copy_to(order)
            print(f"{'cut' if cut else 'reset'} {number} seed {seed}", flush=True)
            self.judge.take(copies, "primary")
            images = self.judge.images()
            try:
                found = oracle.check(images, [journal], [] if self.wrap else [order], "durable",
                                     base=self.base)
            except oracle.Violated as why:
                keep(self.lab, self.seed, [*copies.values(), order, journal, *self.base], images)
                raise oracle.Violated(f"seed {self.seed}, cut {number}\n{why}") from None
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


def keep(lab, seed: int, files: list, judged: list):
    """Saves what a violation was found in beside the logs."""
    target = lab.logs / f"evidence-{seed}"
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        os.system(f"cp --sparse=always '{file}' '{target}/'")
    for file in judged:
        os.system(f"cp --sparse=always '{file}' '{target}/judged-{file.name}'")
    print(f"evidence: {target}", flush=True)
