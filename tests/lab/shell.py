# SPDX-License-Identifier: GPL-2.0
"""make lab: guests with a shell on each, for people."""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile

import pathlib

from . import paths
from .lab import MIB, Lab

ATTACH = "socat -,raw,echo=0,escape=0x1d UNIX-CONNECT:{}"

WORDS = """\
Two hosts: a is 10.0.0.1, b is 10.0.0.2. On each: /dev/lab/srl, /dev/lab/data, the module in
/root/dm_replicate.ko (insmod it), dmrepl, dmsetup, fio, mkfs.ext4, mkfs.xfs, tc, nvme, drbdadm.
"""


def tmux(guests: list):
    """Side by side in one terminal; returns when the session ends."""
    session = ["tmux", "-f", "/dev/null", "-L", "dm-replicate"]
    first = True
    for guest in guests:
        attach = ATTACH.format(shlex.quote(str(guest._tty)))
        verb = ["new-session", "-d", "-s", "lab"] if first else ["split-window", "-h", "-t", "lab"]
        subprocess.run(session + verb + [attach], check=True)
        first = False
    for setting in (["set-option", "-g", "mouse", "on"],
                    ["set-option", "-g", "status-right", "Ctrl-b arrow: other host, Ctrl-b d: end"],
                    ["select-layout", "-t", "lab", "even-horizontal"]):
        subprocess.run(session + setting, check=True)
    for guest in guests:
        # A first Enter makes the waiting shell show its prompt.
        subprocess.run(session + ["send-keys", "-t", f"lab.{guests.index(guest)}", "Enter"], check=True)
    subprocess.run(session + ["attach", "-t", "lab"], check=False)
    subprocess.run(session + ["kill-server"], check=False, stderr=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(prog="scripts/lab")
    parser.add_argument("--guests", type=int, default=2)
    parser.add_argument("--volatile", action="store_true", help="disks with a volatile write cache")
    options = parser.parse_args()

    # In the cache, so that the sockets can be found from outside of the root.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lab-", dir=paths.CACHE))
    lab = Lab("lab", folder=folder)
    try:
        print("booting...", file=sys.stderr)
        guests = lab.guests(options.guests, disks={"srl": 128 * MIB, "data": 512 * MIB},
                            volatile=options.volatile, tty=True)
        print(WORDS)
        if sys.stdin.isatty() and sys.stdout.isatty():
            tmux(guests)
        else:
            outside = os.environ.get("LAB_OUTSIDE", str(paths.CACHE))
            for guest in guests:
                place = f"{outside}/{guest._tty.relative_to(paths.CACHE)}"
                print(f"{guest.name}: {ATTACH.format(shlex.quote(place))}   (Ctrl-] leaves)")
            print("The lab ends with this command's input (Ctrl-D).", flush=True)
            sys.stdin.read()
    finally:
        for fault in lab.close():
            print(fault, file=sys.stderr)


main()
