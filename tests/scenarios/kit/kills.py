# SPDX-License-Identifier: GPL-2.0
"""What kills have in common: how many there are and by which seed, and what the disks are afterwards.

A kill is a power cut (volatile disks lose a seeded subset of what was not flushed) or a reset (they lose
nothing). Everything random comes from the printed seed. Called by campaigns, on the host.
"""

import json
import os
import random

from . import oracle

# Kills of each side in one `make test`; each campaign takes a share of it.
KILLS = int(os.environ.get("KILLS", "50"))
SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)

# How much of the kills are power cuts; the others are resets.
CUTS = 0.75

LINK_OPTIONS = "--heartbeat 300ms --peer-timeout 3s"

# Of the mix of sizes most are small, so that the logs (which are copied) stay small.
BLOCKS = "512,4096x12,16384x2,65536,unaligned"


def share(of_all: float) -> int:
    """This campaign's share of the kills of each side."""
    return max(1, round(KILLS * of_all))


def said(cut: dict) -> str:
    return " and ".join(f"{s} {'cut' if cut[s] else 'reset'}" for s in cut)


def image(guest, where, seed: int, cut: bool) -> dict:
    """{disk: image} of all disks as a power cut now, or a reset, would leave them."""
    where.mkdir(exist_ok=True)
    if cut:
        guest.nbd(f"crash-image {seed} {where}")
    else:
        for name, disk in guest.disks.items():
            disk.copy_to(where / f"{name}.img")
    return {name: where / f"{name}.img" for name in guest.disks}


def wrapped(srl):
    """The ring was meant to be smaller than the run."""
    records = oracle.dump(srl).read_text().splitlines()
    laps = max((json.loads(line).get("lap", 0) for line in records if line.startswith("{")), default=0)
    assert laps > 0, "the ring never wrapped"
    print(f"note: the ring went round {laps} times", flush=True)


def keep(lab, seed: int, files: list, checked: list):
    """Saves what a violation was found in beside the logs."""
    target = lab.logs / f"evidence-{seed}"
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        os.system(f"cp --sparse=always '{file}' '{target}/'")
    for file in checked:
        os.system(f"cp --sparse=always '{file}' '{target}/checked-{file.name}'")
    print(f"evidence: {target}", flush=True)
