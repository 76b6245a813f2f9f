# SPDX-License-Identifier: GPL-2.0
"""Whether KVM works here. /dev/kvm may exist and still not run a guest, so one is booted to see."""

import functools
import os
import pathlib
import subprocess
import tempfile

from . import paths

# What TCG emulates slower than the code that the kernel has without it: string instructions go byte by byte, crc32
# bit by bit.
TCG = ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,la57=off,-erms,-fsrm,-sse4.2"]
KVM = ["-accel", "kvm", "-cpu", "host"]


def _kvm_boots() -> bool:
    """Boots the stock kernel without a root: it panics within a second where KVM works."""
    with tempfile.TemporaryDirectory(prefix="kvm-") as folder:
        log = pathlib.Path(folder) / "console"
        command = ["qemu-system-x86_64", *KVM, "-machine", "q35", "-m", "512", "-nodefaults",
                   "-display", "none", "-no-reboot", "-serial", f"file:{log}",
                   "-kernel", str(paths.stock_kernel()), "-append", "console=ttyS0 panic=-1"]
        try:
            subprocess.run(command, timeout=20, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, check=False)
        except subprocess.TimeoutExpired:
            return False
        return log.exists() and "Linux version" in log.read_text(errors="replace")


@functools.lru_cache(maxsize=None)
def arguments() -> list:
    """QEMU's arguments for the accelerator; LAB_ACCEL=tcg or kvm decides by hand."""
    wanted = os.environ.get("LAB_ACCEL")
    if wanted in ("tcg", "kvm"):
        return KVM if wanted == "kvm" else TCG
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    verdict = paths.CACHE / f"accel-{boot}"
    if not verdict.exists():
        works = os.access("/dev/kvm", os.R_OK | os.W_OK) and _kvm_boots()
        verdict.write_text("kvm" if works else "tcg")
    return KVM if verdict.read_text() == "kvm" else TCG


def name() -> str:
    return arguments()[1].split(",")[0]
