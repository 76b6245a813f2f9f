# SPDX-License-Identifier: GPL-2.0
"""The verdict on images: `stamp check` with the order of record from `dmrepl srl dump --all --json`."""

import json
import pathlib
import subprocess

from lab import paths


class Violated(Exception):
    """The images are no state that was promised."""


def dump(srl: pathlib.Path) -> pathlib.Path:
    """The order of record of an SRL image, beside it."""
    target = srl.with_suffix(".order")
    done = subprocess.run([str(paths.STATIC / "dmrepl"), "srl", "dump", str(srl), "--all", "--json"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    # Damage (6) is a torn tail here as often as not; what is in order is printed before it.
    if done.returncode not in (0, 6):
        raise RuntimeError(f"srl dump of {srl} ended with {done.returncode}: {done.stderr.decode()}")
    target.write_bytes(done.stdout)
    return target


def check(images: list, journals: list = (), orders: list = (), require: str = "none",
          closed: bool = False, base: list = ("zero",), options: list = ()) -> dict:
    """Checks images (in the order of the volumes). `orders` are SRL images, the primary's first.

    Returns the numbers of the verdict; raises Violated with the checker's words."""
    command = [str(paths.STATIC / "stamp"), "check", *map(str, images), "--require", require, *options]
    for one in base:
        command += ["--base", str(one)]
    for journal in journals:
        command += ["--journal", str(journal)]
    for srl in orders:
        command += ["--order", str(dump(srl)), "--srl", str(srl)]
    if closed:
        command.append("--closed")
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, check=False)
    if done.returncode == 1:
        words = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
        raise Violated(f"{words[-4000:]}\n{' '.join(command)}")
    if done.returncode != 0:
        raise RuntimeError(f"stamp check ended with {done.returncode}: {done.stderr}\n{' '.join(command)}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def check_srl(srl: pathlib.Path):
    """`dmrepl srl check` must find a log in order."""
    done = subprocess.run([str(paths.STATIC / "dmrepl"), "srl", "check", str(srl)],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise Violated(f"srl check of {srl}: {done.stdout}")
