# SPDX-License-Identifier: GPL-2.0
"""What an administrator does to two hosts, and has to do when something failed: takeover of a host without a
log, disks of other block sizes, the way back of an old primary, a disk that fails, a suspended secondary, a
host that dies while it takes over."""

import random
import time

from lab.lab import MIB

from scenarios.kit import checker, load, oracle, pair, tutorial
from scenarios.kit.host import PORT, Host, pick, seen, wait_event
from scenarios.kit.kills import BLOCKS, CUTS, LINK_OPTIONS, SEED, image
from scenarios.kit.pair import LINK, Pair


# The smallest that holds four largest records.
POOL = 6 * MIB


def _copies(lab, host, name: str) -> list:
    """The data disks of a host as they are now."""
    found = []
    for volume, disk in host.volumes.items():
        target = lab.folder / f"{name}-{volume}.img"
        host.guest.disks[disk].copy_to(target)
        found.append(target)
    return found


def _forked(*hosts):
    """Each refuses the other, and says why."""
    for host in hosts:
        link = host.wait_link(LINK, "refused", timeout=60)
        assert "forked" in f"{link['reason']} {link['reason_text']}", (host.name, link)


def _no_write(host):
    """A write to the host's volume does not complete: it waits, or ends in an error."""
    code, out = host.guest.run(f"timeout -s KILL 6 dd if=/dev/zero of={host.dev()} bs=4k count=1 oflag=direct 2>&1",
                               timeout=40)
    assert code != 0, f"{host.name} took a write: {out}"


def _unlogged(host):
    """The host is a primary that logs nothing, serves writes, and says so."""
    status = host.wait_active()
    assert status["role"] == "primary" and "unlogged" in status.get("reason_text", ""), status
    assert "unlogged" in host.guest.sh("dmrepl status")
    host.guest.sh(f"dd if={host.dev()} of=/tmp/piece bs=4k count=4 iflag=direct 2>&1 && "
                  f"dd if=/tmp/piece of={host.dev()} bs=4k count=4 oflag=direct 2>&1")


def scenario_unlogged_takeover(lab):
    """A secondary without a ring takes over: it has all that was acknowledged, goes on unlogged, says so, also after
    a power cut; the old primary is refused until the host was given a log."""
    guests = pair.boot(lab, volumes=2, size=16 * MIB, srl=64 * MIB, volatile=True, bus="scsi")
    p = Pair(guests, 2, mode="logged", ring=False, link_options=LINK_OPTIONS).configure()
    a, b = p.a, p.b
    a.wait_in_sync()
    writers = load.Load(a, writers=3, depth=8, options="--fsync-every 25")
    writers.wait_acked(300)
    a.guest.kill()
    theirs = writers.save(lab.folder / "journal-a")
    a.guest.start()
    b.wait_link(LINK, "connecting", timeout=30)
    events = b.events()
    words = b.takeover()
    assert "in-sync" in words and "unlogged" in words, words
    wait_event(events, code="takeover", severity="critical")
    # It answered, so it holds: also against a power cut, on the data devices alone.
    cut = image(b.guest, lab.folder / "cut", 1, cut=True)
    found = oracle.check([cut[d] for d in b.volumes.values()], [theirs], require="acked")
    print(f"note: {found['acked']} acknowledged writes are there")
    _unlogged(b)
    mine = load.Load(b, seed=5, writers=2, depth=4, options="--fsync-every 10 --fua-percent 5")
    mine.wait_acked(200)
    b.guest.power_cut(2)
    own = mine.save(lab.folder / "journal-b")
    b.boot()
    _unlogged(b)
    # Now it is a plain disk: what was flushed is there, and nothing is said of the order of the rest.
    oracle.check(_copies(lab, b, "unlogged"), [theirs, own], require="durable", options=["--no-prefix"])

    a.guest.wait_boot()
    a.up()
    _forked(b, a)
    before = b.sum()
    _no_write(a)
    assert b.sum() == before
    # A log for the one, a full copy for the other.
    for host, role, ring in ((a, "secondary", True), (b, "primary", True)):
        host.down()
        host.role, host.ring = role, ring
        host.format(force=True)
        host.group_add()
        host.create()
        host.link_add(LINK, a if host is b else b, "logged", LINK_OPTIONS)
    b.wait_active()
    assert b.sum() == before
    b.wait_link(LINK, "needs-sync")
    b.sync(LINK, "full")
    b.wait_in_sync(LINK, timeout=90)
    load.Load(b, seconds=1, seed=6).finish()
    pair.equal(b, [a], lambda: b.wait_drained(LINK, 90))


