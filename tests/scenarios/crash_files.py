# SPDX-License-Identifier: GPL-2.0
"""Kills under a filesystem with real files: what was made durable is there after recovery and after
takeover, file by file, and the filesystem is in order."""

import random

from lab.lab import MIB

from scenarios.kit import checker, files, oracle, pair
from scenarios.kit.kills import LINK_OPTIONS, SEED, share
from scenarios.kit.pair import LINK

# In these guests nothing loads a filesystem by itself.
MOUNT = "modprobe -a ext4 xfs && mkdir -p /mnt/db && mount {} /mnt/db"


class Round:
    """A filesystem on a replicated volume, filled by a copier, while hosts are killed."""

    def __init__(self, lab, kind: str, bus: str, mode: str, salt: int):
        self.lab, self.kind = lab, kind
        self.seed = SEED + salt
        self.random = random.Random(self.seed)
        print(f"seed: {self.seed} ({kind}, {bus}, {mode})", flush=True)
        self.tree = files.Tree(lab.folder)
        size = 320 * MIB if kind == "xfs" else 64 * MIB
        layout = pair.disks(1, size, 192 * MIB)
        volatile = {n: {"size": s, "volatile": True, "bus": bus} for n, s in layout.items()}
        guests = lab.guests(2, disks=[{**volatile, **self.tree.give(lab.folder, g)} for g in "ab"])
        self.pair = pair.Pair(guests, 1, mode=mode, link_options=LINK_OPTIONS).configure()
        self.a, self.b = self.pair.a, self.pair.b
        self.third = checker.boot(lab, layout, self.a.volumes)
        self.a.guest.sh(files.mkfs(kind, self.a.dev()) + " && " + MOUNT.format(self.a.dev()), timeout=120)
        self.durable = 0

    def run(self, kills: int):
        for number in range(kills):
            for side in "ab":
                self.kill(side, f"{number}{side}")
        self.pair.same(timeout=120)
        print(f"note: {2 * kills} kills, {self.durable} of {len(self.tree.names)} files", flush=True)

    def kill(self, side: str, name: str):
        a, b = self.a, self.b
        seed = self.random.randrange(1 << 31)
        cut = self.random.random() < 0.7
        a.wait_in_sync(LINK)
        copier = files.Copier(a.guest, "/mnt/db/tree", skip=self.durable)
        copier.wait(self.durable + self.random.randrange(5, 40), 120)
        # What was announced before the kill is at the peer: the mode is logged.
        acked = max(self.durable, copier.durable())
        victim = a if side == "a" else b
        victim.guest.kill()
        if cut:
            victim.guest.power_cut(seed)
        if side == "a":
            acked = max(acked, copier.durable())
        victim.guest.start()
        disks = [n for n in b.guest.disks if n != files.DISK]
        where = self.lab.folder / f"copies-{name}"
        where.mkdir()
        if side == "a":
            b.guest.nbd(f"crash-image {seed} {where}")
        else:
            for n in disks:
                b.guest.disks[n].copy_to(where / f"{n}.img")
        self.check({n: where / f"{n}.img" for n in disks}, acked, f"{name} seed {seed}")
        for n in disks:
            (where / f"{n}.img").unlink()
        if side == "b":
            copier.job.kill()
            copier.job.wait(60)
        victim.guest.wait_boot()
        victim.up()
        if side == "a":
            a.wait_active()
            a.guest.sh(MOUNT.format(a.dev()))
            found = files.compare(a.guest, "/mnt/db/tree", self.tree, acked)
            self.durable = found
        else:
            self.durable = max(acked, copier.durable())

    def check(self, copies: dict, acked: int, name: str):
        host = self.third.take(copies)
        host.guest.sh(MOUNT.format(host.dev()))
        try:
            found = files.compare(host.guest, "/mnt/db/tree", self.tree, acked)
        except AssertionError as why:
            raise oracle.Violated(f"{name}: {why}") from None
        host.guest.sh("umount /mnt/db")
        files.check_filesystem(host.guest, self.kind, host.dev())
        print(f"{name}: {acked} durable, {found} found", flush=True)


def scenario_ext4_virtio(lab):
    """ext4 on virtio-blk."""
    Round(lab, "ext4", "virtio", "logged", 20).run(share(0.06))


def scenario_xfs_scsi(lab):
    """xfs on scsi, which has FUA of its own."""
    Round(lab, "xfs", "scsi", "logged", 21).run(share(0.04))


for _one in (scenario_ext4_virtio, scenario_xfs_scsi):
    _one.guests = 0
    _one.timeout = 480
