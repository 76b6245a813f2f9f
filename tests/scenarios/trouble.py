# SPDX-License-Identifier: GPL-2.0
"""What goes wrong between hosts: links that break, hosts that are killed, a primary that is lost, one
that comes back, a log that is full."""

import time

from lab.lab import MIB

from scenarios.kit import checker, load, oracle, pair
from scenarios.kit.host import seen, wait_event
from scenarios.kit.pair import LINK

FAST = "--heartbeat 300ms --peer-timeout 3s"


def _copies(lab, host, name: str) -> list:
    """The data disks of a host whose group is down."""
    found = []
    for disk in host.volumes.values():
        target = lab.folder / f"copy-{name}-{disk}.img"
        host.guest.disks[disk].copy_to(target)
        found.append(target)
    return found


def scenario_link_cut_under_load(lab):
    """The wire is cut silently under load: writers go on, the log queues, drains in order when it is back;
    at every moment the replica is a past state."""
    p = pair.make(lab, volumes=2, mode="received", srl=192 * MIB, volatile=True, link_options=FAST)
    a, b = p.a, p.b
    a.wait_in_sync()
    events = a.events()
    writers = load.Load(a, seconds=120, writers=3, depth=8, options="--fsync-every 30")
    writers.wait_acked(100)
    lab.cut(a.guest, b.guest)
    wait_event(events, code="left-sync", severity="warning")
    count = writers.acked()
    writers.wait_acked(count + 300)
    assert a.link()["behind_records"] > 0
    # The replica is in the middle of the draining: a power cut of it now must show one past state.
    lab.shape(a.guest, b.guest, "rate 50mbit delay 5ms")
    a.wait_link(LINK, "catching-up", "streaming", timeout=30)
    images = []
    for seed in range(3):
        before = b.status()["applied_seq"]
        b.wait("further on", lambda s: s["applied_seq"] > before)
        where = lab.folder / f"drain-{seed}"
        where.mkdir()
        b.guest.nbd(f"crash-image {seed} {where}")
        images.append(where)
    writers.stop()
    lab.mend(a.guest, b.guest)
    a.wait_in_sync(timeout=90)
    wait_event(events, code="in-sync")
    p.same()
    journal = writers.save(lab.folder / "journal")
    srl = lab.folder / "copy-a-srl.img"
    a.guest.disks["srl"].copy_to(srl)
    third = checker.boot(lab, pair.disks(2, 32 * MIB, 192 * MIB), a.volumes)
    for where in images:
        third.take({n: where / f"{n}.img" for n in a.guest.disks})
        found = oracle.check(third.images(), [journal], [srl])
        print(f"note: the replica was at seq {found['seq_low']} of {found['records']}")


def scenario_link_flaps_and_loses(lab):
    """Loss, delay and reordering on the wire, connections torn down again and again under load."""
    p = pair.make(lab, volumes=2, mode="logged", srl=192 * MIB, link_options=FAST)
    a, b = p.a, p.b
    # Slower than the wire, bad as that is: nothing is to be given up here.
    writers = load.Load(a, seconds=120, writers=2, depth=2, options="--pause-us 10000")
    writers.wait_acked(30)
    lab.shape(a.guest, b.guest, "loss 2% delay 3ms 2ms reorder 10%")
    for turn in range(6):
        time.sleep(0.7)
        one = (a, b)[turn % 2]
        one.sh(f"dmrepl link disconnect db {LINK}")
        assert one.link()["state"] == "idle", one.link()
        one.sh(f"dmrepl link connect db {LINK}")
        if turn == 3:
            nic = lab.nic(b.guest, a.guest)
            b.guest.sh(f"ip link set {nic} down; sleep 1; ip link set {nic} up; "
                       f"ip route replace {a.address}/32 dev {nic} src {b.address}")
    lab.mend(a.guest, b.guest)
    writers.stop()
    p.same()
    assert a.link()["stats"]["connects"] >= 3, a.link()
    for host in (a, b):
        assert host.link()["stats"].get("crc_errors", 0) == 0, host.link()