def scenario_two_block_sizes(lab):
    """The secondary's disk has larger blocks: refused until the primary shows them, too, then copied and equal."""
    p = Pair(lab.hosts, 1, mode="received")
    a, b = p.a, p.b
    for host in (b, a):
        host.load()
        host.format()
        host.group_add()
        host.create()
        host.link_add(LINK, a if host is b else b, "received")
    a.wait_active()
    # In blocks that the secondary's disk cannot write.
    load.Load(a, seconds=1, blocks="512").finish()
    link = a.wait_link(LINK, "refused", timeout=30)
    assert link["reason"] == "block-size" and "block_size 4096" in link["reason_text"], link
    # What the message says.
    a.sh(f"dmsetup remove {a.group}-data")
    a.create(options="2 block_size 4096")
    a.wait_active()
    assert a.guest.sh(f"blockdev --getss {a.dev()}").strip() == "4096"
    a.guest.fails(f"dd if=/dev/zero of={a.dev()} bs=512 count=1 oflag=direct 2>&1", "nvalid")
    a.wait_link(LINK, "needs-sync")
    a.sync(LINK, "full")
    a.wait_in_sync(LINK)
    p.same()
    done = load.Load(a, seconds=3, writers=3, depth=8, readers=1, seed=2,
                     options="--fsync-every 20 --fua-percent 5 --discard-percent 3 --zero-percent 3 "
                             "--verify-at-end").finish()
    assert done["writes"] > 50 and done["zeroes"] > 0, done
    p.same()
    load.shapes(a, seed=3)
    p.same()


scenario_two_block_sizes.options = {"disks": [
    {"srl": 64 * MIB, "data": 24 * MIB}, {"srl": 64 * MIB, "data": {"size": 24 * MIB, "block": 4096}}]}


