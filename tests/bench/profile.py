# SPDX-License-Identifier: GPL-2.0
"""Where the time of both hosts goes while one target is written to: perf's samples of what is not idle, by what they
are spent on."""

import time

from . import measure

# A symbol belongs to the first kind of which it holds a part.
KINDS = {
    "CRC32C": ("crc32c",),
    "TCP checksum": ("csum_partial", "skb_checksum"),
    "copying": ("memcpy", "copy_", "_copy", "rep_movs", "memmove"),
    "clearing memory": ("memset", "clear_page", "__clear"),
    "dm-replicate's own code": ("_RN", "_RI"),
    "changing threads": ("finish_task_switch", "schedule", "try_to_wake", "ttwu", "pick_next", "enqueue_", "dequeue_",
                         "update_curr", "wake_up", "prepare_to_wait", "finish_wait", "set_next_"),
    "telling the device": ("iowrite", "vp_notify", "virtqueue", "virtio", "virtnet", "virtblk", "start_xmit"),
    "TCP/IP": ("tcp_", "ip_", "skb", "sock_", "net_", "dev_", "napi", "netif", "gro_", "inet_", "sk_", "_tcp"),
    "block layer": ("bio", "blk", "dm_", "submit_", "sbitmap", "part_", "rq_"),
    "interrupts": ("irq", "apic", "softirq", "tick_", "hrtimer", "timer", "ktime", "clock"),
    "memory": ("alloc", "free", "slab", "page", "folio", "pcs_", "refill", "zap_"),
}
IDLE = ("pv_native_safe_halt", "default_idle", "swapper")


def taken(guests: list, target, job: str, seconds: float) -> str:
    block, depth = measure.JOBS[job]
    target.begin()
    # An emulated guest takes seconds to start fio.
    fio = guests[0].spawn(measure.command(target.device, block, depth, seconds + 8) + " >/run/fio.json")
    time.sleep(6)
    perfs = [g.spawn(f"cd /run && perf record -q -e cpu-clock -F 2000 -a -o {g.name}.perf sleep {seconds} >/dev/null 2>&1")
             for g in guests]
    for perf in perfs:
        perf.wait(60)
    fio.wait(120)
    target.rest()
    found = measure.numbers(guests[0].sh("cat /run/fio.json"))
    lines = [f"profile of {target.name}, {job}: {found['iops']:.0f} IOPS, {found['mib_s']:.1f} MiB/s, "
             f"p50 {found['p50_us']:.0f} us"]
    for guest in guests:
        out = guest.run(f"cd /run && perf report -i {guest.name}.perf --sort symbol --stdio 2>/dev/null | grep '%'",
                        timeout=120)[1]
        lines += [f"  {guest.name}: {share:4.0f}%  {kind}" for kind, share in kinds(out)]
    return "\n".join(lines)


def kinds(out: str) -> list:
    """[(kind, per cent of what is not idle)], the largest first."""
    sums = {}
    for line in out.splitlines():
        words = line.split()
        if len(words) < 3 or not words[0].endswith("%"):
            continue
        share, symbol = float(words[0][:-1]), words[2]
        if any(part in symbol for part in IDLE):
            continue
        kernel = words[1] == "[k]"
        kind = next((k for k, parts in KINDS.items() if kernel and any(p in symbol for p in parts)),
                    "the rest of the kernel" if kernel else "programs")
        sums[kind] = sums.get(kind, 0) + share
    total = sum(sums.values()) or 1
    return sorted(((k, 100 * v / total) for k, v in sums.items()), key=lambda x: -x[1])
