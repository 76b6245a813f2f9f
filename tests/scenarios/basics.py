# SPDX-License-Identifier: GPL-2.0
"""One host alone: the target over a disk and its log, without any link."""

import json
import re
import time

from lab.lab import MIB
from lab.paths import SLOW

from scenarios.kit import checker, load, oracle
from scenarios.kit.host import Host
from scenarios.kit.pair import disks, volume_names


def alone(guest, volumes: int = 1, options: str = "") -> Host:
    """A primary with no link, active."""
    host = Host(guest, "primary", volumes=volume_names(volumes), options=options)
    host.load()
    host.format()
    host.group_add()
    host.create()
    host.wait_active()
    return host


def scenario_filesystem_survives_deactivation_and_a_kill(lab):
    """mkfs, files, remove, activate again; then killed in the middle of writing: replayed."""
    host = alone(lab.hosts[0])
    guest, dev = host.guest, host.dev()
    guest.sh(f"mkfs.ext4 -q {dev} && mkdir -p /mnt/db && mount {dev} /mnt/db && cp -r /tools/usr/sbin/dmsetup "
             "/etc /mnt/db/ && sync")
    sums = guest.sh("cd /mnt/db && find . -type f | sort | xargs md5sum")
    guest.sh("umount /mnt/db")
    host.down()
    # The data device alone holds it all now: nothing of it is left in the log only.
    guest.sh("mount -o ro /dev/lab/data /mnt/db")
    assert guest.sh("cd /mnt/db && find . -type f | sort | xargs md5sum") == sums
    guest.sh("umount /mnt/db; rmmod dm_replicate")

    host.up()
    host.wait_active()
    guest.sh(f"mount {dev} /mnt/db")
    assert guest.sh("cd /mnt/db && find . -type f | sort | xargs md5sum") == sums
    job = guest.spawn("cd /mnt/db; i=0; while :; do i=$((i + 1)); cp /tools/usr/sbin/fio f$i && sync f$i; done")
    time.sleep(1.5)
    assert job.running(), job.text
    host.reset()
    host.wait_active()
    guest.sh(f"mkdir -p /mnt/db && mount {dev} /mnt/db")
    assert guest.sh("cd /mnt/db && find . -type f | grep -v /f | sort | xargs md5sum") == sums
    guest.sh("umount /mnt/db")
    guest.sh(f"e2fsck -fn {dev}")


scenario_filesystem_survives_deactivation_and_a_kill.guests = 1


def scenario_every_shape_of_bio(lab):
    """512 bytes to the largest, one segment or many, any offset, FUA, flush, discard, write-zeroes."""
    for block, host in zip((512, 4096), lab.hosts):
        one = alone(host)
        print(f"note: {block}: {load.shapes(one, seed=block).strip()}")
        # And beside other writers and readers.
        writers = load.Load(one, seconds=4, writers=3, depth=8, readers=2, seed=block,
                            options="--fsync-every 20 --fua-percent 5 --discard-percent 3 --zero-percent 3 "
                                    "--verify-at-end")
        done = writers.finish()
        assert done["writes"] > 100 and done["reads"] > 10, done
        assert done["discards"] > 0 and done["zeroes"] > 0, done
        one.down()


scenario_every_shape_of_bio.options = {"disks": [
    {"srl": 64 * MIB, "data": {"size": 64 * MIB, "block": 512}},
    {"srl": {"size": 64 * MIB, "block": 4096}, "data": {"size": 64 * MIB, "block": 4096, "bus": "nvme"}}]}