def scenario_old_primary_returns(lab):
    """The tutorial, typed as it stands: set up, takeover, return of the old primary, and the way back."""
    alpha, beta = Host(lab.hosts[0], "primary"), Host(lab.hosts[1], "secondary")
    hosts = {"alpha": alpha, "beta": beta}
    for host, peer in ((alpha, beta), (beta, alpha)):
        host.load()
        host.guest.sh("rm /etc/dm-replicate/db.key; modprobe ext4; mkdir -p /srv/db")
        # For the script that runs after a boot.
        host.links[LINK] = (peer.address, "received", "", PORT)

    def write(host, name: str):
        """A file, and where it is known by."""
        host.guest.sh(f"dd if=/dev/urandom of=/srv/db/{name} bs=64k count=30 2>/dev/null && sync")
        sums[name] = host.guest.sh(f"md5sum </srv/db/{name}")

    def see(host):
        for name, value in sums.items():
            assert host.guest.sh(f"md5sum </srv/db/{name}") == value, f"{name} differs on {host.name}"

    def look(host, command):
        """What a person sees before he goes on."""
        if command.startswith("dmrepl sync"):
            host.wait_link(LINK, "needs-sync", "refused")
        if command.startswith("dmrepl takeover"):
            host.wait_link(LINK, "connecting", timeout=30)
        if command.startswith("dmsetup remove") and host.status()["role"] == "primary" and host is beta:
            host.wait_in_sync(LINK)

    sums = {}
    tutorial.play(hosts, "Set it up", look)
    alpha.wait_in_sync(LINK, timeout=90)
    # Any filesystem may come before the group, or after.
    alpha.guest.sh(f"mkfs.ext4 -q {alpha.dev()} && mount {alpha.dev()} /srv/db")
    write(alpha, "first")
    secret = alpha.guest.get("/etc/dm-replicate/db.key").decode().strip()
    alpha.guest.kill()
    alpha.guest.start()
    tutorial.play(hosts, "Alpha is lost", look)
    see(beta)
    write(beta, "second")
    alpha.guest.wait_boot()
    alpha.secret = secret
    alpha.up()
    alpha.guest.sh("modprobe ext4; mkdir -p /srv/db")
    _forked(beta, alpha)
    tutorial.play(hosts, "Alpha comes back", look)
    write(beta, "third")
    beta.wait_in_sync(LINK, timeout=90)
    assert (alpha.status()["role"], beta.status()["role"]) == ("secondary", "primary")
    alpha.wait_replica()
    pair.equal(beta, [alpha], lambda: beta.wait_drained(LINK, 90))
    tutorial.play(hosts, "Back to alpha", look)
    see(alpha)
    write(alpha, "fourth")
    alpha.wait_in_sync(LINK, timeout=90)
    assert (alpha.status()["role"], beta.status()["role"]) == ("primary", "secondary")
    beta.wait_replica()
    pair.equal(alpha, [beta], lambda: alpha.wait_drained(LINK, 90))
    tutorial.play(hosts, "Take it away", look)
    alpha.guest.sh("mount -o ro /dev/lab/data /srv/db")
    see(alpha)


scenario_old_primary_returns.options = {"disks": {"srl": 64 * MIB, "data": 24 * MIB}}


def scenario_data_device_fails_and_is_reloaded(lab):
    """A data device fails under one volume of two: that one fails and says so, the other and the link go on; after
    the repair a reload replays what it lacks, and nothing acknowledged was lost."""
    guests = pair.boot(lab, volumes=2, srl=192 * MIB)
    p = Pair(guests, 2, mode="received", link_options=LINK_OPTIONS)
    a, b = p.a, p.b
    sectors = int(a.guest.sh("modprobe -a dm-mod dm-flakey; blockdev --getsz /dev/lab/data"))
    good = f"0 {sectors} linear /dev/lab/data 0"
    bad = f"0 {sectors} flakey /dev/lab/data 0 0 1 1 error_writes"
    a.guest.sh(f'dmsetup create below --table "{good}"')
    a.volumes["data"] = "/dev/mapper/below"
    p.configure()
    a.wait_in_sync()
    events = a.events()
    victim = load.Load(a, [a.dev("data")], seed=1, options="--fsync-every 20")
    other = load.Load(a, [a.dev("data2")], seed=2, seconds=120, options="--fsync-every 20 --pause-us 3000")
    for writers in (victim, other):
        writers.wait_acked(60)
    swap = 'dmsetup suspend below && dmsetup load below --table "{}" && dmsetup resume below'
    a.guest.sh(swap.format(bad))
    status = a.wait("a failed volume", lambda s: pick(s["volumes"], "data")["state"] == "failed")
    event = wait_event(events, code="volume-failed", severity="critical")
    assert event["volume"] == "data" and "log keeps" in event["text"], event
    assert "data" in status.get("reason_text", ""), status
    assert victim.job.wait(30) == 3, victim.words()
    for direction in (f"if=/dev/zero of={a.dev('data')} oflag=direct", f"if={a.dev('data')} of=/dev/null iflag=direct"):
        a.guest.fails(f"dd {direction} bs=4k count=1 2>&1", "rror")
    other.wait_acked(other.acked() + 100)
    assert a.volume("data2")["state"] == "active" and a.link()["in_sync"], a.status()
    # Working again is not enough: what it lacks is in the log.
    a.guest.sh(swap.format(good))
    assert a.volume("data")["state"] == "failed"
    a.guest.fails(f"dd if={a.dev('data')} of=/dev/null bs=4k count=1 iflag=direct 2>&1", "rror")
    a.sh("dmsetup suspend db-data")
    a.sh(f'dmsetup load db-data --table "{a.table("data")}"')
    a.sh("dmsetup resume db-data")
    a.wait_active()
    other.wait_acked(other.acked() + 50)
    other.stop()
    after = load.Load(a, [a.dev("data")], seconds=1, seed=3)
    after.finish()
    p.same()
    assert b"\nX " not in other.journal(), "a write to the healthy volume failed"
    assert not seen(events, code="left-sync")
    a.down()
    for disk, loads in (("data", (victim, after)), ("data2", (other,))):
        target = lab.folder / f"end-{disk}.img"
        a.guest.disks[disk].copy_to(target)
        journals = [w.save(lab.folder / f"journal-{disk}-{n}") for n, w in enumerate(loads)]
        oracle.check([target], journals, require="acked-all")


