# SPDX-License-Identifier: GPL-2.0
"""Wires between guests: one virtio-net pair for each pair of guests, through lab-wire.

A large MTU keeps the cost of a packet from hiding the cost of the work. A wire can be cut silently
(packets vanish, as behind a switch) or shaped with netem in the guests; see Lab.cut and Lab.shape.
"""

import pathlib
import subprocess
import time

from . import paths

MTU = 65000


class Wire:
    def __init__(self, folder: pathlib.Path, first: int, second: int, mtu: int = MTU):
        self.ends = (first, second)
        self.mtu = mtu
        self.sockets = [folder / f"wire-{first}-{second}.{end}" for end in (first, second)]

    def peer(self, index: int) -> int:
        return self.ends[1] if index == self.ends[0] else self.ends[0]

    def netdev(self) -> str:
        return f"net{self.ends[0]}{self.ends[1]}"

    def setting(self, index: int) -> str:
        """What init needs to know: PEER:MTU."""
        return f"10.0.0.{self.peer(index) + 1}:{self.mtu}"

    def arguments(self, index: int) -> list:
        socket = self.sockets[self.ends.index(index)]
        mac = f"52:54:00:00:{index:02x}:{self.peer(index):02x}"
        return ["-netdev", f"stream,id={self.netdev()},server=off,addr.type=unix,addr.path={socket}",
                "-device", f"virtio-net-pci,netdev={self.netdev()},mac={mac},host_mtu={self.mtu}"]


class LabWire:
    """The process that passes the frames of a lab's wires; it outlives every guest."""

    def __init__(self, folder: pathlib.Path, wires: list):
        ends = [str(end) for wire in wires for end in wire.sockets]
        with open(folder / "wires.log", "ab") as log:
            self._process = subprocess.Popen([str(paths.STATIC / "lab-wire"), *ends],
                                             stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 20
        while not all(pathlib.Path(e).exists() for e in ends):
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"lab-wire did not start: {(folder / 'wires.log').read_text()}")
            time.sleep(0.02)

    def stop(self):
        self._process.kill()
        self._process.wait()
