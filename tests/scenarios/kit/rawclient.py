# SPDX-License-Identifier: GPL-2.0
"""An unauthenticated client: sends any bytes to a port from a guest.

The guest has no interpreter: the bytes are made here and sent with busybox nc.
"""

import hashlib
import hmac
import random

from .host import PORT


def kernel_memory(guest) -> dict:
    """KiB of slab and of what is available, after caches were dropped."""
    out = guest.sh("sync; echo 3 >/proc/sys/vm/drop_caches; sleep 1; cat /proc/meminfo")
    values = {line.split(":")[0]: int(line.split()[1]) for line in out.splitlines() if ":" in line}
    return {"slab": values["Slab"], "available": values["MemAvailable"]}


def send(guest, address: str, data: bytes, port: int = PORT, wait: float = 1):
    """Connects, sends `data`, and returns what was answered within `wait` seconds."""
    guest.put("/run/words", data)
    command = f"timeout {wait + 2} nc -w {int(max(1, wait))} {address} {port} </run/words | od -An -tx1 | head -c 600"
    return guest.run(command, timeout=wait + 10)[1]


def send_all(guest, address: str, words: list, port: int = PORT):
    """Sends each in a connection of its own, five at a time: the listener holds a few only."""
    for number, data in enumerate(words):
        guest.put(f"/run/words.{number}", data)
    guest.sh(f"i=0; while [ $i -lt {len(words)} ]; do timeout 3 nc -w 1 {address} {port} </run/words.$i "
             ">/dev/null 2>&1 & i=$((i + 1)); [ $((i % 5)) -ne 0 ] || wait; done; wait; true",
             timeout=10 * len(words) + 60)


def flood(guest, address: str, count: int, data: bytes = b"", port: int = PORT, hold: float = 2):
    """Opens `count` connections at once, sends `data` on each and keeps it open for `hold` seconds."""
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


HELLO_BYTES = 160


def hello(link: str = "dr", highest: int = 1, lowest: int = 1, host: bytes = b"rawclient-hostid",
          nonce: bytes = bytes(range(32)), key: bytes = None) -> bytes:
    """A hello with a right checksum, in the bytes of Documentation's wire format; with `key`, the group's secret, also
    with a right MAC: one that somebody has recorded."""
    def fields(crc: bytes) -> bytes:
        return (b"dmRep\r\nH" + highest.to_bytes(2, "little") + lowest.to_bytes(2, "little") + crc
                + link.encode().ljust(64, b"\0") + host + nonce)
    mac = bytes(32)
    if key is not None:
        mac = hmac.digest(key, b"dmRep hello".ljust(16, b"\0") + fields(bytes(4)) + bytes(32), hashlib.sha256)
    return fields(crc32c(fields(bytes(4)) + mac).to_bytes(4, "little")) + mac


def proof(mac: bytes = bytes(32)) -> bytes:
    """A proof with a right checksum, made without the secret."""
    raw = b"dmRep\r\nP" + bytes(4) + bytes(4) + mac
    return raw[:8] + crc32c(raw).to_bytes(4, "little") + raw[12:]


def text_of(dump: str) -> str:
    """The printable part of what `send` returned."""
    data = bytes(int(x, 16) for x in dump.split() if len(x) == 2)
    return "".join(chr(b) if 32 <= b < 127 else "." for b in data)
