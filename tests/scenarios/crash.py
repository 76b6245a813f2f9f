# SPDX-License-Identifier: GPL-2.0
"""Kill after kill: power cuts and resets on disks with a volatile cache, raw stamps, verdicts by the order
of record. KILLS= is how many kills of each side all campaigns together do, SEED= repeats a run."""

from lab.lab import MIB

from scenarios.kit import load, oracle, pair
from scenarios.kit.alone import Alone
from scenarios.kit.campaign import Campaign
from scenarios.kit.kills import LINK_OPTIONS, SEED, share
from scenarios.kit.pair import LINK


def scenario_alone_cut_at_any_instant(lab):
    """A primary without a link: the log and its recovery, by many cuts of a running host."""
    Alone(lab, bus="nbd").run(kills=max(4, share(0.2)))


def scenario_alone_with_a_small_ring(lab):
    """The same on a ring that wraps all the time: checkpoints and reuse of space. A reader looks on."""
    Alone(lab, bus="virtio", srl=12 * MIB, wrap=True, readers=1, salt=1).run(kills=max(4, share(0.2)))


def scenario_logged_virtio(lab):
    """Sync at level logged, secondary with a ring: no acknowledged write may be missing at the peer."""
    Campaign(lab, bus="virtio", mode="logged", salt=2).run(share(0.3))


def scenario_logged_nbd(lab):
    """The same on disks whose FUA is for its own write only; few kills, because these disks are slow."""
    Campaign(lab, bus="nbd", mode="logged", salt=7).run(share(0.04))


def scenario_async_scsi(lab):
    """Asynchronous, secondary with a ring. A reader looks on."""
    Campaign(lab, bus="scsi", mode="async", readers=1, salt=3).run(share(0.22))


def scenario_no_ring_scsi(lab):
    """Secondary without a ring, sync at level logged: dependency-closed, with every acknowledged write."""
    Campaign(lab, bus="scsi", mode="logged", ring=False, salt=4).run(share(0.22))


def scenario_small_ring_virtio(lab):
    """Rings that wrap during the run on both sides, checked by per-writer stamps. A reader looks on."""
    Campaign(lab, bus="virtio", mode="applied", srl=16 * MIB, wrap=True, readers=1, salt=5).run(share(0.16))


def scenario_two_secondaries(lab):
    """One sync at level logged, one asynchronous, each with a ring: all three sides of every kill are right."""
    Campaign(lab, bus="virtio", modes=["logged", "async"], readers=1, salt=6).run(share(0.1))


def scenario_takeover_in_place(lab):
    """Level received: the primary dies for good, the living secondary takes over, and holds every write that
    the application saw complete."""
    guests = pair.boot(lab, volumes=2, size=16 * MIB, srl=128 * MIB, volatile=True, bus="scsi")
    p = pair.Pair(guests, 2, mode="received", link_options=LINK_OPTIONS).configure()
    for number in range(1, share(0.1) + 1):
        a, b = p.a, p.b
        seed = SEED + 100 + number
        a.wait_in_sync()
        writers = load.Load(a, seed=seed, writers=3, depth=8, options="--fsync-every 25")
        writers.wait_acked(50 + seed % 400)
        a.guest.kill()
        journal = writers.save(lab.folder / "journal")
        order_a, order_b = lab.folder / "order-a.img", lab.folder / "order-b.img"
        a.guest.disks["srl"].copy_to(order_a)
        a.guest.power_cut(seed)
        # The next round's boot goes on meanwhile.
        a.guest.start()
        b.wait_link(LINK, "connecting", "idle", timeout=30)
        words = b.takeover()
        assert "in-sync" in words, words
        b.wait_active()
        b.down()
        b.guest.disks["srl"].copy_to(order_b)
        images = []
        for disk in b.volumes.values():
            images.append(lab.folder / f"image-{disk}.img")
            b.guest.disks[disk].copy_to(images[-1])
        found = oracle.check(images, [journal], [order_a, order_b], require="acked")
        print(f"seed {seed}: {found}", flush=True)
        # From blank disks again.
        a.guest.wait_boot()
        b.role = "secondary"
        for host in (a, b):
            host.guest.sh("for d in /dev/lab/*; do blkdiscard -fz $d || exit 1; done", timeout=120)
        p.configure(force=True)


for _one in (scenario_alone_cut_at_any_instant, scenario_alone_with_a_small_ring, scenario_logged_virtio,
             scenario_logged_nbd, scenario_async_scsi, scenario_no_ring_scsi, scenario_small_ring_virtio,
             scenario_two_secondaries, scenario_takeover_in_place):
    _one.guests = 0
    _one.timeout = 120 + 30 * share(0.3) + 60
