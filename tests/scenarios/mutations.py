# SPDX-License-Identifier: GPL-2.0
"""The crash runs themselves on trial: a module with one rule left out must be caught by them."""

import subprocess

from lab import paths
from lab.lab import MIB, Lab

from scenarios.kit.alone import Alone
from scenarios.kit.oracle import Violated

# One cut in ten or so shows the write-ahead rule's absence.
CUTS = 120


def _caught(rule: str, **shape):
    """Builds the module without the rule and runs until the verdict is that it is wrong."""
    done = subprocess.run([str(paths.TOP / "scripts/build"), f"mutate={rule}"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    lab = Lab(f"mutations.{rule}", variant=rule)
    try:
        campaign = Alone(lab, evidence=False, **shape)
        assert f"without the rule {rule}" in campaign.host.guest.sh("dmesg | grep 'TEST BUILD'"), \
            "this module does not say that a rule is left out: it is not the mutated one"
        try:
            campaign.run(CUTS)
        except Violated as why:
            line = next((x.strip() for x in str(why).splitlines() if "VIOLATION" in x or "damaged" in x),
                        str(why)[:200])
            print(f"note: caught at kill {campaign.kills}: {line[:160]}")
            return
    finally:
        # A mutated kernel may well complain; that is no verdict on the real one.
        lab.close()
    raise AssertionError(f"a module without the rule {rule} went through {CUTS} power cuts unnoticed")


def scenario_write_ahead_rule_left_out(lab):
    """Data is written before its record is durable."""
    _caught("WriteAhead", bus="scsi")


def scenario_log_flush_left_out(lab):
    """What is written counts as flushed."""
    _caught("CommitIsFlushed", bus="scsi")


def scenario_checkpoint_flush_left_out(lab):
    """Space is reused before the data devices were flushed."""
    _caught("CheckpointFlush", bus="scsi", srl=12 * MIB, wrap=True)


for _one in (scenario_write_ahead_rule_left_out, scenario_log_flush_left_out,
             scenario_checkpoint_flush_left_out):
    _one.guests = 0
    _one.timeout = 900
