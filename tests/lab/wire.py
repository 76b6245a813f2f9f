# SPDX-License-Identifier: GPL-2.0
"""Cables between guests: one virtio-net pair for each pair of guests, over a unix socket.

A large MTU keeps the cost of a packet from hiding the cost of the work. A cable can be cut silently
(packets vanish, as behind a switch), shaped with netem, or lose its carrier.
"""

import pathlib

MTU = 65000


class Cable:
    def __init__(self, folder: pathlib.Path, first: int, second: int, mtu: int = MTU):
        self.ends = (first, second)
        self.mtu = mtu
        self._path = folder / f"wire-{first}-{second}"

    def peer(self, index: int) -> int:
        return self.ends[1] if index == self.ends[0] else self.ends[0]

    def netdev(self) -> str:
        return f"net{self.ends[0]}{self.ends[1]}"

    def setting(self, index: int) -> str:
        """What init needs to know: PEER:MTU."""
        return f"10.0.0.{self.peer(index) + 1}:{self.mtu}"

    def arguments(self, index: int) -> list:
        role = "server=on" if index == self.ends[0] else "server=off,reconnect-ms=100"
        mac = f"52:54:00:00:{index:02x}:{self.peer(index):02x}"
        return ["-netdev", f"stream,id={self.netdev()},{role},addr.type=unix,addr.path={self._path}",
                "-device", f"virtio-net-pci,netdev={self.netdev()},mac={mac},host_mtu={self.mtu}"]
