# SPDX-License-Identifier: GPL-2.0
"""Kills of a host that has no link: the log and its recovery alone.

The host is frozen, the disk server says what a cut at this instant would leave, the checker recovers from
that, and the host goes on. Nothing boots between two kills, so there can be many.
"""

import random
import time

from lab.lab import MIB

from . import checker, load, oracle
from .host import Host
from .kills import BLOCKS, CUTS, SEED, image, keep, wrapped
from .pair import disks, volume_names


class Alone:
    """A primary and what kills at many instants of its life would leave. `wrap`: the ring is smaller than
    the run, so the verdict is by stamps alone."""

    def __init__(self, lab, bus: str = "scsi", size: int = 16 * MIB, srl: int = 64 * MIB,
                 volumes: int = 2, wrap: bool = False, options: str = "", salt: int = 0,
                 load_options: str = "--fsync-every 10 --fua-percent 10", readers: int = 0,
                 evidence: bool = True):
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
        self.checker = checker.boot(lab, layout, names)
        self.folder = lab.folder / "copies"
        self.folder.mkdir(exist_ok=True)
        self.load_options, self.readers = load_options, readers
        # Writes, of which all records stay in the ring.
        self.capacity = srl // (2 * 20 * 1024)
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
        writers = load.Load(self.host, seconds=3600, writers=3, depth=8, readers=self.readers,
                            seed=self.random.randrange(1 << 31),
                            blocks=load.MIX if self.wrap else BLOCKS, options=self.load_options)
        writers.wait_acked(50)
        return writers

    def run(self, kills: int):
        """Checks `kills` images; raises Violated at the first that is wrong."""
        writers, records = self.fresh(force=False), 0
        for number in range(1, kills + 1):
            if writers.acked() > self.capacity and not self.wrap:
                writers.stop()
                self.host.down()
                writers = self.fresh(force=True)
            time.sleep(self.random.uniform(0.02, 0.4))
            records += self.kill(number, writers)["records"]
        writers.stop()
        if self.wrap:
            self.host.guest.disks["srl"].copy_to(self.folder / "order.img")
            wrapped(self.folder / "order.img")
        print(f"note: {kills} kills checked, {records} records compared", flush=True)

    def kill(self, number: int, writers) -> dict:
        self.kills += 1
        seed, cut = self.random.randrange(1 << 31), self.random.random() < CUTS
        guest = self.host.guest
        writers.check_reads()
        guest.freeze()
        try:
            journal = writers.save(self.folder / "journal")
            copies = image(guest, self.folder / "cut", seed, cut)
            order = self.folder / "order.img"
            guest.disks["srl"].copy_to(order)
            print(f"{'cut' if cut else 'reset'} {number} seed {seed}", flush=True)
            images = self.checker.disks()
            try:
                self.checker.take(copies, "primary")
                self.checker.drop()
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