def scenario_table_round_trip(lab):
    """TABLE gives the line back that makes the same device; INFO and IMA say what is true."""
    host = alone(lab.hosts[0])
    guest = host.guest
    sectors = guest.sh(f"blockdev --getsz {host.disk()}").strip()
    numbers = guest.sh("dmsetup table db-data").split()
    assert numbers[:5] == ["0", sectors, "replicate", "db", "data"], numbers
    assert numbers[5] == guest.sh("cat /sys/class/block/$(basename $(readlink -f /dev/lab/data))/dev").strip()
    host.down()
    host.load()
    host.group_add(role=False)
    for options in ("", "2 block_size 4096", "2 discard_zero 1", "4 block_size 4096 discard_zero 1"):
        guest.sh(f"dmsetup create db-data --table \"{host.table('data', options)}\"")
        line = guest.sh("dmsetup table db-data").strip()
        assert line.endswith(options or numbers[5]), line
        guest.sh("dmsetup remove db-data")
        guest.sh(f'dmsetup create db-data --table "{line}"')
        assert guest.sh("dmsetup table db-data").strip() == line
        if "block_size 4096" in options:
            assert guest.sh(f"blockdev --getss {host.dev()}").strip() == "4096"
        host.wait_active()
        guest.sh("dmsetup remove db-data")
    host.create()
    host.wait_active()
    before = guest.sh("dmsetup status db-data").split()
    assert before[:4] == ["0", sectors, "replicate", "primary"] and before[4] == "active", before
    guest.sh(f"dd if=/dev/zero of={host.dev()} bs=4k count=3 oflag=direct 2>&1")
    after = guest.sh("dmsetup status db-data").split()
    assert int(after[5]) >= int(before[5]) + 3, (before, after)
    guest.sh(f"dmsetup message db-data 0 flush")
    guest.fails("dmsetup message db-data 0 dance", "Invalid argument|invalid")
    host.wait("committed", lambda s: s["commit_seq"] == s["head_seq"])
    # Where the kernel measures, the line of IMA is what it measured.
    if guest.run("dmsetup --help 2>&1 | grep -q measure")[0] == 0:
        out = guest.sh("dmsetup measure db-data 2>&1; true")
        print(f"note: {out.strip()[:200]}")


scenario_table_round_trip.guests = 1


def scenario_suspend_and_reload_under_load(lab):
    """Suspend, resume and table reload while writers and readers run; a suspended snapshot is right."""
    host = alone(lab.hosts[0])
    guest = host.guest
    writers = load.Load(host, seconds=8 * SLOW, writers=3, depth=8, readers=2,
                        options="--fsync-every 20 --verify-at-end")
    writers.wait_acked(50)
    table = host.table("data")
    for turn in range(12):
        guest.sh("dmsetup suspend db-data", timeout=30)
        if turn % 3 == 0:
            # Nothing completes while suspended, and all that was completed is on the data device.
            journal = writers.save(lab.folder / "journal")
            guest.disks["data"].copy_to(lab.folder / "suspended.img")
            oracle.check([lab.folder / "suspended.img"], [journal], require="acked")
        if turn % 3 == 1:
            guest.sh(f'dmsetup load db-data --table "{table}"')
        if turn % 3 == 2:
            guest.sh("dmsetup resume db-data; dmsetup suspend --noflush db-data", timeout=30)
        guest.sh("dmsetup resume db-data", timeout=30)
        time.sleep(0.2)
    done = writers.finish()
    assert done["writes"] > 200, done
    host.down()


scenario_suspend_and_reload_under_load.guests = 1
scenario_suspend_and_reload_under_load.debug = True


def scenario_volumes_come_one_by_one(lab):
    """Two volumes with records in the log: one is activated alone, works, and waits for the other."""
    host = alone(lab.hosts[0], volumes=2)
    guest = host.guest
    writers = load.Load(host, seconds=60, writers=2, depth=8)
    writers.wait_acked(300)
    guest.kill()
    journal = writers.save(lab.folder / "journal")
    guest.start().wait_boot()
    host.load()
    host.group_add(role=False)
    status = host.status()
    assert [v["state"] for v in status["volumes"]] == ["absent", "absent"], status["volumes"]
    host.create("data")
    host.wait("data active", lambda s: s["volumes"][0]["state"] == "active")
    assert host.volume("data2")["state"] == "absent"
    # It takes writes, while the log still holds what the other needs.
    guest.sh(f"dd if={host.dev()} of=/tmp/first bs=64k count=1 iflag=direct 2>&1 && "
             f"dd if=/tmp/first of={host.dev()} bs=64k count=1 oflag=direct 2>&1")
    host.create("data2")
    host.wait_active()
    host.down()
    for disk in ("data", "data2"):
        guest.disks[disk].copy_to(lab.folder / f"{disk}.img")
    oracle.check([lab.folder / "data.img", lab.folder / "data2.img"], [journal], require="none")


