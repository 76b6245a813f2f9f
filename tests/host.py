# SPDX-License-Identifier: GPL-2.0
"""Runs the tests that need no kernel (cargo test of each crate) and counts them.

Built with optimisation and with debug assertions and overflow checks on: the explorer needs the
speed, and an overflow must not pass as a number.
"""

import json
import os
import re
import subprocess
import sys
import time

RUNNING = re.compile(r"^\s*(?:Running|Doc-tests) (\S+)(?: \((\S+)\))?")
TEST = re.compile(r"^test (.+?)(?: - should panic)? \.\.\. (ok|FAILED|ignored)(?:, .*)?$")
# What an explorer's run prints of itself.
STATES = re.compile(r"^\S.* \d+ states +\d+ steps")
WORDS = {"ok": "passed", "FAILED": "failed", "ignored": "skipped"}


def packages() -> list:
    """The workspace's crates: one that does not build must not hide the tests of the others."""
    done = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version", "1"], check=True,
                          stdout=subprocess.PIPE)
    return sorted(p["name"] for p in json.loads(done.stdout)["packages"])


def run(package: str, count: dict):
    """Tests one crate, printing each result."""
    command = ["cargo", "test", "-p", package, "--profile", "explore", "--no-fail-fast",
               "--color", "never", "--", "--show-output", *sys.argv[1:]]
    start = time.monotonic()
    failures = count["failed"]
    where, tail = package, []
    # Not /tmp, which is a tmpfs in the build root: files there lack what disks have.
    scratch = os.path.join(os.environ.get("DMREPL_CACHE", "/var/tmp"), "tmp")
    os.makedirs(scratch, exist_ok=True)
    child = subprocess.Popen(command, text=True, env={**os.environ, "TMPDIR": scratch}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             errors="replace")
    for line in child.stdout:
        line = line.rstrip("\n")
        if match := RUNNING.match(line):
            # target/explore/deps/dmrepl-0123abcd -> dmrepl
            binary = (match[2] or match[1]).rsplit("/", 1)[-1]
            where = re.sub(r"-[0-9a-f]{16}$", "", binary)
        elif match := TEST.search(line):
            verdict = WORDS[match[2]]
            count[verdict] += 1
            print(f"{verdict:8}{where}: {match[1]}", flush=True)
        elif STATES.match(line):
            print(f"        {line}", flush=True)
        elif line.startswith("note:") and "backtrace" not in line and "RUST_BACKTRACE" not in line:
            # A test's own figures, as how many states were seen.
            print(f"        {line}", flush=True)
        tail = (tail + [line])[-200:]
    code = child.wait()
    if code != 0:
        # What failed and why stands in cargo's own words.
        print("\n".join("  " + line for line in tail[-120:]))
        if count["failed"] == failures:
            print(f"failed  {package}: cargo test ended with {code}")
            count["failed"] += 1
    print(f"        {package}: {time.monotonic() - start:.0f} s", flush=True)


def main() -> int:
    count = {"passed": 0, "failed": 0, "skipped": 0}
    for package in packages():
        run(package, count)
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return 1 if count["failed"] else 0


sys.exit(main())