def scenario_killed_hosts_resume(lab):
    """The secondary is killed and rebooted: resumes where it was. The primary is killed and rebooted:
    recovers, replays, goes on replicating. No synchronisation is needed for either."""
    p = pair.make(lab, volumes=2, srl=192 * MIB, link_options=FAST)
    a, b = p.a, p.b
    # The log must hold what is written while a host boots, and the link catch up with it, however slow they are.
    writers = load.Load(a, seconds=600, writers=2, depth=2, options="--fsync-every 30 --pause-us 150000")
    writers.wait_acked(100)
    b.reset()
    a.wait_link(LINK, "streaming", "catching-up", timeout=60)
    count = writers.acked()
    writers.wait_acked(count + 100)
    a.wait_link(LINK, "streaming", timeout=180)
    events = b.events()
    a.guest.kill()
    a.guest.start().wait_boot()
    # The link may be added before the volumes are there; nothing is refused for that.
    a.up()
    a.wait_active()
    a.wait_link(LINK, "streaming", timeout=60)
    load.Load(a, seconds=2, seed=3).finish()
    p.same()
    assert not seen(events, code="needs-sync") and not seen(events, code="sync-started")


def scenario_primary_is_lost_and_returns(lab):
    """Takeover keeps every acknowledged write of an in-sync link; the old primary is refused as forked, and
    both sides say so; it is told by neither to stop, and loses nothing."""
    p = pair.make(lab, volumes=2, mode="received", srl=128 * MIB, link_options=FAST)
    a, b = p.a, p.b
    a.wait_in_sync()
    b.guest.fails("dmrepl takeover db", "connected")
    writers = load.Load(a, seconds=60, writers=3, depth=8)
    writers.wait_acked(300)
    events = b.events()
    # What the application saw before is asked for; the peer holds it, if only in memory.
    a.guest.kill()
    journal = writers.save(lab.folder / "journal")
    b.wait_link(LINK, "connecting", timeout=30)
    words = b.takeover()
    assert "in-sync" in words, words
    wait_event(events, code="takeover")
    status = b.wait_active()
    assert status["role"] == "primary", status
    order = lab.folder / "copy-b-srl.img"
    b.down()
    b.guest.disks["srl"].copy_to(order)
    oracle.check(_copies(lab, b, "b"), [journal], [order], require="acked")

    b.up()
    b.wait_active()
    load.Load(b, seconds=2, seed=5).finish()
    a.guest.start().wait_boot()
    a.up()
    for host, word in ((b, "forked"), (a, "forked")):
        link = host.wait_link(LINK, "refused", timeout=60)
        assert link["reason"] in ("forked", "peer-refused", "role-conflict"), link
        assert word in link["reason_text"] or link["reason"] == word, (host.name, link)
    # A starting primary that finds itself forked takes no writes.
    before = b.sum()
    code, out = a.guest.run(f"timeout -s KILL 8 dd if=/dev/zero of={a.dev()} bs=4k count=1 oflag=direct 2>&1",
                            timeout=40)
    assert code != 0, f"a forked starting primary took a write: {out}"
    assert b.sum() == before
    load.Load(b, seconds=1, seed=6).finish()


def scenario_running_primary_meets_a_mistaken_takeover(lab):
    """The wire is cut and the secondary taken over by mistake: the running primary keeps writing, both say
    forked when they meet again, and neither changes the other."""
    p = pair.make(lab, mode="async", link_options=FAST)
    a, b = p.a, p.b
    load.Load(a, seconds=1).finish()
    p.drain()
    lab.cut(a.guest, b.guest)
    for host in (a, b):
        host.wait_link(LINK, "connecting", timeout=30)
    b.takeover()
    b.wait_active()
    load.Load(b, seconds=1, seed=2).finish()
    writers = load.Load(a, seconds=120, seed=3, options="--pause-us 20000")
    writers.wait_acked(50)
    events = a.events()
    lab.mend(a.guest, b.guest)
    for host in (a, b):
        link = host.wait_link(LINK, "refused", timeout=60)
        assert "fork" in f"{link['reason']} {link['reason_text']}" or link["reason"] == "role-conflict", link
    wait_event(events, severity="critical")
    count = writers.acked()
    writers.wait_acked(count + 50)
    writers.stop()
    for host in (a, b):
        assert host.status()["state"] == "active"


