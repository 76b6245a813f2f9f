# SPDX-License-Identifier: GPL-2.0
"""The ground itself: the module on the stock kernel, the lab's wires and disks."""


def scenario_module_loads_on_the_stock_kernel(lab):
    """insmod without force and rmmod, a hundred times; the target is there and goes away."""
    for host in lab.hosts:
        host.load()
        assert "replicate" in host.sh("dmsetup targets")
        host.sh("rmmod dm_replicate")
        assert "replicate" not in host.sh("dmsetup targets")
        host.sh("i=0; while [ $i -lt 100 ]; do insmod /root/dm_replicate.ko && "
                "rmmod dm_replicate || exit 1; i=$((i + 1)); done", timeout=120)
        assert "F" not in host.sh("sed -n 's/.*(\\(.*\\)).*/\\1/p' /proc/modules"), \
            "the module was loaded by force"


def scenario_wire_can_be_cut(lab):
    """A cut wire passes nothing, a mended one passes again."""
    a, b = lab.hosts
    a.sh(f"ping -c 1 -W 10 {b.address}")
    lab.cut(a, b)
    a.fails(f"ping -c 2 -W 1 {b.address}", "100% packet loss")
    lab.mend(a, b)
    a.sh(f"ping -c 1 -W 10 {b.address}")


def _count(host, disk: str, word: str) -> int:
    """How many of the disk's first 256 blocks carry a word."""
    return int(host.sh(f"dd if=/dev/lab/{disk} bs=4k count=256 iflag=direct 2>/dev/null | "
                       f"tr '\\0' '\\n' | grep -c {word}; true"))


def scenario_power_cut_loses_what_was_not_flushed(lab):
    """On a volatile disk a reset keeps unflushed writes, a power cut loses some, never flushed ones."""
    (a,) = lab.hosts
    fill = "for i in $(seq 256); do printf {}; head -c 4088 /dev/zero; done >/tmp/f"
    write = "dd if=/tmp/f of=/dev/lab/{} bs=4k oflag=direct conv=notrunc{} 2>&1"
    for name in ("srl", "data"):
        a.sh(fill.format("durable_") + " && " + write.format(name, ",fsync"))
    a.sh(fill.format("volatile") + " && " + write.format("srl", ""))
    a.reset()
    assert _count(a, "srl", "volatile") == 256, "a reset lost writes"
    a.power_cut(seed=7)
    a.start().wait_boot()
    new, old = _count(a, "srl", "volatile"), _count(a, "srl", "durable_")
    print(f"note: {new} of 256 unflushed blocks survived")
    assert new < 256, "the cut lost nothing of what was not flushed"
    assert new + old == 256, f"{new} new and {old} old blocks are not all"
    assert _count(a, "data", "durable_") == 256, "the cut lost what was flushed"


scenario_power_cut_loses_what_was_not_flushed.guests = 1
scenario_power_cut_loses_what_was_not_flushed.options = {"volatile": True, "bus": "scsi"}
