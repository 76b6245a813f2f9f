# SPDX-License-Identifier: GPL-2.0
"""make demo: two hosts, a filesystem with real files under load, the power of the primary cut, the
secondary taken over, every file compared. Shows each command as its user types it; every number in the
closing line is counted or measured.

Run by scripts/demo in the build root; also a (long) scenario.
"""

import json
import sys
import time
import traceback

from lab import accel, paths
from lab.lab import MIB, Lab

from scenarios.kit import files, load, oracle
from scenarios.kit.host import Host
from scenarios.kit.pair import LINK

SIZE, SRL = 96 * MIB, 256 * MIB
VOLUMES = {"files": "files", "ledger": "ledger"}
LOAD_SECONDS = 15


class Stage:
    """What the audience sees."""

    def __init__(self):
        self.begun = time.monotonic()

    def say(self, words: str):
        print(f"\n== [{time.monotonic() - self.begun:5.1f} s] {words}", flush=True)

    def command(self, host, command: str, output: str):
        if command is not None:
            print(f"{host.name}# {command}", flush=True)
        for line in (output or "").rstrip().splitlines():
            print(f"     {line}", flush=True)


def play(lab, stage: Stage) -> str:
    """The whole play; its closing words."""
    stage.say(f"booting two hosts on the stock kernel {paths.release()} ({accel.name()})")
    tree = files.Tree(lab.folder)
    layout = {n: {"size": SRL if n == "srl" else SIZE, "volatile": True} for n in ("srl", *VOLUMES)}
    guests = lab.guests(2, disks=[{**layout, **tree.give(lab.folder, g)} for g in "ab"])
    a = Host(guests[0], "primary", volumes=VOLUMES, say=stage.command)
    b = Host(guests[1], "secondary", volumes=VOLUMES, say=stage.command)

    stage.say("each host: the module, a log, the group, its volumes")
    for host in (a, b):
        host.load()
        host.format()
        host.group_add()
        host.create()
    stage.say("the application comes first: a filesystem with some files, before there is any replica")
    a.wait_active()
    a.sh(f"mkfs.ext4 -q {a.dev('files')}")
    a.sh(f"mkdir -p /mnt/db && mount {a.dev('files')} /mnt/db")
    copier = files.Copier(a.guest, "/mnt/db/tree")
    copier.wait(20, 120)

    stage.say("join them, synchronously, and copy everything while the application goes on")
    b.link_add(LINK, a, "received")
    a.link_add(LINK, b, "received")
    a.wait_link(LINK, "needs-sync")
    a.sync(LINK, "full")
    a.wait_link(LINK, "streaming", timeout=120)
    a.wait_in_sync()
    b.wait_replica()

    stage.say(f"in-sync; {LOAD_SECONDS} s of load: files one by one on the filesystem, stamped writes beside them")
    writers = load.Load(a, devices=[a.dev("ledger")], seconds=600, writers=3, depth=4,
                        options="--fsync-every 25 --fua-percent 5")
    end = time.monotonic() + LOAD_SECONDS
    while time.monotonic() < end and (copier.job.running() and writers.job.running()):
        time.sleep(0.2)
    assert writers.job.running(), f"the writers ended early: {writers.words()}"
    a.sh("dmrepl status")

    stage.say("cutting the power of a, for good")
    synced = a.link(LINK).get("in_sync")
    a.guest.power_cut(seed=2026)
    journal = writers.save(lab.folder / "journal")
    durable, acked = copier.durable(), writers.acked()
    assert synced, "the link was not in-sync when the power was cut"
    print(f"     a had acknowledged {acked} stamped writes and {durable} whole files")

    b.wait_link(LINK, "connecting", timeout=30)
    stage.say("the secondary notices, and takes over")
    start = time.monotonic()
    b.takeover()
    b.guest.sh(f"dd if={b.dev('ledger')} of=/tmp/s bs=4k count=1 iflag=direct 2>/dev/null && "
               f"dd if=/tmp/s of={b.dev('ledger')} bs=4k count=1 oflag=direct 2>/dev/null")
    seconds = time.monotonic() - start
    b.sh(f"mkdir -p /mnt/db && mount {b.dev('files')} /mnt/db")
    b.sh("dmrepl status")

    stage.say("comparing every file, and every stamped write that was acknowledged")
    found = files.compare(b.guest, "/mnt/db/tree", tree, durable)
    b.guest.sh("umount /mnt/db")
    files.check_filesystem(b.guest, "ext4", b.dev("files"))
    b.down()
    images = {}
    for disk in ("srl", *VOLUMES):
        images[disk] = lab.folder / f"after-{disk}.img"
        b.guest.disks[disk].copy_to(images[disk])
    verdict = oracle.check([images["ledger"]], [journal], require="acked")
    assert verdict["acked_lost"] == 0, verdict
    print(f"     {found} files are equal ({durable} had been acknowledged), the filesystem is in order")
    print(f"     {verdict['acked']} acknowledged stamped writes are there")
    writes, size = replicated(images["srl"])
    return (f"{writes} writes, {size / MIB:.0f} MiB, {verdict['acked_lost']} acknowledged writes lost, "
            f"takeover in {seconds:.1f} s")


def replicated(srl) -> tuple:
    """Writes and bytes that reached the replica, counted in its own log."""
    writes = size = 0
    for line in oracle.dump(srl).read_text().splitlines():
        record = json.loads(line)
        if record["state"] != "cut":
            writes += 1
            size += record["sectors"] * 512
    return writes, size


def main():
    stage = Stage()
    try:
        with Lab("demo") as lab:
            words = play(lab, stage)
    except BaseException as why:  # whatever it was, the closing line says it
        traceback.print_exc()
        reason = next((x for x in str(why).splitlines() if x.strip()), type(why).__name__)
        print(f"\ndemo: FAIL {reason}", flush=True)
        sys.exit(1)
    print(f"\ndemo: PASS {words}", flush=True)


def scenario_demo(lab):
    """The play of make demo."""
    print(f"note: {play(lab, Stage())}")


scenario_demo.guests = 0
scenario_demo.long = True

if __name__ == "__main__":
    main()
