# SPDX-License-Identifier: GPL-2.0
"""Who waits for whom: a host that is short of memory, and whose memory is freed through a volume; bios that wait while
their device is suspended or removed; readers of a replica that no primary has filled."""

import time

from lab.lab import MIB

from scenarios.basics import alone
from scenarios.kit import pair
from scenarios.kit.host import Host, brief
from scenarios.kit.pair import LINK, Pair

# Of guests that are to be short of it, in MiB.
MEMORY = 400
# What is to go out to the swap device, in MiB; and at most so much is written for it.
SWAPPED, FILL = 96, 600
# Reads that may be overlaid at a time.
PLACES = 64
# Every so many pieces of what was written are read again.
SAMPLE = 8


def _swapped(host) -> int:
    """MiB that lie on the swap device."""
    return int(host.guest.sh("awk 'NR > 1 { print $4 }' /proc/swaps")) >> 10


def _fill(host) -> int:
    """Writes to a tmpfs until enough was swapped out; how many pieces of 1 MiB. They do not compress."""
    host.guest.sh("mkdir -p /fill && mount -t tmpfs -o size=900m tmpfs /fill && "
                  "dd if=/dev/urandom of=/tmp/piece bs=1M count=1 2>/dev/null")
    for done in range(0, FILL, 16):
        if _swapped(host) >= SWAPPED:
            return done
        host.guest.sh(f"for i in $(seq {done} {done + 15}); do cat /tmp/piece >/fill/$i || exit 1; done",
                      timeout=90)
    raise AssertionError(f"{FILL} MiB were written, and only {_swapped(host)} swapped out")


def scenario_swap_on_a_volume(lab):
    """A host swaps to a volume whose writers wait for the peer, and writes more to a tmpfs than it has memory."""
    guests = pair.boot(lab, size=256 * MIB, srl=128 * MIB, memory=MEMORY)
    for guest in guests:
        # The lab's network device cannot scatter: a packet of 64 KiB would need as much in one piece.
        guest.sh("for m in /sys/class/net/*/mtu; do echo 1500 >$m; done")
    p = Pair(guests, mode="received", link_options="--peer-timeout 30s").configure()
    a = p.a
    a.wait_in_sync()
    a.guest.sh(f"mkswap {a.dev()} && swapon {a.dev()}")
    pieces = _fill(a)
    assert a.status()["state"] == "active"
    print(f"note: {_swapped(a)} of {pieces} MiB swapped out; link {a.link()['state']}")
    # What went out first comes back as it was.
    a.guest.sh(f"for i in $(seq 0 {SAMPLE} {pieces - 1}); do cmp /tmp/piece /fill/$i || exit 1; done",
               timeout=90)
    a.guest.sh(f"umount /fill && swapoff {a.dev()}", timeout=60)
    a.wait_link(LINK, "streaming")
    p.same()


scenario_swap_on_a_volume.guests = 0
scenario_swap_on_a_volume.timeout = 400
scenario_swap_on_a_volume.debug = True