scenario_volumes_come_one_by_one.guests = 1
scenario_volumes_come_one_by_one.options = {"disks": disks(2)}


def scenario_log_wraps_many_times(lab):
    """A run many times as long as the ring: space is accounted for exactly, nothing stalls for ever."""
    host = alone(lab.hosts[0])
    writers = load.Load(host, seconds=10, writers=3, depth=16, readers=1,
                        blocks="4096x2,65536x2,1048576,unaligned", options="--fsync-every 30 --verify-at-end")
    done = writers.finish()
    ring = host.status()["ring_bytes"]
    assert done["bytes"] > 4 * ring, f"{done['bytes']} bytes went through a ring of {ring}: it did not wrap"
    print(f"note: {done['bytes'] / ring:.0f} laps")
    host.wait("empty log", lambda s: s["commit_seq"] == s["head_seq"])
    # A kill in a late lap is recovered like one in the first.
    writers = load.Load(host, seconds=60, writers=3, depth=16, blocks="4096x2,65536x2", seed=2)
    writers.wait_acked(200)
    lab.hosts[0].kill()
    journal = writers.save(lab.folder / "journal")
    host.boot()
    host.wait_active()
    host.down()
    lab.hosts[0].disks["data"].copy_to(lab.folder / "data.img")
    oracle.check([lab.folder / "data.img"], [journal])


scenario_log_wraps_many_times.guests = 1
scenario_log_wraps_many_times.options = {"disks": {"srl": 12 * MIB, "data": 32 * MIB}}


def scenario_fsync_over_write_through_data(lab):
    """The data disk has no cache and the log's has one: fsync must still reach the log's platter."""
    (first,) = lab.hosts
    host = alone(first)
    cache = first.sh("cat /sys/block/$(basename $(readlink -f /dev/lab/data))/queue/write_cache").strip()
    assert cache == "write through", f"the lab's data disk has a {cache} cache: nothing is tested"
    third = checker.boot(lab, {"srl": 64 * MIB, "data": 32 * MIB}, host.volumes)
    for seed in range(1, 7):
        writers = load.Load(host, seconds=60, writers=2, depth=2, seed=seed, options="--fsync-every 5")
        writers.wait_acked(100)
        journal = writers.save(lab.folder / f"journal-{seed}")
        if seed < 6:
            first.nbd(f"crash-image {seed} {lab.folder}")
            writers.stop()
            copies = {n: lab.folder / f"{n}.img" for n in first.disks}
        else:
            first.power_cut(seed)
            copies = {}
            for n in first.disks:
                copies[n] = lab.folder / f"cut-{n}.img"
                first.disks[n].copy_to(copies[n])
        third.take(copies, "primary")
        journals = [lab.folder / f"journal-{i}" for i in range(1, seed + 1)]
        found = oracle.check(third.images(), journals, require="durable")
        # The later rounds know of everything that the earlier ones wrote.
        writers.save(journal)
        print(f"note: seed {seed}: {found['visible']} visible")


scenario_fsync_over_write_through_data.guests = 1
scenario_fsync_over_write_through_data.options = {"disks": {
    "srl": {"size": 64 * MIB, "volatile": True, "bus": "scsi"},
    "data": {"size": 32 * MIB, "volatile": True, "write_through": True}}}


