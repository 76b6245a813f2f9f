# SPDX-License-Identifier: GPL-2.0
"""Programs that others wrote to find faults in filesystems and block devices, run through the target while the link
streams and the primary's volumes are suspended, resumed and reloaded all the time; the replica equals the primary
afterwards. fsx and fsstress are built by scripts/build foreign."""

import os
import subprocess
import time

from lab import paths
from lab.lab import MIB
from lab.runner import Skip

from scenarios.kit import files, pair
from scenarios.kit.host import brief
from scenarios.kit.kills import SEED
from scenarios.kit.pair import Pair

# Weights of fsx's operations on a file, and on a block device, which has no size to change and takes holes of whole
# sectors only.
ON_FILES = """
flen = 4194304
[opsize]
max = 131072
[weights]
close_open = 1
invalidate = 1
mapread = 4
mapwrite = 4
read = 8
write = 12
truncate = 3
fsync = 1
fdatasync = 1
posix_fallocate = 2
punch_hole = 3
sendfile = 2
copy_file_range = 3
"""
ON_DEVICE = """
flen = 8388608
blockmode = true
[opsize]
max = 131072
[weights]
invalidate = 1
mapread = 4
mapwrite = 4
read = 8
write = 12
truncate = 0
fsync = 1
fdatasync = 1
sendfile = 2
"""

# fio's engines with direct I/O, each with a part of the raw volume to itself; and mmap, on a file: of a block device
# fio's verification of what it wrote by mmap fails without a target below it, too.
ENGINES = {"psync": "--fdatasync=16", "libaio": "--iodepth=16 --fsync=64",
           "io_uring": "--iodepth=16 --fdatasync=32"}
FIO = ("fio --name={engine} --filename={file} --ioengine={engine} --rw=randwrite {how} --size={size}m "
       "--io_size={amount}m --verify=crc32c --verify_fatal=1 --do_verify=1 --verify_backlog=256 --randseed={seed} 2>&1")
TRIM = ("fio --name=trim --filename={file} --ioengine=libaio --direct=1 --iodepth=8 --rw=randtrimwrite --bs=16k "
        "--offset={offset}m --size={size}m --io_size={amount}m --fdatasync=32 --randseed={seed} 2>&1")

# Suspends of both kinds and table reloads, volume after volume, until it is told to stop.
RELOADS = """
n=0
while [ ! -e /run/enough ]; do
	for v in {volumes}; do
		dmsetup suspend $v && dmsetup resume $v || exit 1
		dmsetup load $v --table "$(dmsetup table --showkeys $v)" && dmsetup resume $v || exit 1
		dmsetup suspend --noflush --nolockfs $v && dmsetup resume $v || exit 1
		n=$((n + 1))
		usleep {pause}
	done
done
echo $n
"""


def _programs(guest):
    """The programs, in the guest's memory."""
    for name in ("fsx", "fsstress"):
        guest.put(f"/run/{name}", paths.CACHE / "foreign" / name, mode="755")
    guest.put("/run/files.toml", ON_FILES)
    guest.put("/run/device.toml", ON_DEVICE)


