# SPDX-License-Identifier: GPL-2.0
"""Where things lie inside the build root."""

import os
import pathlib
import subprocess

TOP = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("DMREPL_CACHE", "/cache"))
LOGS = CACHE / "logs"
BUILD = CACHE / "build"
STATIC = CACHE / "target" / "x86_64-unknown-linux-gnu" / "release"
MARK = pathlib.Path("/etc/dm-replicate-root")

# The build folder of the kernel with KASAN and the like, which has every driver built in, when guests are to boot that
# one (scripts/test --debug), and how much slower it is: limits of time are that much longer, and memory is twice as much.
DEBUG = os.environ.get("LAB_DEBUG")
SLOW = 6 if DEBUG else 1


def release() -> str:
    """The release of the stock kernel that the guests boot."""
    return pathlib.Path("/etc/dm-replicate-kernel").read_text().strip()


def stock_kernel() -> pathlib.Path:
    return pathlib.Path("/boot/vmlinuz-" + release())


def kernel() -> pathlib.Path:
    return pathlib.Path(DEBUG, "arch/x86/boot/bzImage") if DEBUG else stock_kernel()


def module(variant: str = "plain") -> pathlib.Path:
    """The module for guests as scripts/build makes it; a variant is a mutation's name."""
    if DEBUG and variant == "plain":
        variant = "kunit-debug"
    whole = BUILD / variant / "dm_replicate.ko"
    stripped = BUILD / variant / "guest" / "dm_replicate.ko"
    if stripped.exists() and stripped.stat().st_mtime >= whole.stat().st_mtime:
        return stripped
    return whole


def require_root():
    if not MARK.exists():
        raise SystemExit("the lab runs inside the build root: scripts/in-root python3 ...")


def output(*command: str) -> str:
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