def scenario_log_full(lab):
    """A peer stays away until the log is full: its link needs a sync, writers never stall, the other link is
    unaffected; a full synchronisation heals it."""
    p = pair.make(lab, count=3, srl=16 * MIB, modes=["async", "async"], link_options=FAST)
    a, b, c = p.hosts
    events = a.events()
    lab.cut(a.guest, b.guest)
    # So slow that the other link keeps up, however small the log.
    writers = load.Load(a, seconds=240, writers=2, depth=2, blocks="65536x2,4096,16384", options="--pause-us 20000")
    wait_event(events, timeout=90, code="needs-sync", link="dr")
    assert a.link("dr")["state"] == "needs-sync", a.link("dr")
    count = writers.acked()
    writers.wait_acked(count + 200)
    assert a.link("dr2")["state"] in ("streaming", "catching-up"), a.link("dr2")
    writers.stop()
    a.wait_drained("dr2")
    assert a.sum() == c.sum()
    lab.mend(a.guest, b.guest)
    # It is needs-sync for good, also over a reboot.
    a.reset()
    a.wait_active()
    a.wait_link("dr", "needs-sync", timeout=30)
    assert b.status()["replica_state"] == "consistent", b.status()
    a.sync("dr", "full")
    a.wait_link("dr", "streaming", timeout=120)
    p.same()


def scenario_removal_with_a_dead_link(lab):
    """Suspend, removal and rmmod with a peer that does not answer: each ends, with or without waiting I/O."""
    p = pair.make(lab, mode="applied", link_options="--heartbeat 300ms --peer-timeout 60s")
    a, b = p.a, p.b
    a.wait_in_sync()
    lab.cut(a.guest, b.guest)
    job = a.guest.spawn(f"dd if=/dev/zero of={a.dev()} bs=4k count=1 oflag=direct 2>&1")
    time.sleep(1)
    assert job.running(), "a write completed although its peer is gone and has not timed out"
    suspend = a.guest.spawn("exec dmsetup suspend db-data")
    time.sleep(1)
    # A plain suspend waits for the write; the administrator's way out is to disconnect.
    a.sh(f"dmrepl link disconnect db {LINK}")
    assert suspend.wait(30) == 0, suspend.text
    a.guest.sh("dmsetup resume db-data")
    assert job.wait(30) == 0, job.text
    a.guest.fails("dmrepl group del db", "in use by 1 link")
    a.guest.fails("rmmod dm_replicate", "in use|busy|unavailable")
    a.sh(f"dmrepl link connect db {LINK}")
    a.guest.sh("dmsetup remove db-data", timeout=30)
    a.sh(f"dmrepl link del db {LINK}")
    a.sh("dmrepl group del db")
    a.guest.sh("rmmod dm_replicate")
    # The secondary alone, too, while the primary is away.
    b.guest.sh("dmsetup suspend db-data && dmsetup resume db-data && dmsetup remove db-data", timeout=30)
    b.down()
    b.guest.sh("rmmod dm_replicate")