def scenario_flush_fails_and_the_cache_is_lost(lab):
    """A data device's flush fails once and its cache is gone: flushes that succeed later prove nothing about it. After a
    reload everything is replayed from the log; on the primary and on a secondary."""
    guests = pair.boot(lab, volumes=2, size=16 * MIB, srl=96 * MIB, volatile=True)
    p = Pair(guests, 2, mode="logged", link_options=LINK_OPTIONS).configure()
    journals = []
    for number, host in enumerate(p.hosts):
        p.a.wait_in_sync()
        writers = load.Load(p.a, seed=number, options="--fsync-every 20 --keep-going")
        writers.wait_acked(60)
        host.guest.nbd("fail flush on data")
        host.wait("a failed volume", lambda s: pick(s["volumes"], "data")["state"] == "failed")
        print(f"note: {host.name}: {host.guest.nbd(f'lose {number} data')}")
        host.guest.nbd("fail flush off data")
        # Other volumes go on, and checkpoints are tried.
        done = writers.acked()
        if host is p.a:
            writers.stop()
        else:
            writers.wait_acked(done + 200)
            writers.stop()
        time.sleep(2.5)
        assert host.volume("data")["state"] == "failed", host.status()
        host.sh("dmsetup suspend db-data")
        host.sh(f'dmsetup load db-data --table "{host.table("data")}"')
        host.sh("dmsetup resume db-data")
        host.wait("all volumes", lambda s: all(v["state"] in ("active", "replica") for v in s["volumes"]))
        journals.append(writers.save(lab.folder / f"journal-{number}"))
        p.a.wait_in_sync()
    p.same()
    p.a.down()
    images = []
    for disk in ("data", "data2"):
        images.append(lab.folder / f"end-{disk}.img")
        p.a.guest.disks[disk].copy_to(images[-1])
    oracle.check(images, journals, require="acked-all")


def scenario_one_of_two_volumes_is_not_there(lab):
    """After a crash only one of two volumes is activated: its writers go on, far beyond what memory holds. After the
    next crash only the other one is: it lacks nothing and has more to go past than memory holds. Nothing is lost."""
    host = Host(lab.hosts[0], "primary", volumes=pair.volume_names(2), options="--pool 8M")
    guest = host.guest
    host.load()
    host.format()
    host.group_add()
    host.create()
    host.wait_active()
    wanted = {}

    def write(volume, mib, seed):
        guest.sh(f"yes {seed}-{volume} | dd of={host.dev(volume)} bs=64k count={mib * 16} iflag=fullblock "
                 "oflag=direct conv=fsync 2>&1", timeout=150)
        wanted[volume] = host.sum(volume)

    for volume in host.volumes:
        write(volume, 2, "first")
    guest.reset()
    host.load()
    host.group_add()
    for volume, seed in zip(host.volumes, ("second", "third")):
        host.create(volume)
        host.wait(f"{volume} is active", lambda s, v=volume: pick(s["volumes"], v)["state"] == "active")
        assert host.sum(volume) == wanted[volume], volume
        # Three times the pool.
        write(volume, 24, seed)
        guest.reset()
        host.load()
        host.group_add()
    host.create()
    host.wait_active()
    for volume in host.volumes:
        assert host.sum(volume) == wanted[volume], volume


