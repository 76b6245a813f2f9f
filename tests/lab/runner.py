# SPDX-License-Identifier: GPL-2.0
"""Runs scenarios: functions `scenario_*(lab)` in tests/scenarios/*.py.

Each runs in a process of its own with a fresh lab, so that a stuck one can be ended and nothing of it
stays. A scenario passes when its function returns and no guest's kernel complained. It may carry:

    scenario_x.guests = 3            guests booted beforehand as lab.hosts (default 2, 0: none)
    scenario_x.options = {...}       arguments of Lab.guests for them
    scenario_x.variant = "name"      the module with that fault put in
    scenario_x.timeout = 600         seconds before it counts as hung (default 300)
    scenario_x.long = True           only with --long
    scenario_x.alone = True          nothing else may run meanwhile (it measures)
    scenario_x.debug = True          --debug runs it, too, on the kernel with KASAN, lockdep and kmemleak
    scenario_x.debug = "only"        it needs that kernel, and --debug alone runs it

A scenario that cannot run here raises lab.runner.Skip(reason).
"""

import argparse
import concurrent.futures
import importlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import traceback

from . import image, paths
from .lab import Lab

SCENARIOS = paths.TOP / "tests" / "scenarios"
TIMEOUT = 300
SKIPPED, HUNG = 77, 124


class Skip(Exception):
    """This scenario cannot run here, for the reason given."""


def discover(patterns: list, long: bool) -> list:
    """[(name, module, function)] of all scenarios that a pattern matches; all without patterns."""
    found = []
    for file in sorted(SCENARIOS.glob("[!_]*.py")):
        try:
            module = importlib.import_module(f"scenarios.{file.stem}")
        except Exception as error:  # a file that cannot be read must not hide the others
            if not patterns or any(p in f"{file.stem}.import" for p in patterns):
                found.append((f"{file.stem}.import", None, _unreadable(error)))
            continue
        for attribute in sorted(vars(module), key=_line(module)):
            function = getattr(module, attribute)
            if not attribute.startswith("scenario_") or not callable(function):
                continue
            name = f"{file.stem}.{attribute.removeprefix('scenario_')}"
            wanted = any(p in name for p in patterns)
            debug = getattr(function, "debug", False)
            if not paths.DEBUG and debug == "only":
                continue
            if paths.DEBUG and not patterns:
                wanted = debug
            elif not patterns:
                wanted = long or not getattr(function, "long", False)
            if wanted:
                found.append((name, module, function))
    return found


def _unreadable(error: Exception):
    """Stands for the scenarios of a file that could not be imported."""
    def scenario(_lab):
        raise error
    scenario.guests = 0
    return scenario


def _line(module):
    """Order of appearance in the file."""
    def key(attribute):
        code = getattr(getattr(module, attribute), "__code__", None)
        return code.co_firstlineno if code else 0
    return key


def run_here(name: str, function) -> int:
    """Runs one scenario in this process; its exit code."""
    try:
        with Lab(name, variant=getattr(function, "variant", "plain")) as lab:
            count = getattr(function, "guests", 2)
            lab.hosts = lab.guests(count, **getattr(function, "options", {})) if count else []
            function(lab)
    except Skip as reason:
        print(f"skip: {reason}")
        return SKIPPED
    except BaseException:  # whatever it is, the scenario failed and says why
        traceback.print_exc()
        return 1
    return 0


def run_apart(name: str, timeout: float) -> tuple:
    """Runs one scenario in a process group of its own: (exit code, output, seconds)."""
    log = paths.LOGS / name / "output"
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with open(log, "wb") as out:
        child = subprocess.Popen([sys.executable, "-m", "lab.runner", "--here", name],
                                 cwd=paths.TOP / "tests", stdin=subprocess.DEVNULL, stdout=out,
                                 stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired:
            code = HUNG
        finally:
            # Guests belong to the group; none may outlive the scenario.
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()
    return code, log.read_text(errors="replace"), time.monotonic() - start


def report(name: str, code: int, output: str, seconds: float) -> str:
    """Prints a line about a scenario; its verdict."""
    if code == 0:
        verdict = "passed"
    elif code == SKIPPED:
        verdict = "skipped"
    else:
        verdict = "failed"
    notes = [line for line in output.splitlines() if line.startswith(("note:", "seed:", "skip:"))]
    print(f"{verdict:8}{name} ({seconds:.0f} s){'  ' + '; '.join(notes) if notes else ''}", flush=True)
    if verdict == "failed":
        if code == HUNG:
            print(f"  hung: not done after {seconds:.0f} s", flush=True)
        for line in output.splitlines()[-40:]:
            print(f"  {line}", flush=True)
        print(f"  logs: {paths.LOGS / name}", flush=True)
    return verdict


def run_all(chosen: list, jobs: int, until: float) -> dict:
    """Runs scenarios, `jobs` at a time; those that want to be alone come last, one by one."""
    count = {"passed": 0, "failed": 0, "skipped": 0}
    printing = threading.Lock()

    def one(name, function):
        if until and time.time() > until:
            with printing:
                print(f"failed  {name}: not run, the time for all scenarios was over", flush=True)
                count["failed"] += 1
            return
        timeout = getattr(function, "timeout", TIMEOUT) * jobs * paths.SLOW
        if until:
            timeout = min(timeout, until + 120 - time.time())
        outcome = run_apart(name, timeout)
        with printing:
            count[report(name, *outcome)] += 1

    together = [s for s in chosen if not getattr(s[2], "alone", False)]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for done in [pool.submit(one, name, function) for name, _, function in together]:
            done.result()
    for name, _, function in chosen:
        if getattr(function, "alone", False):
            one(name, function)
    return count


def default_jobs() -> int:
    """Two guests keep two cores busy, but not all the time; each takes 1 GiB of memory and more."""
    cores = os.cpu_count() or 1
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(max(cores, 2) // 2 + 1, free // (3 << 30)))


def main():
    parser = argparse.ArgumentParser(prog="scripts/test")
    parser.add_argument("--list", action="store_true", help="name the scenarios, run none")
    parser.add_argument("--long", action="store_true", help="the long ones too")
    parser.add_argument("--here", action="store_true", help="run one in this process")
    parser.add_argument("--until", type=float, default=0, metavar="UNIX-TIME",
                        help="scenarios that have not started by then fail as not run")
    parser.add_argument("--jobs", type=int, default=int(os.environ.get("JOBS", 0)) or default_jobs(),
                        help="scenarios at a time")
    parser.add_argument("names", nargs="*", help="parts of names; all when none is given")
    options = parser.parse_args()
    sys.path.insert(0, str(paths.TOP / "tests"))
    sys.stdout.reconfigure(line_buffering=True)

    chosen = discover(options.names, options.long)
    if options.here:
        name, _, function = next(s for s in chosen if s[0] == options.names[0])
        sys.exit(run_here(name, function))
    if options.list:
        for name, _, function in chosen:
            print(f"{name}: {(function.__doc__ or '').strip().splitlines()[0] if function.__doc__ else ''}")
        return
    image.base()
    count = run_all(chosen, options.jobs, options.until)
    if options.names and not chosen:
        print(f"failed  no scenario matches {' '.join(options.names)}")
        count["failed"] += 1
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    sys.exit(1 if count["failed"] else 0)


if __name__ == "__main__":
    main()
