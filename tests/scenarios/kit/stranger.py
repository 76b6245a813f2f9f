# SPDX-License-Identifier: GPL-2.0
"""Somebody at the port who is no peer: says what he likes from a guest, with what busybox has.

The guest has no interpreter; what is to be said is made here and sent with nc.
"""

import random

from .host import PORT


def kernel_memory(guest) -> dict:
    """KiB of slab and of what is available, after caches were dropped."""
    out = guest.sh("sync; echo 3 >/proc/sys/vm/drop_caches; sleep 1; cat /proc/meminfo")
    values = {line.split(":")[0]: int(line.split()[1]) for line in out.splitlines() if ":" in line}
    return {"slab": values["Slab"], "available": values["MemAvailable"]}


def say(guest, address: str, data: bytes, port: int = PORT, wait: float = 1):
    """Connects, says it, and waits a little for the answer; what was answered."""
    guest.put("/run/words", data)
    command = f"timeout {wait + 2} nc -w {int(max(1, wait))} {address} {port} </run/words | od -An -tx1 | head -c 600"
    return guest.run(command, timeout=wait + 10)[1]


def say_all(guest, address: str, words: list, port: int = PORT):
    """Says each of them in a connection of its own, a few at a time: a port has places for some only."""
    for number, data in enumerate(words):
        guest.put(f"/run/words.{number}", data)
    guest.sh(f"i=0; while [ $i -lt {len(words)} ]; do timeout 3 nc -w 1 {address} {port} </run/words.$i "
             ">/dev/null 2>&1 & i=$((i + 1)); [ $((i % 5)) -ne 0 ] || wait; done; wait; true",
             timeout=10 * len(words) + 60)


def crowd(guest, address: str, count: int, data: bytes = b"", port: int = PORT, hold: float = 2):
    """Many connections at once, each of which says something (or nothing) and stays for a while."""
    guest.put("/run/words", data)
    guest.sh(f"i=0; while [ $i -lt {count} ]; do (cat /run/words; sleep {hold}) | "
             f"timeout {hold + 3} nc {address} {port} >/dev/null 2>&1 & i=$((i + 1)); done; wait; true",
             timeout=hold + 120)


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def crc32c(data: bytes) -> int:
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def hello(link: str = "dr", highest: int = 1, lowest: int = 1, host: bytes = b"stranger-host-id",
          nonce: bytes = bytes(range(32))) -> bytes:
    """A hello with a right checksum, in the bytes of Documentation's wire format."""
    raw = (b"dmRep\r\nH" + highest.to_bytes(2, "little") + lowest.to_bytes(2, "little") + bytes(4)
           + link.encode().ljust(64, b"\0") + host + nonce)
    return raw[:12] + crc32c(raw).to_bytes(4, "little") + raw[16:]


def proof(mac: bytes = bytes(32)) -> bytes:
    """A proof in the right frame, of somebody who does not know the secret."""
    raw = b"dmRep\r\nP" + bytes(4) + bytes(4) + mac
    return raw[:8] + crc32c(raw).to_bytes(4, "little") + raw[12:]


def text_of(dump: str) -> str:
    """The printable part of what `say` brought back."""
    data = bytes(int(x, 16) for x in dump.split() if len(x) == 2)
    return "".join(chr(b) if 32 <= b < 127 else "." for b in data)