scenario_one_of_two_volumes_is_not_there.guests = 1
scenario_one_of_two_volumes_is_not_there.options = {
    "disks": [{"srl": 128 * MIB, "data": 32 * MIB, "data2": 32 * MIB}]}


def scenario_suspended_replica_takes_over(lab):
    """A replica with both volumes suspended holds far more than its memory when it loses its primary, and takes over; one
    volume is resumed, then the other: each has all that was acknowledged."""
    guests = pair.boot(lab, volumes=2, size=16 * MIB, srl=96 * MIB, volatile=True)
    p = Pair(guests, 2, mode="received", link_options=LINK_OPTIONS)
    p.b.options = f"--pool {POOL}"
    p.configure()
    a, b = p.a, p.b
    a.wait_in_sync()
    p.drain()
    for volume in b.volumes:
        b.sh(f"dmsetup suspend db-{volume}")
    writers = load.Load(a, writers=4, blocks="4096x3,65536x3", options="--fsync-every 20")
    writers.wait_acked(300)
    _wait_logged(b, 3 * POOL)
    a.guest.kill()
    journal = writers.save(lab.folder / "journal")
    b.wait_link(LINK, "connecting", timeout=30)
    b.takeover()
    first, second = b.volumes
    b.sh(f"dmsetup resume db-{first}")
    b.wait(f"{first} is active", lambda s: pick(s["volumes"], first)["state"] == "active")
    # Time for a checkpoint, which must not pass what the other one lacks.
    time.sleep(3)
    b.sh(f"dmsetup resume db-{second}")
    b.wait_active()
    b.down()
    oracle.check(_copies(lab, b, "end"), [journal], require="acked")


def scenario_secondary_is_suspended(lab):
    """A secondary of which one volume is suspended stands still at one record in all its volumes; the primary's writers, to
    both volumes, go on, in sync mode, too, far beyond the secondary's memory: what its log holds leaves that. Nothing is
    taken for lost, and all of it is applied afterwards, while they go on."""
    guests = pair.boot(lab, volumes=2, size=16 * MIB, srl=256 * MIB)
    p = Pair(guests, 2, mode="async", link_options=LINK_OPTIONS)
    p.b.options = f"--pool {POOL}"
    p.configure()
    a, b = p.a, p.b
    order, states = lab.folder / "order.img", []
    for mode in ("async", "received"):
        for host in (a, b):
            host.sh(f"dmrepl link set db {LINK} --mode {mode}")
        if mode != "async":
            a.wait_in_sync()
        events = a.events()
        writers = load.Load(a, seconds=240, seed=len(states), writers=3, depth=8, blocks="512,4096x4,65536,unaligned")
        writers.wait_acked(50)
        b.sh("dmsetup suspend db-data")
        assert b.volume("data")["state"] == "suspended", b.status()
        stood = b.status()["applied_seq"]
        _wait_logged(b, 3 * POOL)
        if mode != "async":
            assert a.link()["in_sync"] and not seen(events, code="left-sync"), a.link()
        used = b.status()["pool_used"]
        assert used <= POOL, used
        assert b.status()["applied_seq"] == stood, b.status()
        assert a.link()["state"] in ("streaming", "catching-up"), a.link()
        states.append((stood, _copies(lab, b, mode), writers))
        count = writers.acked()
        b.sh("dmsetup resume db-data")
        writers.wait_acked(count + 100)
        writers.stop()
        p.same()
        assert b.volume("data")["state"] == "replica", b.status()
    a.guest.disks["srl"].copy_to(order)
    journals = [w.save(lab.folder / f"journal-{n}") for n, (_, _, w) in enumerate(states)]
    for stood, images, _ in states:
        found = oracle.check(images, journals, [order])
        assert found["seq_low"] <= stood <= found["seq_high"], (stood, found)
        print(f"note: stood at record {stood} of {found['records']}")


