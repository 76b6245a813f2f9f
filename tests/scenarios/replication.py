# SPDX-License-Identifier: GPL-2.0
"""Two hosts and three: modes, kinds of secondaries, synchronisation under load, and what is true of the
replica when both are at rest."""

from lab.lab import MIB
from lab.paths import SLOW

from scenarios.kit import files, load, pair
from scenarios.kit.host import wait_event
from scenarios.kit.pair import LINK


def _mode(lab, mode: str, ring: bool):
    """Writes flow in a mode; the replica is equal at rest and refuses writes of its own."""
    p = pair.make(lab, volumes=2, mode=mode, ring=ring)
    if mode != "async":
        p.a.wait_in_sync()
    writers = load.Load(p.a, seconds=4 * SLOW, writers=3, depth=8, readers=1,
                        options="--fsync-every 20 --fua-percent 5 --discard-percent 2 --zero-percent 3 "
                                "--verify-at-end")
    done = writers.finish()
    assert done["writes"] > 50, done
    p.same()
    link = p.a.link()
    head = p.a.status()["head_seq"]
    assert link["applied_seq"] == head and link["logged_seq"] == head, link
    assert p.b.status()["applied_seq"] == head
    assert p.b.status()["replica_state"] == "consistent", p.b.status()
    assert all(v["state"] == "replica" for v in p.b.status()["volumes"])
    p.b.guest.fails(f"dd if=/dev/zero of={p.b.dev()} bs=4k count=1 oflag=direct 2>&1", "rror|ermitted|nly")
    p.same()
    human = p.a.guest.sh("dmrepl status")
    assert "primary" in human and "streaming" in human, human
    print(f"note: {mode}: {done['writes']} writes")
    return p


def scenario_async(lab):
    """Asynchronous, secondary with a ring; then all modes one after the other on the running link."""
    p = _mode(lab, "async", ring=True)
    for mode in ("received", "logged", "applied", "async"):
        for host in (p.a, p.b):
            host.sh(f"dmrepl link set db {LINK} --mode {mode}")
        assert p.a.link()["mode"] == mode
        load.Load(p.a, seconds=1, seed=7).finish()
    p.same()


def scenario_received(lab):
    """Writes complete on the network acknowledgement."""
    _mode(lab, "received", ring=True)


def scenario_logged_without_ring(lab):
    """Data acknowledgements of a secondary that has no ring."""
    _mode(lab, "logged", ring=False)


def scenario_applied(lab):
    """Writes complete when they are on the secondary's volumes: a reader there sees them at once."""
    p = _mode(lab, "applied", ring=True)
    for i in range(10):
        p.a.guest.sh(f"echo applied-{i} | dd of={p.a.dev()} bs=4k conv=sync oflag=direct 2>/dev/null")
        out = p.b.guest.sh(f"dd if={p.b.dev()} bs=4k count=1 iflag=direct 2>/dev/null | head -c 9")
        assert out.strip() == f"applied-{i}", out


for _one in (scenario_async, scenario_received, scenario_logged_without_ring, scenario_applied):
    _one.guests = 0
# What it shows, two secondaries, a cut link and the files with fio show too.
scenario_received.long = True
scenario_async.debug = True


def scenario_full_sync_under_load(lab):
    """A full synchronisation while writers run: inconsistent until it ends, equal afterwards, in one pass."""
    p = pair.make(lab, volumes=2, size=48 * MIB, sync=None)
    a, b = p.a, p.b
    # What was there before replication began must come over too.
    a.wait_active()
    for dev in a.devs():
        a.guest.sh(f"dd if=/dev/urandom of={dev} bs=1M count=24 oflag=direct 2>&1", timeout=120)
    a.wait_link(LINK, "needs-sync")
    a.guest.fails(f"dmrepl sync db {LINK} --assume-clean", "assume-clean")
    lab.shape(a.guest, b.guest, "rate 100mbit")
    events, theirs = a.events(), b.events()
    writers = load.Load(a, seconds=60, writers=2, depth=4, readers=1, options="--fsync-every 50")
    writers.wait_acked(50)
    a.sync(LINK, "full")
    begun = a.wait("syncing", lambda s: s["links"][0]["state"] == "syncing"
                   and s["links"][0].get("sync_total_bytes"))["links"][0]
    assert begun["sync_total_bytes"] >= 2 * 48 * MIB, begun
    b.wait("inconsistent", lambda s: s["replica_state"] == "inconsistent")
    b.guest.fails("dmrepl takeover db", "connected|inconsistent")
    a.wait("half way", lambda s: s["links"][0]["state"] != "syncing"
           or 2 * s["links"][0]["sync_done_bytes"] > s["links"][0]["sync_total_bytes"])
    lab.mend(a.guest, b.guest)
    a.wait_link(LINK, "streaming", "catching-up", timeout=120)
    wait_event(events, code="sync-done")
    b.wait_replica()
    wait_event(theirs, code="replica-state")
    writers.stop()
    p.same()


