# SPDX-License-Identifier: GPL-2.0
"""One measurement is one fio run in guest a; the rounds go over all jobs and targets in turn, so that
whatever changes on this machine meanwhile meets all of them."""

import json
import random

JOBS = {
    "4k-qd1": ("4k", 1),
    "4k-qd16": ("4k", 16),
    "64k-qd8": ("64k", 8),
    "1m-qd4": ("1m", 4),
}


def command(device: str, block: str, depth: int, seconds: float) -> str:
    return (f"fio --name=bench --filename={device} --rw=randwrite --bs={block} --iodepth={depth} "
            f"--ioengine=libaio --direct=1 --norandommap --randrepeat=0 --time_based "
            f"--runtime={seconds} --ramp_time=0.5 --output-format=json")


def fio(guest, device: str, block: str, depth: int, seconds: float) -> dict:
    return numbers(guest.sh(command(device, block, depth, seconds), timeout=seconds + 120))


def numbers(out: str) -> dict:
    # Warnings may stand before the JSON.
    write = json.loads(out[out.index("{"):])["jobs"][0]["write"]
    percentiles = write["clat_ns"].get("percentile", {})
    return {"iops": write["iops"], "mib_s": write["bw_bytes"] / (1 << 20),
            "p50_us": percentiles.get("50.000000", 0) / 1000,
            "p99_us": percentiles.get("99.000000", 0) / 1000}


def rounds(guest, targets: list, jobs: list, count: int, seconds: float, say) -> list:
    """[{round, target, job, ...numbers}]"""
    found = []
    order = random.Random(1)
    for number in range(1, count + 1):
        for job in jobs:
            block, depth = JOBS[job]
            turn = list(targets)
            order.shuffle(turn)
            for target in turn:
                target.begin()
                numbers = fio(guest, target.device, block, depth, seconds)
                target.rest()
                found.append({"round": number, "target": target.name, "job": job, **numbers})
                say(f"round {number}/{count} {job:8} {target.name:18} {numbers['iops']:8.0f} IOPS "
                    f"{numbers['mib_s']:8.1f} MiB/s p50 {numbers['p50_us']:7.0f} us")
    return found