def _wait_logged(host, more: int):
    """Waits until the log of the host holds so many bytes more than it does now."""
    used = host.status()["ring_used"]
    host.wait("in its log", lambda s: s["ring_used"] > used + more, timeout=120)


def _takeover_dies(lab, ring: bool, salt: int):
    """One takeover, cut at many moments."""
    chance = random.Random(SEED + salt)
    print(f"seed: {SEED + salt}")
    guests = pair.boot(lab, volumes=2, size=16 * MIB, srl=96 * MIB, volatile=True, bus="scsi")
    p = Pair(guests, 2, mode="logged", ring=ring, link_options=LINK_OPTIONS).configure()
    a, b = p.a, p.b
    third = checker.boot(lab, pair.disks(2, 16 * MIB, 96 * MIB), a.volumes)
    a.wait_in_sync()
    # Slow disks: there is something left to do, and the steps of a takeover lie apart.
    b.guest.nbd(f"delay {chance.randrange(5, 30)}")
    writers = load.Load(a, seed=chance.randrange(1 << 31), writers=3, depth=8, blocks=BLOCKS)
    writers.wait_acked(chance.randrange(50, 300))
    a.guest.kill()
    journal = writers.save(lab.folder / "journal")
    b.sh(f"dmrepl link disconnect db {LINK}")
    # Without a ring it may hold what no log ever had; then the stamps alone tell the order.
    orders = []
    for host in (a, b) if ring else ():
        orders.append(lab.folder / f"order-{host.name}.img")
        host.guest.disks["srl"].copy_to(orders[-1])

    def moment(name: str) -> dict:
        b.guest.freeze()
        try:
            return image(b.guest, lab.folder / name, chance.randrange(1 << 31), chance.random() < CUTS)
        finally:
            b.guest.thaw()

    command = b.guest.spawn("dmrepl takeover db")
    moments = []
    for number in range(chance.randrange(4, 12)):
        time.sleep(chance.uniform(0, 0.04))
        moments.append(moment(f"moment-{number}"))
    # And with a real crash.
    answered = not command.running()
    b.guest.power_cut(chance.randrange(1 << 31))
    b.guest.nbd("delay 0")
    b.boot()
    role = b.wait("active", lambda s: s["state"] == "active")["role"]
    assert role == "primary" or not answered, "the takeover was answered, and is gone"
    if role == "secondary":
        b.takeover()
    b.wait_active()
    # From the answer on it is a primary, whatever happens.
    moments.append(moment("answered"))
    load.Load(b, seconds=1, seed=9).finish()
    roles = []
    for copies in moments:
        third.take(copies, role=None)
        roles.append(third.role)
        found = oracle.check(third.images(), [journal], orders, require="acked")
        print(f"  {third.role}: {found}", flush=True)
    assert roles[-1] == "primary", roles
    print(f"note: {roles.count('secondary')} of {len(roles)} images were a secondary's; killed as a {role}")


def scenario_takeover_dies_half_way(lab):
    """A takeover is cut at random moments: afterwards the host is a secondary that can take over, or a primary; every
    acknowledged write of the in-sync link is there."""
    _takeover_dies(lab, ring=True, salt=40)


def scenario_takeover_without_a_ring_dies_half_way(lab):
    """The same of a secondary without a ring, which applies what it holds before it takes over."""
    _takeover_dies(lab, ring=False, salt=41)


for _one in (scenario_unlogged_takeover, scenario_data_device_fails_and_is_reloaded,
             scenario_flush_fails_and_the_cache_is_lost, scenario_suspended_replica_takes_over,
             scenario_secondary_is_suspended,
             scenario_takeover_dies_half_way,
             scenario_takeover_without_a_ring_dies_half_way):
    _one.guests = 0
