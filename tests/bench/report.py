# SPDX-License-Identifier: GPL-2.0
"""Medians and ratios of what was measured, as a table and as results.json."""

import json
import pathlib
import statistics

from .peers import MAKERS, RATIOS


def medians(measured: list) -> dict:
    """{job: {target: {figure: median}}}"""
    cells = {}
    for one in measured:
        cells.setdefault(one["job"], {}).setdefault(one["target"], []).append(one)
    return {job: {target: {figure: statistics.median(x[figure] for x in many)
                           for figure in ("iops", "mib_s", "p50_us", "p99_us")}
                  for target, many in row.items()} for job, row in cells.items()}


def ratios(table: dict) -> dict:
    """{job: {"replicate-async / raw": ratio of the IOPS}}"""
    found = {}
    for job, row in table.items():
        for ours, others in RATIOS.items():
            for other in others:
                if ours in row and other in row and row[other]["iops"]:
                    found.setdefault(job, {})[f"{ours} / {other}"] = round(
                        row[ours]["iops"] / row[other]["iops"], 2)
    return found


def text(table: dict, compared: dict) -> str:
    targets = [t for t in MAKERS if any(t in row for row in table.values())]
    lines = ["medians:", f"  {'':10}" + "".join(f"{t:>22}" for t in targets)]
    for job, row in table.items():
        small = job.startswith("4k")
        cells = [f"{row[t]['iops']:.0f} IOPS" if small else f"{row[t]['mib_s']:.1f} MiB/s"
                 if t in row else "-" for t in targets]
        lines.append(f"  {job:10}" + "".join(f"{c:>22}" for c in cells))
        lines.append(f"  {'':10}" + "".join(
            f"{row[t]['p50_us']:.0f} us p50".rjust(22) if t in row else f"{'-':>22}" for t in targets))
    lines.append("ratios:")
    for job, row in compared.items():
        lines.append(f"  {job:10}" + ", ".join(f"{k} {v:.2f}" for k, v in row.items()))
    return "\n".join(lines)


def write(path: pathlib.Path, setting: dict, measured: list, table: dict, compared: dict):
    path.write_text(json.dumps({"version": 1, "setting": setting, "medians": table, "ratios": compared,
                                "measured": measured}, indent=1) + "\n")
