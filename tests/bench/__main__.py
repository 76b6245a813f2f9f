# SPDX-License-Identifier: GPL-2.0
"""python3 -m bench: the command line of make bench; runs inside the build root."""

import argparse
import sys

from lab import accel, paths
from lab.lab import Lab

from . import measure, peers, profile, report


def say(words: str):
    print(words, flush=True)


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    parser.add_argument("--targets", default=",".join(peers.MAKERS), help="of these, comma-separated")
    parser.add_argument("--jobs", default=",".join(measure.JOBS))
    parser.add_argument("--link", default="", metavar="NETEM", help='for example "delay 10ms rate 100mbit"')
    parser.add_argument("--profile", action="store_true",
                        help="no rounds: profile each of the targets with each of the jobs")
    options = parser.parse_args()
    wanted = [t for t in options.targets.split(",") if t]
    jobs = [j for j in options.jobs.split(",") if j]
    for name, known in (*((t, peers.MAKERS) for t in wanted), *((j, measure.JOBS) for j in jobs)):
        if name not in known:
            sys.exit(f"bench: error: {name} is none of {', '.join(known)}")

    with Lab("bench") as lab:
        guests = lab.guests(2, disks=peers.DISKS)
        targets = [peers.MAKERS[name](*guests) for name in wanted]
        if options.link:
            lab.shape(*guests, options.link)
        if options.profile:
            for target in targets:
                for job in jobs:
                    say(profile.taken(guests, target, job, options.seconds))
            return
        measured = measure.rounds(guests[0], targets, jobs, options.rounds, options.seconds, say)
    table = report.medians(measured)
    compared = report.ratios(table)
    say(report.text(table, compared))
    target = paths.TOP / "results.json"
    setting = {"kernel": paths.release(), "accelerator": accel.name(), "rounds": options.rounds,
               "seconds": options.seconds, "link": options.link, "mtu": 65000, "cpus": 1,
               "disks": "virtio-blk over files in memory"}
    report.write(target, setting, measured, table, compared)
    say(f"results.json: {len(measured)} measurements")


main()
