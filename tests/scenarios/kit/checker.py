# SPDX-License-Identifier: GPL-2.0
"""The third host: copies of a killed host's disks are activated here, taken over, and looked at.

It stays booted between verdicts; its plain disks are filled from this side while nothing uses them. A
verdict's images are what the data disks hold after the group is gone again, that is, after dm's
suspend has flushed everything down.
"""

import os
import pathlib

from lab.agent import CommandFailed
from lab.disk import Disk
from lab.guest import Guest

from .host import Host
from .oracle import Violated


def fill(target: pathlib.Path, source: pathlib.Path):
    """Makes a file, in place, equal to another of the same size; holes stay holes."""
    size = source.stat().st_size
    with open(source, "rb") as src, open(target, "r+b") as dst:
        dst.truncate(0)
        dst.truncate(max(size, 0))
        at = 0
        while at < size:
            try:
                start = os.lseek(src.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(src.fileno(), start, os.SEEK_HOLE)
            while start < end:
                done = os.copy_file_range(src.fileno(), dst.fileno(), end - start, start, start)
                if done == 0:
                    break
                start += done
            at = end


def boot(lab, layout: dict, volumes: dict) -> "Checker":
    """A third host, of its own, with plain disks of the given sizes. It has no wires."""
    disks = [Disk(name, lab.folder / f"checker-{name}.img", size) for name, size in layout.items()]
    guest = lab.add(Guest("checker", 9, lab.folder, lab.image(), disks))
    return Checker(guest.start().wait_boot(), volumes)


class Checker:
    def __init__(self, guest, volumes: dict):
        self.guest, self.volumes = guest, volumes
        self.host, self.role = None, None

    def take(self, images: dict, role: str = "secondary", force: bool = False) -> Host:
        """Activates copies ({disk: image}); a secondary's are taken over. The host, with its volumes.

        Without a role it is what the log says, which `role` has afterwards."""
        self.drop()
        for name, image in images.items():
            fill(self.guest.disks[name].image, image)
            self.guest.sh(f"blockdev --flushbufs /dev/lab/{name}")
        host = Host(self.guest, role or "secondary", volumes=self.volumes, options="--start-wait 1ms")
        host.load()
        try:
            host.group_add(role=False)
        except CommandFailed as why:
            if "log is damaged" in str(why):
                raise Violated(str(why)) from None
            raise
        host.create()
        self.host = host
        self.role = role = role or host.status()["role"]
        if role == "secondary":
            host.wait("ready to take over", lambda s: s["state"] == "active", timeout=60)
            self.words = host.takeover(force)
        host.wait_active()
        return host

    def drop(self):
        if self.host is not None:
            self.host.down()
            self.host = None

    def images(self) -> list:
        """Ends the group; the data disks as they are then, in the order of the volumes."""
        self.drop()
        return self.disks()

    def disks(self) -> list:
        """The data disks in the order of the volumes. What they hold is whole when the group was dropped."""
        return [self.guest.disks[d].image for d in self.volumes.values()]
