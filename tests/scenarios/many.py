# SPDX-License-Identifier: GPL-2.0
"""Many objects at once: links and volumes of a group, to as many groups of another host."""

import json
import time

from lab.lab import MIB

from scenarios.kit import load, rawclient
from scenarios.kit.host import KEY, PORT, SECRET, Host, brief

# A volume of the primary, and each of its replicas.
SIZE = 1 * MIB
SRL = 16 * MIB
POOL = "--pool 8M"


class Many:
    """A primary's group on one guest, and a group for each of its links on another."""

    def __init__(self, lab, links: int, volumes: int, memory: int):
        self.volumes = [f"v{i}" for i in range(volumes)]
        self.links = [f"l{i}" for i in range(links)]
        self.part = volumes * SIZE
        sizes = [{"srl": 64 * MIB, "data": self.part}, {"srl": links * SRL, "data": links * self.part}]
        self.a, self.b = lab.guests(2, disks=sizes, memory=memory)
        self.host = Host(self.a, "primary", volumes={v: f"/dev/mapper/d0-{v}" for v in self.volumes})
        self.before = [rawclient.kernel_memory(g) for g in (self.a, self.b)]
        for guest in (self.a, self.b):
            guest.run("modprobe -q dm-mod")
            guest.sh("insmod /root/dm_replicate.ko")
            guest.put(KEY.format("db"), SECRET + "\n", mode="600")

    def create(self, guest, lines: list):
        """Devices by `dmsetup create --concise`: (name, table) each."""
        guest.put("/run/concise", ";".join(f"{name},,,rw,{table}" for name, table in lines))
        guest.sh('dmsetup create --concise "$(cat /run/concise)"', timeout=300)

    def cut(self, guest, number: int):
        """The data devices of group `number`, cut from the disk."""
        sectors, first = SIZE // 512, number * self.part // 512
        self.create(guest, [(f"d{number}-{v}", f"0 {sectors} linear /dev/lab/data {first + i * sectors}")
                            for i, v in enumerate(self.volumes)])

    def group(self, guest, number: int, name: str, srl: str, role: str, options: str):
        self.cut(guest, number)
        guest.sh(f"dmrepl srl format {srl} {options} && "
                 f"dmrepl group add {name} --srl {srl} --role {role} --secret-file {KEY.format('db')} {POOL}")
        sectors = SIZE // 512
        self.create(guest, [(f"{name}-{v}", f"0 {sectors} replicate {name} {v} /dev/mapper/d{number}-{v}")
                            for v in self.volumes])

    def configure(self):
        began = time.monotonic()
        srl = SRL // 512
        self.create(self.b, [(f"srl{i}", f"0 {srl} linear /dev/lab/srl {i * srl}") for i in range(len(self.links))])
        self.group(self.a, 0, "db", "/dev/lab/srl", "primary", "")
        for i, link in enumerate(self.links):
            self.group(self.b, i, f"g{i}", f"/dev/mapper/srl{i}", "secondary", "" if i % 2 else "--no-ring")
            local, peer = f"{self.a.address}:{PORT}", f"{self.b.address}:{PORT + 1 + i}"
            mode = ("async", "received", "async", "logged")[i % 4]
            how = f"--mode {mode} --heartbeat 2s --peer-timeout 60s --window 5M"
            self.b.sh(f"dmrepl link add g{i} {link} --local {peer} --peer {local} {how}")
            self.a.sh(f"dmrepl link add db {link} --local {local} --peer {peer} {how}")
        print(f"note: configured in {time.monotonic() - began:.0f} s", flush=True)
        self.all("needs-sync", "catching-up", "streaming")
        for link in self.links:
            self.a.sh(f"dmrepl sync db {link} --assume-clean")
        self.all("streaming")
        self.host.wait_active()

    def all(self, *states: str, timeout: float = 180) -> dict:
        return self.host.wait(f"all links {states}", lambda s: len(s["links"]) == len(self.links) and all(
            link["state"] in states for link in s["links"]), timeout, every=1)

    def remove(self, guest, names: list):
        guest.sh(f"dmsetup remove {' '.join(names)}", timeout=300)


def _many(lab, links: int, volumes: int, writes: int, memory: int = 1024):
    m = Many(lab, links, volumes, memory)
    m.configure()
    connects = {link["name"]: link["stats"]["connects"] for link in m.host.status()["links"]}
    writers = load.Load(m.host, seconds=1000, writers=2, depth=8, options="--fsync-every 50")
    writers.wait_acked(writes, timeout=240)
    writers.stop()
    status = m.host.wait("drained", lambda s: all(
        x["state"] == "streaming" and x.get("applied_seq") == s["head_seq"] for x in s["links"]), 240, every=1)
    assert len(status["volumes"]) == volumes, status["volumes"]
    for link in status["links"]:
        assert link["mode"] == "async" or link.get("in_sync"), brief(status)
        assert link["stats"]["connects"] == connects[link["name"]], f"{link['name']} lost its connection: {brief(status)}"
    theirs = json.loads(m.b.sh("dmrepl status --json"))["groups"]
    assert len(theirs) == links and all(g["replica_state"] == "consistent" and len(g["volumes"]) == volumes
                                        for g in theirs), [brief(g) for g in theirs]
    words = m.a.sh("dmrepl status")
    assert all(x in words for x in (*m.links, *m.volumes)), words[-3000:]
    print(f"note: {writers.acked()} writes", flush=True)
    # Everything goes, also the links of a group that has volumes; what a replica holds is on its disk.
    began = time.monotonic()
    for i, link in enumerate(m.links):
        m.a.sh(f"dmrepl link del db {link}")
        m.b.sh(f"dmrepl link del g{i} {link}")
    m.remove(m.a, [f"db-{v}" for v in m.volumes])
    m.a.sh("dmrepl group del db && rmmod dm_replicate", timeout=120)
    for i in range(links):
        m.remove(m.b, [f"g{i}-{v}" for v in m.volumes])
        m.b.sh(f"dmrepl group del g{i}", timeout=120)
    m.b.sh("rmmod dm_replicate", timeout=120)
    print(f"note: removed in {time.monotonic() - began:.0f} s", flush=True)
    sums = m.b.sh(f"for i in $(seq 0 {links - 1}); do dd if=/dev/lab/data bs=1M skip=$((i * {m.part // MIB})) "
                  f"count={m.part // MIB} iflag=direct 2>/dev/null | md5sum; done", timeout=300).split()[::2]
    mine = m.a.sh("dd if=/dev/lab/data bs=1M iflag=direct 2>/dev/null | md5sum", timeout=120).split()[0]
    wrong = [link for link, found in zip(m.links, sums) if found != mine]
    assert not wrong, f"replicas differ: {wrong}"
    after = [rawclient.kernel_memory(g) for g in (m.a, m.b)]
    for was, now in zip(m.before, after):
        # Eight groups keep more than that while they are there.
        assert now["slab"] < was["slab"] + 32768 and now["available"] > was["available"] - 49152, (was, now)


def scenario_eight_links_of_eight_volumes(lab):
    """8 links × 8 volumes: streaming and in-sync under load, shown, equal, removed."""
    _many(lab, 8, 8, 200)


scenario_eight_links_of_eight_volumes.guests = 0