def scenario_writers_at_their_limit(lab):
    """Writers whose cgroup has no page left, through the smallest pool that a group may have, for every level of
    acknowledgement; then the peer has next to no memory. Everything ends, and nothing is closed."""
    guests = pair.boot(lab, volumes=2, size=64 * MIB, srl=96 * MIB, memory=MEMORY)
    p = Pair(guests, volumes=2, mode="received", options="--pool 5M", link_options="--peer-timeout 30s").configure()
    a, b = p.a, p.b
    a.wait_in_sync()
    a.guest.sh("mkdir -p /cg /mnt/data && mount -t cgroup2 none /cg && echo +memory >/cg/cgroup.subtree_control && "
               f"mkfs.ext4 -q -F {a.dev('data')} && mount {a.dev('data')} /mnt/data")

    fio = "fio --name={} --rw=randwrite --size=8m --verify=crc32c --verify_fatal=1 --do_verify=1 {} 2>&1"
    # A program's pages are charged to the cgroup that reads them first. One that they do not fit in would do nothing
    # but read them, on any disk: they are read here, where no limit is.
    a.guest.sh(fio.format("first", "--ioengine=psync --directory=/mnt/data"))
    # The limit in MiB; fio needs some memory for itself.
    work = {
        "mapped": (40, fio.format("mapped", "--ioengine=mmap --bs=4k --directory=/mnt/data")),
        "direct": (40, fio.format("direct", f"--ioengine=libaio --direct=1 --iodepth=32 --bsrange=4k-512k "
                                            f"--size=16m --filename={a.dev('data2')}")),
        "file": (12, fio.format("file", "--ioengine=psync --bsrange=4k-256k --fdatasync=64 --directory=/mnt/data")),
        "device": (6, f"dd if=/dev/zero of={a.dev('data2')} bs=1M seek=32 count=16 conv=fsync 2>&1"),
    }

    def write():
        jobs = {}
        for name, (limit, command) in work.items():
            a.guest.sh(f"mkdir -p /cg/{name} && echo {limit}M >/cg/{name}/memory.max")
            jobs[name] = a.guest.spawn(f"echo $$ >/cg/{name}/cgroup.procs && exec {command}")
        begun = time.monotonic()
        for name, job in jobs.items():
            try:
                rc = job.wait(240)
            except TimeoutError as late:
                raise AssertionError(f"{name} did not end: {late}\n{a.stuck()}\n{b.stuck()}") from None
            assert rc == 0, f"{name}: {job.text[-2000:]}\n{brief(a.status())}"
            print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
        assert a.status()["state"] == "active", brief(a.status())

    write()
    assert int(a.guest.sh("awk '/^max / { print $2 }' /cg/device/memory.events")) > 0, "the cgroup's limit was not met"
    # The peer: all but a little is taken.
    b.guest.sh("mkdir -p /fill && mount -t tmpfs -o size=900m tmpfs /fill && "
               "while [ $(awk '/^MemAvailable/ { print $2 }' /proc/meminfo) -gt 40000 ]; do "
               "n=$((n + 1)); dd if=/dev/zero of=/fill/$n bs=1M count=4 2>/dev/null || exit 1; done", timeout=120)
    for mode in ("logged", "applied"):
        for host in (a, b):
            host.sh(f"dmrepl link set db {LINK} --mode {mode}")
        write()
    left = b.guest.sh("awk '/^MemAvailable/ { print $2 }' /proc/meminfo").strip()
    print(f"note: the peer had {left} KiB; {a.status()['stats']['stalls']} writes waited")
    a.guest.sh("umount /mnt/data", timeout=120)
    a.wait_link(LINK, "streaming")
    p.same()


scenario_writers_at_their_limit.guests = 0
scenario_writers_at_their_limit.timeout = 900
scenario_writers_at_their_limit.long = True


def scenario_bounds_are_reached(lab):
    """What a connection may hold, and the reads that may be overlaid: the bound is reached, seen in status, and kept."""
    p = Pair(pair.boot(lab), link_options="--peer-timeout 60s")
    a, b = p.a, p.b
    # What can be made to stand still; and a socket that would take more than it may.
    a.guest.run("modprobe -q dm-mod")
    a.guest.sh("dmsetup create below --table \"0 $(blockdev --getsz /dev/lab/data) linear /dev/lab/data 0\" && "
               "echo '4096 67108864 67108864' >/proc/sys/net/ipv4/tcp_wmem")
    a.volumes = {"data": "/dev/mapper/below"}
    p.configure()

    a.guest.sh("dmsetup suspend below")
    fio = (f"fio --name=v --filename={a.dev()} --direct=1 --ioengine=libaio --bs=4k --size=4m --verify=crc32c "
           "--do_verify=0 --iodepth={} --rw={} 2>&1")
    # They are in the log, and in memory.
    a.guest.sh(fio.format(16, "write"))
    reads = a.guest.spawn(fio.format(200, "read"))
    a.wait("136 of 200 reads without a place", lambda s: s["deferred"] == 200 - PLACES)
    a.guest.sh("dmsetup resume below")
    assert reads.wait(120) == 0, reads.text[-2000:]
    assert a.status()["deferred"] == 0, a.status()

    a.wait_drained(LINK)
    b.guest.freeze()
    try:
        writes = a.guest.spawn(f"dd if=/dev/zero of={a.dev()} bs=64k count=256 oflag=direct 2>&1")
        a.wait("as much in the socket as it may hold", lambda s: s["links"][0]["unacked_bytes"] >= 4 * MIB, 30)
        assert writes.wait(60) == 0, writes.text
        held = a.link()["unacked_bytes"]
        assert held <= 6.5 * MIB < a.link()["behind_bytes"], a.link()
    finally:
        b.guest.thaw()
    p.same()

    # A listener that has stopped, with room for very little.
    assert a.status()["stats"]["events_lost"] == 0, a.status()["stats"]
    a.guest.sh("echo 4096 >/proc/sys/net/core/rmem_max")
    listener = a.guest.spawn("echo $$ >/run/listener && exec dmrepl events --json >/run/heard 2>&1")
    for _ in range(100):
        if a.guest.run("[ -s /run/heard ] && kill -STOP $(cat /run/listener)")[0] == 0:
            break
        a.sh(f"dmrepl link disconnect db {LINK} && dmrepl link connect db {LINK}")
    while not a.status()["stats"]["events_lost"]:
        a.sh(f"dmrepl link disconnect db {LINK} && dmrepl link connect db {LINK}")
    a.guest.sh("kill -CONT $(cat /run/listener)")
    a.guest.until("cat /run/heard", "lost|missed")
    listener.kill()
    a.wait_link(LINK, "streaming")
    print(f"note: {held / MIB:.1f} MiB in the socket; {a.status()['stats']['events_lost']} events lost")


