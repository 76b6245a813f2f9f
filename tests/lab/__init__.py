# SPDX-License-Identifier: GPL-2.0
"""The lab: QEMU guests on the stock kernel, standing for the hosts of a replicated group.

    from lab.lab import Lab
    with Lab("name") as lab:
        a, b = lab.guests(2)
        rc, out = a.run("uname -r")

Everything here runs inside the build root (scripts/in-root). Modules: paths, image (what a guest
boots), accel (KVM or not), wire (the network), disk, agent and qmp (the channels), guest, dmesg, lab,
runner (scenarios), shell (make lab).
"""