scenario_full_sync_under_load.guests = 0
scenario_full_sync_under_load.timeout = 420
scenario_full_sync_under_load.debug = True


def scenario_full_sync_survives_restarts(lab):
    """A synchronisation goes on where it was after the link broke, and after either side was killed."""
    p = pair.make(lab, size=64 * MIB, sync=None)
    a, b = p.a, p.b
    a.wait_active()
    a.guest.sh(f"dd if=/dev/urandom of={a.dev()} bs=1M oflag=direct 2>&1; true", timeout=120)
    a.wait_link(LINK, "needs-sync")

    def under_way():
        lab.shape(a.guest, b.guest, "rate 60mbit")
        before = a.link().get("sync_done_bytes", 0)
        a.wait("copying", lambda s: s["links"][0]["state"] == "syncing"
               and s["links"][0].get("sync_done_bytes", 0) > before)

    a.sync(LINK, "full")
    under_way()
    for host in (a, b):
        host.sh(f"dmrepl link disconnect db {LINK}")
        host.sh(f"dmrepl link connect db {LINK}")
    under_way()
    b.reset()
    assert b.status()["replica_state"] == "inconsistent"
    b.guest.fails("dmrepl takeover db", "connected|inconsistent")
    under_way()
    writers = load.Load(a, seconds=60, writers=2, depth=4)
    writers.wait_acked(50)
    a.reset()
    a.wait_link(LINK, "syncing", "streaming", "catching-up")
    lab.mend(a.guest, b.guest)
    a.wait_link(LINK, "streaming", timeout=120)
    b.wait_replica()
    p.same()


scenario_full_sync_survives_restarts.guests = 0
scenario_full_sync_survives_restarts.timeout = 420


def scenario_two_secondaries(lab):
    """One primary, one sync and one async secondary; each on its own, one away does not hold the other."""
    # The log must hold what is written while one is away, however fast that is.
    p = pair.make(lab, count=3, volumes=2, srl=256 * MIB, modes=["received", "async"],
                  link_options="--heartbeat 300ms --peer-timeout 3s")
    a, b, c = p.hosts
    a.wait_in_sync("dr")
    writers = load.Load(a, seconds=60, writers=3, depth=8, options="--pause-us 5000")
    writers.wait_acked(100)
    lab.cut(a.guest, c.guest)
    a.wait_link("dr2", "connecting", timeout=30)
    assert a.link("dr").get("in_sync"), a.status()
    count = writers.acked()
    writers.wait_acked(count + 200)
    assert a.link("dr").get("in_sync") and a.link("dr2")["behind_records"] > 0
    lab.mend(a.guest, c.guest)
    a.wait_link("dr2", "catching-up", "streaming", timeout=30)
    # Now the sync one is killed, and the async one goes on.
    b.guest.kill()
    a.wait_link("dr", "connecting", timeout=30)
    count = writers.acked()
    writers.wait_acked(count + 100)
    writers.stop()
    b.boot()
    a.wait_in_sync("dr")
    p.same()


scenario_two_secondaries.guests = 0


def scenario_filesystem_and_fio(lab):
    """ext4 with real files on one volume and fio with verification on another; both right at the replica
    after a takeover."""
    tree = files.Tree(lab.folder, 6 * MIB)
    layout = pair.disks(2, 48 * MIB, 128 * MIB)
    guests = lab.guests(2, disks=[{**layout, **tree.give(lab.folder, g)} for g in "ab"])
    p = pair.Pair(guests, 2, mode="received").configure()
    a, b = p.a, p.b
    a.guest.sh(files.mkfs("ext4", a.dev("data")) + f" && mkdir -p /mnt/db && mount {a.dev('data')} /mnt/db")
    fio = ("fio --name=v --filename={} --rw=randwrite --bsrange=512-64k --direct=1 --ioengine=libaio --iodepth=8 "
           "--size=24m --verify=crc32c --randrepeat=1 --norandommap=0 {}")
    verify = a.guest.spawn(fio.format(a.dev("data2"), "--do_verify=1 --verify_backlog=64"))
    copier = files.Copier(a.guest, "/mnt/db/tree")
    copier.wait(40, 120)
    assert verify.wait(240) == 0, verify.text[-2000:]
    a.wait_in_sync()
    durable = copier.durable()
    a.guest.kill()
    durable = max(durable, copier.durable())
    b.wait_link(LINK, "connecting", timeout=30)
    print(b.takeover())
    b.wait_active()
    b.guest.sh(f"mkdir -p /mnt/db && mount {b.dev('data')} /mnt/db")
    found = files.compare(b.guest, "/mnt/db/tree", tree, durable)
    b.guest.sh("umount /mnt/db")
    files.check_filesystem(b.guest, "ext4", b.dev("data"))
    b.guest.sh(fio.format(b.dev("data2"), "--verify_only"), timeout=240)
    print(f"note: {found} files, {durable} durable")


scenario_filesystem_and_fio.guests = 0
scenario_filesystem_and_fio.timeout = 420
