# SPDX-License-Identifier: GPL-2.0
"""Kills, one after the other, on one history, with a verdict over the disks that each would leave.

Most are taken from hosts that stand still: all guests are frozen at one instant, the disk servers say what
a cut of each side would leave, the checker recovers and takes over from that, and the hosts go on; what a
host would have kept in memory is in no image. Every REAL-th round is a real crash: the hosts
boot again, and replication must go on from what they find. The order of record is what was in the logs
before the cut, so that it knows more than any survivor. Everything random comes from the printed seed.
"""

import itertools
import random
import shutil

from lab.lab import MIB

from . import checker, load, oracle
from .host import Host, seen
from .kills import BLOCKS, CUTS, SEED, image, keep, said, wrapped
from .pair import Pair, disks, volume_names

# Of so many rounds one is a real crash.
REAL = 4

# With these modes, what was acknowledged is on the peer's stable storage.
DURABLE = ("logged", "applied")

# Here nobody may notice that time stood still. A peer that was killed says so itself when it is back.
PATIENT = "--heartbeat 1s --peer-timeout 60s"


class Campaign:
    """A primary a and a secondary b, or one for each of `modes`: b, c. `wrap`: the ring is smaller than the
    run, so the verdict is by stamps alone. `readers` read at random beside the writers."""

    def __init__(self, lab, bus: str = "virtio", mode: str = "async", modes: list = None,
                 ring: bool = True, volumes: int = 2, size: int = 16 * MIB, srl: int = 96 * MIB,
                 wrap: bool = False, load_options: str = "--fsync-every 25 --fua-percent 5",
                 readers: int = 0, salt: int = 0):
        modes = modes or [mode]
        self.lab, self.ring, self.wrap = lab, ring, wrap
        self.seed = SEED + salt
        self.random = random.Random(self.seed)
        print(f"seed: {self.seed} ({' and '.join(modes)}, {bus}, {'ring' if ring else 'no ring'})", flush=True)
        layout = disks(volumes, size, srl)
        volatile = {n: {"size": s, "volatile": True, "bus": bus} for n, s in layout.items()}
        guests = lab.guests(1 + len(modes), disks=volatile)
        self.checker = checker.boot(lab, layout, volume_names(volumes))
        self.pair = Pair(guests, volumes, modes=modes, ring=ring, link_options=PATIENT)
        self.a = self.pair.a
        # Side -> host, and of the secondaries the mode and the link.
        self.sides = {h.name: h for h in self.pair.hosts}
        others = [s for s in self.sides if s != "a"]
        self.modes, self.links = dict(zip(others, modes)), dict(zip(others, self.pair.link_names()))
        self.load_options, self.readers = load_options, readers
        # Records that surely fit into the logs, with those of a round.
        self.capacity = srl // (24 * 1024)
        self.journals = []
        self.kills, self.real = dict.fromkeys(self.sides, 0), dict.fromkeys(self.sides, 0)
        # Of the sides that owe every acknowledged write while they are in-sync.
        self.owing, self.checked_in_sync = 0, 0
        self.writers, self.heard = None, None
        self.numbers = itertools.count(1)
        self.folder = lab.folder / "copies"
        self.folder.mkdir(exist_ok=True)
        self.pair.configure()

    # A round ----------------------------------------------------------------

    def run(self, kills: int):
        """At least `kills` kills of each side, some of them real crashes."""
        each = [[s] for s in self.sides]
        turns = itertools.cycle(self.random.sample([*each, list(self.sides)], len(each) + 1))
        while min(self.kills.values()) < kills:
            number = next(self.numbers)
            self.ready()
            if not self.wrap and self.a.status()["head_seq"] > self.capacity:
                self.begin_anew()
                self.ready()
            self.write()
            if number % REAL:
                self.still(number)
            else:
                self.real_crash(number, next(turns))
        if not any(self.real.values()):
            self.write()
            self.real_crash(next(self.numbers), list(self.sides))
        if self.writers:
            self.writers.stop(120)
        self.pair.same()
        if self.wrap:
            wrapped(self.copy(self.a, "srl", "order-last"))
        print(f"note: kills {' + '.join(map(str, self.kills.values()))} ({sum(self.real.values())} real crashes), "
              f"{self.checked_in_sync} in-sync", flush=True)
        assert self.checked_in_sync >= self.owing // 2, "hardly ever in-sync: nothing was checked"

    def ready(self):
        """All sides are back, and what can be level is."""
        self.a.wait_active()
        for side, link in self.links.items():
            if self.modes[side] == "async":
                self.a.wait_link(link, "streaming")
            else:
                self.a.wait_in_sync(link)

    def begin_anew(self):
        """From blank disks: the logs are the order of record, so they must hold all of it."""
        if self.writers:
            self.writers.stop(120)
        for host in self.pair.hosts:
            host.down()
            host.guest.sh("for d in /dev/lab/*; do blkdiscard -fz $d || exit 1; done", timeout=120)
        self.writers = self.heard = None
        self.journals.clear()
        self.pair.configure(force=True)

    def write(self):
        """Sees to it that writers run, and lets them do some."""
        if self.writers is None:
            self.heard = self.a.events()
            self.writers = load.Load(self.a, seconds=3600, seed=self.random.randrange(1 << 31),
                                     writers=self.random.choice([1, 2, 4]),
                                     depth=self.random.choice([1, 4, 16]), readers=self.readers,
                                     blocks=load.MIX if self.wrap else BLOCKS,
                                     options=self.load_options)
            self.journals.append(self.folder / f"journal-{len(self.journals)}")
        self.left = {s: self.losses(s) for s in self.links}
        self.writers.wait_acked(self.writers.acked() + self.random.randrange(20, 300))
        self.writers.check_reads()

    def losses(self, side: str) -> int:
        """How often the side's link has left in-sync since it is listened to."""
        return sum(e["link"] == self.links[side] for e in seen(self.heard, code="left-sync"))

    def in_sync(self) -> dict:
        """Of each secondary, whether its link has been in-sync ever since `ready` found it so."""
        return {s: self.modes[s] != "async" and self.losses(s) == self.left[s] for s in self.links}

    def still(self, number: int):
        """All sides as a kill at this instant would leave them; they go on afterwards."""
        seed = self.random.randrange(1 << 31)
        cut = {s: self.random.random() < CUTS for s in self.sides}
        print(f"round {number}: still, {said(cut)}, seed {seed}", flush=True)
        for host in self.pair.hosts:
            host.guest.freeze()
        try:
            in_sync = self.in_sync()
            self.writers.save(self.journals[-1])
            orders = self.orders(number)
            for s, host in self.sides.items():
                self.kills[s] += 1
                copies = image(host.guest, self.folder / f"{s}-order-{number}", seed, cut[s])
                self.verdict(s, copies, orders, in_sync)
        finally:
            for host in self.pair.hosts:
                host.guest.thaw()
        self.forget(number)

    def real_crash(self, number: int, sides: list):
        """Kills; the verdict; and they come back."""
        seed = self.random.randrange(1 << 31)
        cut = {s: self.random.random() < CUTS for s in sides}
        print(f"round {number}: killed, {said(cut)}, seed {seed}", flush=True)
        before, in_sync = self.writers.journal(), self.in_sync()
        for s in sides:
            self.sides[s].guest.kill()
            self.kills[s] += 1
            self.real[s] += 1
        if "a" in sides:
            # A write that the guest saw complete had been acknowledged while the peers were alive.
            self.writers.save(self.journals[-1])
        else:
            # Later completions may be those that the lost peer released. Only writers of a synchronous link wait.
            if all(self.modes[s] == "async" for s in sides):
                self.writers.stop()
            self.writers.save(self.journals[-1], before)
        # Who lives may still be receiving: the order is copied after that, and before the cut.
        where = {s: self.folder / f"{s}-order-{number}" for s in self.sides}
        images = {s: image(self.sides[s].guest, where[s], seed, cut=True) for s in self.links if s not in sides}
        orders = self.orders(number)
        for s in sides:
            if cut[s]:
                self.sides[s].guest.power_cut(seed)
            images[s] = image(self.sides[s].guest, where[s], seed, cut=False)
        for s in sides:
            self.sides[s].guest.start()
        for s, copies in images.items():
            self.verdict(s, copies, orders, in_sync)
        self.forget(number)
        for s in reversed(sides):
            self.sides[s].guest.wait_boot()
            self.sides[s].up()
        if "a" not in sides:
            # The next rounds need to know of what was written after the kill, too.
            if self.writers.job.running():
                self.writers.stop(120)
            self.writers.save(self.journals[-1])
        self.writers = self.heard = None
        self.a.wait_active()
        self.pair.same()

    def orders(self, number: int) -> list:
        """Copies of all logs, the primary's first."""
        return [self.copy(h, "srl", f"order-{number}") for h in self.pair.hosts]

    def copy(self, host: Host, disk: str, name: str):
        target = self.folder / f"{host.name}-{name}-{disk}.img"
        host.guest.disks[disk].copy_to(target)
        return target

    def forget(self, number: int):
        for file in self.folder.glob(f"*-order-{number}*"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()

    # The verdict ------------------------------------------------------------

    def verdict(self, side: str, copies: dict, orders: list, in_sync: dict):
        """Activates a side's copies at the checker and checks what is found there."""
        images = self.checker.disks()
        require = "durable" if side == "a" else "none"
        if self.modes.get(side) in DURABLE:
            self.owing += 1
            if in_sync[side]:
                require = "acked"
                self.checked_in_sync += 1
        # A record may have reached a peer before the primary's own log.
        known = [] if self.wrap else (orders if side != "a" and self.ring else orders[:1])
        try:
            self.checker.take(copies, "primary" if side == "a" else "secondary")
            self.checker.drop()
            found = oracle.check(images, self.journals, known, require, closed=side != "a" and not self.ring)
        except Exception as why:
            keep(self.lab, self.seed, [*copies.values(), *orders, *self.journals], images)
            raise type(why)(f"seed {self.seed}, side {side}, required: {require}\n{why}") from None
        print(f"  {side} ({require}): {found}", flush=True)