scenario_bounds_are_reached.guests = 0


def scenario_noflush_suspend_while_writes_wait(lab):
    """Writes wait for a link that does not answer, and come anew with each resume: noflush suspends end all the
    same, and remove --force."""
    guest = lab.hosts[0]
    host = alone(guest)
    # Known to the log, and not there after the boot: writers are held until it answers.
    guest.sh("dmrepl link add db dr --local 127.0.0.1:7790 --peer 127.0.0.9:7790")
    host.options = "--start-wait 600s"
    host.reset()
    assert host.status()["state"] == "holding", host.status()
    # What is given back at a suspend is sent again at the resume, by a thread of device-mapper: while the next
    # suspend begins.
    writers = guest.spawn(f"fio --name=w --filename={host.dev()} --ioengine=libaio --iodepth=64 --direct=1 "
                          "--rw=randrw --bs=4k --size=16m --time_based --runtime=600 2>&1")
    guest.until("test $(cat /sys/block/dm-0/inflight | awk '{ print $1 + $2 }') -gt 32", timeout=60)
    for _ in range(40):
        guest.sh("dmsetup suspend --noflush db-data && dmsetup resume db-data", timeout=30)
    assert writers.running(), writers.text
    guest.sh("dmsetup remove --force db-data; ! dmsetup info db-data 2>/dev/null | grep -q replicate", timeout=30)
    # Nothing is left but errors.
    writers.wait(60)
    assert "error" in writers.text.lower(), writers.text[-500:]
    guest.until("dmsetup remove --retry db-data 2>/dev/null; ! dmsetup info db-data 2>/dev/null", timeout=60)
    host.sh("dmrepl group del db")


scenario_noflush_suspend_while_writes_wait.guests = 1


def scenario_replica_without_a_primary_is_readable(lab):
    """A secondary that has never met its primary: who looks at its device (udev, when it appears) need not wait."""
    guest = lab.hosts[0]
    guest.sh("dd if=/dev/urandom of=/dev/lab/data bs=4k count=4 oflag=direct 2>/dev/null")
    host = Host(guest, "secondary")
    host.load()
    host.format()
    host.group_add()
    host.create()
    assert host.volume()["state"] == "parked", host.volume()
    guest.sh(f"timeout -s KILL 20 dd if={host.dev()} of=/tmp/read bs=4k count=4 iflag=direct 2>/dev/null && "
             "dd if=/dev/lab/data of=/tmp/raw bs=4k count=4 iflag=direct 2>/dev/null && cmp /tmp/read /tmp/raw")
    guest.fails(f"timeout -s KILL 20 dd if=/dev/zero of={host.dev()} bs=4k count=1 oflag=direct 2>&1")
    host.down()


scenario_replica_without_a_primary_is_readable.guests = 1