def scenario_fua_write_needs_no_flush(lab):
    """On a disk with FUA of its own a FUA write is durable by one FUA log write, and survives every cut."""
    (first,) = lab.hosts
    host = alone(first)
    disk = first.sh("basename $(readlink -f /dev/lab/srl)").strip()
    assert first.sh(f"cat /sys/block/{disk}/queue/fua").strip() == "1", "this disk has no FUA: nothing is tested"
    third = checker.boot(lab, {"srl": 64 * MIB, "data": 32 * MIB}, host.volumes)

    def stats() -> dict:
        return next(d for d in json.loads(first.nbd("stats")) if d["disk"] == "srl")

    before = stats()
    writers = load.Load(host, seconds=60, writers=1, depth=1, options="--fua-percent 100")
    writers.wait_acked(300)
    first.freeze()
    journal, after = writers.save(lab.folder / "journal"), stats()
    for seed in range(1, 5):
        first.nbd(f"crash-image {seed} {lab.folder}")
        third.take({n: lab.folder / f"{n}.img" for n in first.disks}, "primary")
        found = oracle.check(third.images(), [journal], require="acked")
    first.thaw()
    fua, flushes = (after[n] - before[n] for n in ("fua", "flushes"))
    print(f"note: {found['acked']} writes, {fua} with FUA, {flushes} flushes of the log's disk")
    assert fua >= 300 and flushes < fua // 4, (fua, flushes)


scenario_fua_write_needs_no_flush.guests = 1
scenario_fua_write_needs_no_flush.options = {"volatile": True, "bus": "nbd",
                                             "disks": {"srl": 64 * MIB, "data": 32 * MIB}}


def scenario_nothing_is_unkillable_when_the_log_stands_still(lab):
    """The log's disk answers nothing: suspend, reload and remove can be interrupted, and all goes on later."""
    host = alone(lab.hosts[0])
    guest = host.guest
    writers = load.Load(host, seconds=15, writers=2, depth=8)
    writers.wait_acked(50)
    guest.nbd("hang on srl")
    time.sleep(0.5)
    for command in ("dmsetup suspend db-data", "dmsetup suspend --noflush db-data",
                    "dmsetup remove --force db-data"):
        job = guest.spawn(f"exec {command}")
        time.sleep(0.7)
        if job.running():
            job.kill()
        # Killed means gone, not waiting for the disk in a way that no signal ends.
        rc = job.wait(20)
        print(f"note: {command}: {rc}")
        state = guest.sh("dmsetup info -c --noheadings -o suspended,tables_loaded db-data 2>&1; true")
        if "remove" not in command:
            guest.run("dmsetup resume db-data", timeout=20)
        print(f"  {state.strip()}")
    assert writers.job.running() or "remove" in command
    guest.nbd("hang off srl")
    writers.job.wait(60)
    guest.until("dmsetup remove --retry db-data 2>/dev/null; ! dmsetup info db-data 2>/dev/null", timeout=60)
    host.sh("dmrepl group del db")
    guest.sh("rmmod dm_replicate")


scenario_nothing_is_unkillable_when_the_log_stands_still.guests = 1
scenario_nothing_is_unkillable_when_the_log_stands_still.options = {"volatile": True}


def scenario_disk_errors(lab):
    """A failed log closes the group, a failed data device its volume: writers learn of it, reads stay
    right, and the next activation replays."""
    host = alone(lab.hosts[0])
    guest = host.guest
    events = host.events()
    writers = load.Load(host, seconds=20, writers=2, depth=4, options="--keep-going --fsync-every 10")
    writers.wait_acked(100)
    guest.nbd("fail write on srl")
    host.wait("failed", lambda s: s["state"] == "failed")
    guest.fails(f"dd if=/dev/zero of={host.dev()} bs=4k count=1 oflag=direct 2>&1", "error|Error")
    guest.sh(f"dd if={host.dev()} of=/dev/null bs=64k count=8 iflag=direct 2>&1")
    writers.stop()
    journal = writers.save(lab.folder / "journal")
    assert "log-failed" in events.text, events.text
    guest.nbd("fail write off srl")
    host.down()
    host.up()
    host.wait_active()
    guest.sh(f"dd if=/dev/zero of=/tmp/x bs=4k count=1; dd if={host.dev()} of=/dev/null bs=1M iflag=direct 2>&1")
    host.down()
    guest.disks["data"].copy_to(lab.folder / "data.img")
    oracle.check([lab.folder / "data.img"], [journal], require="durable")

    host.up()
    host.wait_active()
    guest.nbd("fail write on data")
    # The log takes it, so it completes; what cannot follow is the data device.
    guest.sh("dd if=/dev/urandom of=/tmp/new bs=16k count=1 2>&1")
    guest.sh(f"dd if=/tmp/new of={host.dev()} bs=16k count=1 seek=25 oflag=direct 2>&1")
    host.wait("volume failed", lambda s: s["volumes"][0]["state"] == "failed")
    guest.fails(f"dd if=/dev/zero of={host.dev()} bs=4k count=1 oflag=direct 2>&1", "error|Error")
    guest.nbd("fail write off data")
    host.down()
    host.up()
    host.wait_active()
    guest.sh(f"dd if={host.dev()} of=/tmp/again bs=16k count=1 skip=25 iflag=direct 2>&1 && cmp /tmp/new /tmp/again")


