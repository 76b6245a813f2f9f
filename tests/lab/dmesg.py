# SPDX-License-Identifier: GPL-2.0
"""Reads what a guest's kernel said: a warning, an oops, a lockdep report or a hung task fails the run."""

import re

# One pattern for what no kernel may say; the reason for each is its own text.
BAD = re.compile(
    r"WARNING:|\bBUG\b|Oops|Kernel panic|general protection|possible circular|possible recursive"
    r"|inconsistent lock state|suspicious RCU|held lock freed|INFO: task .* blocked for"
    r"|detected stall|soft lockup|refcount_t:|UBSAN|KASAN|KFENCE|unreferenced object"
    r"|kmemleak: \d+ new suspected|list_(add|del) corruption|sleeping function called"
    r"|rust_kernel: panicked|panicked at|bad page|Bad page|stack segment|double fault"
    r"|nobody cared|Unable to handle|scheduling while atomic|lab: disks missing")

# Words of the pattern that harmless lines carry.
HARMLESS = re.compile(r"Spectre|MDS|mitigation|DEBUG|debug")


def faults(log: str, expected=()) -> list:
    """The bad lines of a log, each with a little of what follows; `expected` are patterns to allow."""
    allowed = [re.compile(e) for e in expected]
    lines = log.splitlines()
    found = []
    skip = -1
    for i, line in enumerate(lines):
        if i < skip or not BAD.search(line) or HARMLESS.search(line):
            continue
        if any(a.search(line) for a in allowed):
            continue
        found.append("\n".join(lines[i:i + 12]))
        # One report has many bad lines.
        skip = i + 40
    return found
