# SPDX-License-Identifier: GPL-2.0
"""Disks of guests: a plain file, or a disk of a server with a volatile write cache.

A plain file keeps what a killed guest wrote, because the host's page cache survives: fine for a reset,
useless for a power cut. Crash tests take VolatileDisks, which on a cut keep a seeded random subset of
what was not flushed.
"""

import pathlib
import socket
import subprocess
import time

from . import paths

# What a disk is attached as. virtio-blk has no FUA of its own: the block layer flushes after the write. The scsi disk
# has, so the module's FUA goes down as one; QEMU 10.0 then flushes all of the disk, which is more than FUA asks for.
# QEMU's nvme says that it has FUA and ignores it (volatile-nbd sees neither FUA nor a flush): useless for power cuts.
# NBD goes around QEMU's block layer, from the guest kernel's own driver to the disk server: there FUA is FUA.
VIRTIO, SCSI, NVME, NBD = "virtio", "scsi", "nvme", "nbd"


class Disk:
    """A disk that belongs to a guest; `name` is its /dev/lab/NAME there."""

    cache = "on"

    def __init__(self, name: str, image: pathlib.Path, size: int, bus: str = VIRTIO,
                 block: int = 512):
        self.name, self.image, self.size, self.bus, self.block = name, image, size, bus, block

    def create(self):
        with open(self.image, "ab") as file:
            file.truncate(self.size)

    def backend(self) -> str:
        return (f"driver=file,filename={self.image},cache.no-flush=on,discard=unmap,"
                f"node-name={self.name}-f")

    def arguments(self) -> list:
        node = f"{self.name}-d"
        sizes = f"logical_block_size={self.block},physical_block_size={max(self.block, 512)}"
        # NVMe takes its serial from the controller, the others from the disk; all say `serial`.
        device = f"drive={node},serial={self.name},{sizes}"
        made = {VIRTIO: [f"virtio-blk-pci,{device},write-cache={self.cache},discard=on,write-zeroes=on"],
                SCSI: [f"virtio-scsi-pci,id={self.name}-c",
                       f"scsi-hd,bus={self.name}-c.0,{device},write-cache={self.cache},dpofua=on"],
                NVME: [f"nvme,{device}"]}[self.bus]
        return ["-blockdev", self.backend(),
                "-blockdev", f"driver=raw,file={self.name}-f,node-name={node},discard=unmap",
                *(word for one in made for word in ("-device", one))]

    def copy_to(self, target: pathlib.Path):
        """A copy of what the disk holds now; holes stay holes."""
        subprocess.run(["cp", "--sparse=always", str(self.image), str(target)], check=True)


class VolatileDisk(Disk):
    """A disk behind volatile-nbd: a power cut loses what was not flushed."""

    def __init__(self, name, image, size, bus=VIRTIO, block=512, write_through=False):
        super().__init__(name, image, size, bus, block)
        self.write_through = write_through
        if write_through:
            if bus == NVME:
                raise ValueError(f"disk {name}: QEMU's nvme always has a write cache")
            self.cache = "off"
        self.server = None

    def arguments(self) -> list:
        if self.bus != NBD:
            return super().arguments()
        return ["-device", f"virtio-serial-pci,id={self.name}-c",
                "-chardev", f"socket,id={self.name}-n,path={self.server.socket}",
                "-device", f"virtserialport,bus={self.name}-c.0,chardev={self.name}-n,"
                           f"name=lab.nbd.{self.block}.{self.name}"]

    def backend(self) -> str:
        return (f"driver=nbd,server.type=unix,server.path={self.server.socket},export={self.name},"
                f"discard=unmap,node-name={self.name}-f")

    def copy_to(self, target: pathlib.Path):
        self.server.ask(f"snapshot {self.name} {target}")


class Server:
    """One volatile-nbd for all volatile disks of a guest, so that a cut hits them at one instant."""

    def __init__(self, name: str, folder: pathlib.Path, disks: list, arguments: list = ()):
        self.socket = folder / f"{name}.nbd"
        self.control = folder / f"{name}.nbd-control"
        command = [str(paths.STATIC / "volatile-nbd"), "--socket", str(self.socket),
                   "--control", str(self.control), *arguments]
        for disk in disks:
            disk.server = self
            spec = f"{disk.name}={disk.image},size={disk.size},block={disk.block}"
            command += ["--disk", spec + (",write-through" if disk.write_through else "")]
        with open(folder / f"{name}.nbd.log", "ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                             stderr=log)
        end = time.monotonic() + 20
        while not (self.socket.exists() and self.control.exists()):
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"volatile-nbd of {name} did not start; see {folder}/{name}.nbd.log")
            time.sleep(0.02)

    def ask(self, command: str) -> str:
        """Sends a control command, returns what follows `ok`; see volatile-nbd --help."""
        with socket.socket(socket.AF_UNIX) as conn:
            conn.settimeout(60)
            conn.connect(str(self.control))
            conn.sendall(command.encode() + b"\n")
            answer = conn.makefile("r").readline().strip()
        if not answer.startswith("ok"):
            raise RuntimeError(f"volatile-nbd: {command}: {answer or 'no answer'}")
        return answer[2:].strip()

    def stop(self):
        """Ends the server; what it holds in its cache is lost, like the machine that it stands for."""
        self._process.kill()
        self._process.wait()
        for path in (self.socket, self.control):
            path.unlink(missing_ok=True)