def _build():
    """Makes the programs, once."""
    done = subprocess.run([str(paths.TOP / "scripts/build"), "foreign"], text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode == os.EX_TEMPFAIL:
        raise Skip("the sources of fsx and fsstress cannot be reached")
    assert done.returncode == 0, done.stdout[-3000:]


class Foreign:
    """A pair with an ext4, an xfs and a raw volume, and what runs on them."""

    def __init__(self, lab, seed: int, bus: str = "virtio", block: int = 512, **options):
        layout = {**pair.disks(3, 64 * MIB, 192 * MIB), "data2": 320 * MIB}
        guests = lab.guests(2, disks=layout, bus=bus, block=block)
        self.p = Pair(guests, 3, **options).configure()
        self.a, self.seed, self.block = self.p.a, seed, block
        self.jobs = []
        self.mounts = {"ext4": "data", "xfs": "data2"}
        _programs(self.a.guest)
        self.a.guest.run("modprobe -q xfs")
        for kind, volume in self.mounts.items():
            dev = self.a.dev(volume)
            self.a.guest.sh(f"{files.mkfs(kind, dev)} && mkdir -p /mnt/{kind} && mount -o discard {dev} /mnt/{kind}")
        print(f"seed: {seed}", flush=True)

    def start(self, name: str, command: str):
        self.jobs.append((name, self.a.guest.spawn(command)))

    def run(self, operations: int, amount: int, timeout: float):
        """`operations` of fsx on each filesystem, a fifth of that of fsstress; `amount` MiB of each of fio's engines.
        Returns how often volumes were suspended and reloaded."""
        a, seed = self.a, self.seed
        fsx = f"/run/fsx -N {operations} -P /run"
        for n, kind in enumerate(self.mounts):
            at = f"/mnt/{kind}"
            self.start(f"fsx on {kind}", f"{fsx} -S {seed + n} -f /run/files.toml {at}/fsx 2>&1")
            self.start(f"fsstress on {kind}", f"mkdir {at}/s && /run/fsstress -d {at}/s -p 3 -n {operations // 5} "
                                              f"-s {seed + n} 2>&1")
        dev = a.dev("data3")
        self.start("fsx on the device", f"{fsx} -S {seed} -f /run/device.toml {dev} 2>&1")
        for n, (engine, how) in enumerate(ENGINES.items()):
            how += f" --direct=1 --bsrange={self.block}-64k --offset={8 * (n + 1)}m"
            self.start(f"fio {engine}", FIO.format(engine=engine, how=how, file=dev, size=8, amount=amount,
                                                   seed=seed + n))
        self.start("fio mmap", FIO.format(engine="mmap", how="--bs=4k --fsync=32", file="/mnt/xfs/mapped", size=8,
                                          amount=amount, seed=seed))
        self.start("fio trim", TRIM.format(file=dev, offset=40, size=8, amount=amount // 2, seed=seed))
        reloads = a.guest.spawn(RELOADS.format(volumes=" ".join(f"db-{v}" for v in a.volumes), pause=300000))
        begun, left = time.monotonic(), dict(self.jobs)
        while left:
            for name, job in [(n, j) for n, j in left.items() if not j.running()]:
                assert job.rc == 0, f"{name} ended with {job.rc}: {job.text[:1500]}\n{brief(a.status())}"
                print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
                del left[name]
            if time.monotonic() > begun + timeout:
                raise AssertionError(f"not done within {timeout} s: {', '.join(left)}\n{self.stuck()}")
            assert reloads.running(), f"suspends and reloads ended: {reloads.text[-2000:]}"
            time.sleep(0.2)
        a.guest.sh("touch /run/enough")
        assert reloads.wait(60) == 0, reloads.text[-2000:]
        return int(reloads.text.split()[-1])

    def stuck(self) -> str:
        """What waits in the kernel, and the group."""
        return f"{self.a.stuck()}\n{self.p.b.stuck()}"

    def end(self):
        """Unmounts; the replica is the same, and the filesystems are in order."""
        for kind in self.mounts:
            self.a.guest.sh(f"umount /mnt/{kind}", timeout=120)
        self.p.same()
        for kind, volume in self.mounts.items():
            files.check_filesystem(self.a.guest, kind, self.a.dev(volume))
        for host in self.p.hosts:
            assert host.status()["state"] != "failed", host.status()


def _all(lab, operations: int, amount: int, timeout: float, **options):
    _build()
    f = Foreign(lab, SEED % (1 << 16), **options)
    reloads = f.run(operations, amount, timeout)
    f.end()
    print(f"note: {reloads} rounds of suspends and reloads, {f.a.status()['head_seq']} records")


def scenario_filesystems_and_fio(lab):
    """fsx and fsstress on ext4 and xfs, fio with several engines and trims; writers wait for the peer."""
    _all(lab, 250, 4, 600, mode="received")


scenario_filesystems_and_fio.guests = 0
# With an empty cache the programs are built first.
scenario_filesystems_and_fio.timeout = 1200
scenario_filesystems_and_fio.long = True
