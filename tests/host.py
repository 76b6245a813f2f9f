# SPDX-License-Identifier: GPL-2.0
"""Runs the tests that need no kernel (cargo test of the whole workspace) and counts them.

Built with optimisation and with debug assertions and overflow checks on: the explorer needs the
speed, and an overflow must not pass as a number.
"""

import re
import subprocess
import sys
import time

RUNNING = re.compile(r"^\s*(?:Running|Doc-tests) (\S+)(?: \((\S+)\))?")
TEST = re.compile(r"^test (.*?)(?: - should panic)? \.\.\. (ok|FAILED|ignored)(.*)$")


def main() -> int:
    command = ["cargo", "test", "--workspace", "--profile", "explore", "--no-fail-fast",
               "--color", "never", "--", "--nocapture", "--test-threads=2", *sys.argv[1:]]
    start = time.monotonic()
    count = {"ok": 0, "FAILED": 0, "ignored": 0}
    words = {"ok": "passed", "FAILED": "failed", "ignored": "skipped"}
    where, tail = "", []
    child = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             errors="replace")
    for line in child.stdout:
        line = line.rstrip("\n")
        if match := RUNNING.match(line):
            # target/explore/deps/dmrepl-0123abcd -> dmrepl
            binary = (match[2] or match[1]).rsplit("/", 1)[-1]
            where = re.sub(r"-[0-9a-f]{16}$", "", binary)
        elif match := TEST.match(line):
            count[match[2]] += 1
            print(f"{words[match[2]]:8}{where}: {match[1]}", flush=True)
        tail = (tail + [line])[-200:]
    code = child.wait()
    if code != 0:
        # What failed and why stands in cargo's own words.
        print("\n".join("  " + line for line in tail[-120:]))
        if count["FAILED"] == 0:
            print(f"failed  host tests: cargo ended with {code}")
            count["FAILED"] = 1
    print(f"host tests: {time.monotonic() - start:.0f} s")
    print(f"{count['ok']} passed, {count['FAILED']} failed, {count['ignored']} skipped")
    return 1 if count["FAILED"] else 0


sys.exit(main())