scenario_disk_errors.guests = 1
scenario_disk_errors.options = {"volatile": True}


def _with_bad_sectors(guest, *places: int) -> str:
    """The log's device, but that 4 KiB at each of these bytes can be neither read nor written."""
    size = int(guest.sh("blockdev --getsz /dev/lab/srl"))
    table, at = [], 0
    for first in [place // 512 for place in sorted(places)]:
        if first > at:
            table.append(f"{at} {first - at} linear /dev/lab/srl {at}")
        table.append(f"{first} 8 error")
        at = first + 8
    table.append(f"{at} {size - at} linear /dev/lab/srl {at}")
    guest.sh("printf '%s\\n' " + " ".join(f"'{t}'" for t in table) + " | dmsetup create bad")
    return "/dev/mapper/bad"


def scenario_a_sector_of_the_log_cannot_be_read(lab):
    """At the torn tail it is cut, and the host starts; where something shows that it was durable it is damage, named. One
    copy of the superblock is made good by the others, two are not."""
    host = alone(lab.hosts[0])
    guest = host.guest
    guest.sh(f"(dd if=/dev/urandom of={host.dev()} bs=4k count=20000 oflag=direct >/dev/null 2>&1 &) ; sleep 4")
    guest.reset()
    lines = [json.loads(x) for x in guest.sh("dmrepl srl dump --json /dev/lab/srl").splitlines()]
    lines = [x for x in lines if x.get("payload_offset")]
    assert len(lines) > 10, lines
    host.load()

    host.srl = _with_bad_sectors(guest, lines[0]["payload_offset"])
    guest.fails(f"dmrepl group add db --srl {host.srl} --secret-file /etc/dm-replicate/db.key 2>&1",
                f"record {lines[0]['seq']} .*cannot be read.*damaged")
    guest.sh("dmsetup remove bad")

    host.srl = _with_bad_sectors(guest, lines[-1]["payload_offset"])
    host.up()
    host.wait_active()
    assert f"the log ends after record {lines[-1]['seq'] - 1}:" in guest.sh("dmesg"), guest.sh("dmesg | tail")
    host.down()
    guest.sh("dmsetup remove bad")

    # Copies of the superblock: what a host acted on is in two of the four.
    copies = [int(n) for n in re.findall(r"superblock .* at byte (\d+)", guest.sh("dmrepl srl check /dev/lab/srl"))]
    assert len(copies) == 4, copies
    for two in ([copies[0], copies[1]], [copies[0], copies[2]]):
        host.srl = _with_bad_sectors(guest, *two)
        guest.fails(f"dmrepl group add db --srl {host.srl} --secret-file /etc/dm-replicate/db.key 2>&1",
                    "2 of the four copies of its superblock cannot be read.*nothing was changed")
        guest.sh("dmsetup remove bad")
    host.srl = _with_bad_sectors(guest, copies[0])
    host.up()
    host.wait_active()
    guest.sh(f"dd if=/dev/urandom of={host.dev()} bs=4k count=100 oflag=direct 2>&1")
    host.wait("degraded", lambda s: s.get("reason") == "srl-degraded")
    host.down()
    guest.sh("dmsetup remove bad")


scenario_a_sector_of_the_log_cannot_be_read.guests = 1
