# SPDX-License-Identifier: GPL-2.0
"""Whether KVM works here, and how fast the time stamp counter runs when it does not.

/dev/kvm may exist and still not run a guest, so one is booted to see. Under emulation the counter is this machine's
own, and a kernel that measures it while QEMU waits for a processor may find it twenty times too slow: its time then
runs twenty times too fast until a watchdog notices. So it is measured once, and guests are told.
"""

import functools
import os
import pathlib
import re
import subprocess
import tempfile
import time

from . import paths

# What TCG emulates slower than the code that the kernel has without it: string instructions go byte by byte, crc32
# bit by bit.
TCG = ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,la57=off,-erms,-fsrm,-sse4.2"]
KVM = ["-accel", "kvm", "-cpu", "host"]


# What two measurements of the counter may differ by, and how many there may be.
TSC_TOLERANCE, TSC_TRIES = 0.002, 8


def _boots(accelerator: list, until: str) -> str:
    """Boots the stock kernel without a root, which panics soon; its console as far as /until/, or for 20 s."""
    with tempfile.TemporaryDirectory(prefix="boot-") as folder:
        log = pathlib.Path(folder) / "console"
        command = ["qemu-system-x86_64", *accelerator, "-machine", "q35", "-m", "512", "-nodefaults",
                   "-display", "none", "-no-reboot", "-serial", f"file:{log}",
                   "-kernel", str(paths.stock_kernel()), "-append", "console=ttyS0 loglevel=8 panic=-1"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as qemu:
            end = time.monotonic() + 20
            text = ""
            while not re.search(until, text) and time.monotonic() < end:
                over = qemu.poll() is not None
                text = log.read_text(errors="replace") if log.exists() else ""
                if over:
                    break
                time.sleep(0.05)
            qemu.kill()
        return text


def _remembered(what: str, find) -> str:
    """What was found out since this machine was booted, or is now."""
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    place = paths.CACHE / f"{what}-{boot}"
    if not place.exists():
        # Several scenarios may find it out at a time.
        mine = place.with_suffix(f".{os.getpid()}")
        mine.write_text(find())
        mine.rename(place)
    return place.read_text()


def _accelerator() -> str:
    works = os.access("/dev/kvm", os.R_OK | os.W_OK) and "Linux version" in _boots(KVM, "Linux version")
    return "kvm" if works else "tcg"


@functools.lru_cache(maxsize=None)
def arguments() -> list:
    """QEMU's arguments for the accelerator; LAB_ACCEL=tcg or kvm decides by hand."""
    wanted = os.environ.get("LAB_ACCEL")
    if wanted not in ("tcg", "kvm"):
        wanted = _remembered("accel", _accelerator)
    return KVM if wanted == "kvm" else TCG


def _tsc_khz() -> str:
    """The frequency that two boots in a row agree on; nothing when none do."""
    last = 0.0
    for _ in range(TSC_TRIES):
        found = re.search(r"tsc: Detected ([0-9.]+) MHz", _boots(TCG, "tsc: Detected .*MHz"))
        khz = float(found.group(1)) * 1000 if found else 0.0
        if khz and abs(khz - last) < khz * TSC_TOLERANCE:
            return f"{(khz + last) / 2:.0f}"
        last = khz
    return ""


@functools.lru_cache(maxsize=None)
def clock() -> str:
    """The kernel's parameters for the time stamp counter."""
    if arguments() is KVM:
        return ""
    khz = _remembered("tsc", _tsc_khz)
    # The counter is sound, but reads of what it is compared to are emulated and late: it would be given up.
    return f"tsc=reliable tsc_early_khz={khz}" if khz else ""


def name() -> str:
    return arguments()[1].split(",")[0]
