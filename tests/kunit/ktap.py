# SPDX-License-Identifier: GPL-2.0
"""Reads KTAP, the text in which the kernel's tests report, out of a console log."""

import dataclasses
import re

STAMP = re.compile(r"^\[\s*\d+\.\d+\](\[[^\]]*\])? ?")
RESULT = re.compile(r"^(\s*)(ok|not ok) (\d+) (\S+)(.*)$")
SUBTEST = re.compile(r"^\s*# Subtest: (\S+)")
PLAN = re.compile(r"^\s+1\.\.(\d+)")


@dataclasses.dataclass
class Result:
    suite: str
    test: str
    verdict: str
    words: str = ""

    @property
    def name(self) -> str:
        return f"{self.suite}.{self.test}"


def parse(log: str) -> tuple:
    """(results, complaints): complaints are about the report itself, as a suite that broke off."""
    results, complaints = [], []
    suite, planned, seen, notes = None, None, 0, []
    for line in log.splitlines():
        line = STAMP.sub("", line)
        if match := SUBTEST.match(line):
            if suite is not None:
                complaints.append(f"suite {suite} broke off after {seen} of {planned} tests")
            suite, planned, seen, notes = match[1], None, 0, []
        elif suite is None:
            continue
        elif planned is None and (match := PLAN.match(line)):
            planned = int(match[1])
        elif match := RESULT.match(line):
            indent, verdict, _, name, rest = match.groups()
            if not indent and name == suite:
                if seen != planned:
                    complaints.append(f"suite {suite} ran {seen} of {planned} tests")
                suite = None
                continue
            seen += 1
            if "# SKIP" in rest:
                kind = "skipped"
            else:
                kind = "passed" if verdict == "ok" else "failed"
            results.append(Result(suite, name, kind, "\n".join(notes)))
            notes = []
        elif not line.strip().startswith(("KTAP", "# module:")):
            notes.append(line)
    if suite is not None:
        complaints.append(f"suite {suite} broke off after {seen} of {planned} tests")
    return results, complaints