def scenario_two_primaries_and_one_secondary(lab):
    """Only the wire between a and b is cut, b takes over, and c has a link to each: c follows b, refuses a with the
    reason, and holds not one byte of what a wrote since."""
    p = pair.make(lab, count=3, modes=["received", "async"], link_options=FAST)
    a, b, c = p.hosts
    c.link_add("bc", b, "async", FAST)
    b.link_add("bc", c, "async", FAST)
    load.Load(a, seconds=1).finish()
    p.same()
    events = c.events()
    lab.cut(a.guest, b.guest)
    b.wait_link(LINK, "connecting", timeout=30)
    b.takeover()
    b.wait_active()
    b.wait_link("bc", "streaming", "catching-up", timeout=60)
    # Both go on writing, each to its own history.
    both = [load.Load(a, seconds=3, seed=2), load.Load(b, seconds=3, seed=3)]
    for writers in both:
        writers.finish()
    b.wait_drained("bc")
    found = {host.name: host.sum() for host in p.hosts}
    assert found["c"] == found["b"] != found["a"], f"c follows b, and does not hold what b wrote: {found}"
    link = a.wait_link("dr2", "refused", timeout=60)
    assert link["reason"] == "forked" and "forked" in link["reason_text"], link
    assert not a.link("dr2").get("in_sync")
    link = c.link("dr2")
    assert link["state"] not in ("streaming", "catching-up", "syncing"), link
    wait_event(events, link="dr2", text="another primary")
    assert c.status()["replica_state"] == "consistent", c.status()
    # a asks again and again; c stays with b, and follows it on.
    load.Load(b, seconds=2, seed=4).finish()
    b.wait_drained("bc")
    assert c.sum() == b.sum()
    assert c.link("bc")["state"] in ("streaming", "catching-up"), c.link("bc")


def scenario_secondary_log_hangs_and_fails(lab):
    """The secondary's log device stands still, then dies, while the link is in-sync and heartbeats go on: each time the
    primary leaves in-sync with an event, its writers go on, and the status names why."""
    guests = pair.boot(lab, srl=192 * MIB)
    p = pair.Pair(guests, 1, mode="logged", link_options=FAST + " --progress-timeout 3s")
    a, b = p.a, p.b
    sectors = int(b.guest.sh("modprobe -a dm-mod; blockdev --getsz /dev/lab/srl"))
    b.guest.sh(f'dmsetup create below --table "0 {sectors} linear /dev/lab/srl 0"')
    b.srl = "/dev/mapper/below"
    p.configure()
    a.wait_in_sync()
    events, theirs = a.events(), b.events()
    writers = load.Load(a, seconds=300, writers=2, depth=2, options="--pause-us 20000")
    writers.wait_acked(50)
    b.guest.sh("dmsetup suspend --noflush below")
    wait_event(events, code="left-sync", reason="no-progress")
    writers.wait_acked(writers.acked() + 100)
    assert not a.link().get("in_sync"), a.link()
    b.guest.sh("dmsetup resume below")
    a.wait_in_sync()
    writers.wait_acked(writers.acked() + 50)
    # A peer that is slow, but moves, and one that nobody writes to, are left alone.
    count = len(seen(events, code="left-sync"))
    writers.stop()
    time.sleep(5)
    assert a.link()["in_sync"] and len(seen(events, code="left-sync")) == count, a.link()

    writers = load.Load(a, seconds=300, seed=2, writers=2, depth=2, options="--pause-us 20000")
    writers.wait_acked(50)
    b.guest.sh(f'dmsetup suspend --noflush below; dmsetup load below --table "0 {sectors} error"; dmsetup resume below')
    wait_event(theirs, code="log-failed", severity="critical")
    wait_event(events, code="left-sync", text="SRL")
    writers.wait_acked(writers.acked() + 300)
    link = a.wait("a reason", lambda s: "SRL" in s["links"][0].get("reason_text", ""))["links"][0]
    assert not link.get("in_sync") and link["state"] not in ("streaming", "catching-up"), link
    assert b.status()["state"] == "failed", b.status()
    b.guest.fails("dmrepl takeover db", "not running normally|failed")
    writers.stop()


