# SPDX-License-Identifier: GPL-2.0
"""Boots the test kernel, loads the module, and prints what its tests said.

A suite that is in the source and did not run is a failure: with CONFIG_KUNIT off or a suite left out
by a mistake, tests vanish without a word.
"""

import argparse
import pathlib
import re
import sys
import time

from lab import image, paths
from lab.guest import Guest
from lab.lab import Lab

from . import ktap

TIMEOUT = 600


def declared(source_tree: pathlib.Path) -> set:
    """The suites that the source has, from the copy that was built."""
    pattern = re.compile(r"kunit_tests\(\s*(\w+)\s*\)")
    found = set()
    for source in (source_tree / "rust").rglob("*.rs"):
        if source.name.endswith("_generated.rs"):
            continue
        for line in source.read_text().splitlines():
            if not line.lstrip().startswith("//"):
                found.update(pattern.findall(line))
    return found


def run(kind: str, kdir: pathlib.Path, chosen: str) -> int:
    start = time.monotonic()
    lab = Lab(kind, variant=kind)
    guest = lab.add(Guest("kunit", 0, lab.folder, lab.image(), [], memory=1024, cpus=2,
                          kernel=kdir / "arch/x86/boot/bzImage",
                          append="loglevel=8 kunit.enable=1 kunit.autorun=1"
                                 + (f" kunit.filter_glob={chosen}" if chosen else "")))
    complaints = []
    try:
        guest.start().wait_boot()
        # What boot itself has left is not ours.
        guest.run("echo clear >/sys/kernel/debug/kmemleak")
        # Packets of the loopback device are freed at once, not when the CPU that sent them has its
        # next one: a test waits for their pages.
        guest.sh("echo 0 >/proc/sys/net/core/skb_defer_max")
        rc, out = guest.run("insmod /root/dm_replicate.ko", timeout=TIMEOUT)
        if rc != 0:
            complaints.append(f"insmod ended with {rc}: {out.strip()}")
        else:
            # Once while the module is there to give its functions' names, once without it.
            lost = guest.leaks()
            guest.sh("rmmod dm_replicate", timeout=120)
            complaints += lost or guest.leaks()
    except Exception as error:  # whatever broke, the report must say what ran until then
        complaints.append(f"{type(error).__name__}: {error}")
    console = guest.console_text()
    complaints += lab.close()

    results, broken = ktap.parse(console)
    complaints += broken
    if not chosen:
        for suite in sorted(declared(paths.BUILD / kind) - {r.suite for r in results}):
            complaints.append(f"suite {suite} is in the source and did not run")

    for result in results:
        print(f"{result.verdict:8}{result.name}")
        if result.verdict == "failed":
            print(result.words)
    for complaint in complaints:
        print(f"failed  {kind}: {complaint}")
    count = {v: sum(r.verdict == v for r in results) for v in ("passed", "failed", "skipped")}
    if not results and not complaints:
        complaints.append("no test ran")
    count["failed"] += len(complaints)
    print(f"{kind}: {time.monotonic() - start:.0f} s; console: {lab.logs}/kunit.console")
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return 1 if count["failed"] else 0


def main():
    parser = argparse.ArgumentParser(prog="tests/kunit/run")
    parser.add_argument("kind")
    parser.add_argument("kdir", type=pathlib.Path)
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--filter", default="", metavar="SUITE.TEST")
    options = parser.parse_args()
    image.base()
    sys.exit(run(options.kind, options.kdir, options.filter))


main()