def scenario_backlog_larger_than_memory(lab):
    """A secondary starts with more in its log than its memory holds; its primary keeps nothing of that any more. It goes
    on where its log ends, without a synchronisation."""
    p = pair.make(lab, link_options=FAST)
    a, b = p.a, p.b
    # What it logs is applied to no volume.
    b.guest.sh("dmsetup suspend db-data")
    a.guest.sh(f"dd if=/dev/urandom of={a.dev()} bs=1M count=24 oflag=direct 2>&1", timeout=120)
    head = a.status()["head_seq"]
    a.wait("logged by the peer, and freed", lambda s: s["links"][0].get("logged_seq") == head
           and (s.get("tail_seq") or 0) > head - 4, timeout=60)
    b.guest.kill()
    b.options = "--pool 6M"
    b.boot()
    status = b.status()
    print(f"note: {head} records, the secondary has applied {status.get('applied_seq')}")
    assert (status.get("applied_seq") or 0) < head - 12, status
    link = a.wait_link(LINK, "streaming", "needs-sync", timeout=60)
    assert link["state"] == "streaming", link
    p.same()


def scenario_primary_disks_stand_still_in_a_synchronisation(lab):
    """Regions are being copied when the primary's data device answers nothing, later its SRL, each for longer than the peer's
    timeout: the session stands, and the synchronisation goes on when the device does."""
    guests = pair.boot(lab, size=64 * MIB)
    p = pair.Pair(guests, 1, link_options=FAST)
    a, b = p.a, p.b
    a.guest.sh("modprobe -a dm-mod")
    for disk in ("data", "srl"):
        sectors = int(a.guest.sh(f"blockdev --getsz /dev/lab/{disk}"))
        a.guest.sh(f'dmsetup create below-{disk} --table "0 {sectors} linear /dev/lab/{disk} 0"')
    a.volumes["data"], a.srl = "/dev/mapper/below-data", "/dev/mapper/below-srl"
    a.guest.sh("dd if=/dev/urandom of=/dev/mapper/below-data bs=1M oflag=direct 2>&1; true", timeout=120)
    p.configure(sync=None)
    a.wait_link(LINK, "needs-sync")
    lab.shape(a.guest, b.guest, "rate 20mbit")
    a.sync(LINK, "full")

    def copied() -> int:
        return a.link().get("sync_done_bytes", 0)

    before = a.wait("copying", lambda s: s["links"][0]["state"] == "syncing"
                    and s["links"][0].get("sync_done_bytes", 0) > 0)["links"][0]["stats"]
    for disk in ("data", "srl"):
        done = copied()
        a.guest.sh(f"dmsetup suspend --noflush below-{disk}")
        time.sleep(8)
        link = a.link()
        assert link["state"] == "syncing" and b.link()["state"] == "syncing", (link, b.link())
        assert all(link["stats"][name] == before[name] for name in ("connects", "resets")), (disk, link, before)
        # What has nothing to do with that disk goes on.
        assert disk == "data" or copied() > done, (done, link)
        a.guest.sh(f"dmsetup resume below-{disk}")
        a.wait("copying on", lambda s, done=done: s["links"][0].get("sync_done_bytes", 0) > done)
    lab.mend(a.guest, b.guest)
    a.wait_link(LINK, "streaming", timeout=120)
    b.wait_replica()
    p.same()


for _one in (scenario_backlog_larger_than_memory, scenario_primary_disks_stand_still_in_a_synchronisation, scenario_link_cut_under_load,
             scenario_link_flaps_and_loses, scenario_killed_hosts_resume,
             scenario_primary_is_lost_and_returns, scenario_running_primary_meets_a_mistaken_takeover,
             scenario_log_full, scenario_removal_with_a_dead_link,
             scenario_two_primaries_and_one_secondary, scenario_secondary_log_hangs_and_fails):
    _one.guests = 0
for _one in (scenario_link_flaps_and_loses, scenario_primary_is_lost_and_returns, scenario_removal_with_a_dead_link):
    _one.debug = True
