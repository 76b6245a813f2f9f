# SPDX-License-Identifier: GPL-2.0
"""A lab: some guests joined by wires, made for one purpose and taken down after it.

Used by scenarios, the demo, the bench and `make lab`. On leaving, logs are saved and every kernel
log is read: a fault there fails the lab even when all else went well.
"""

import pathlib
import shutil
import tempfile

from . import disk, image, paths
from .guest import CommandFailed, Guest, GuestGone
from .wire import LabWire, Wire

MIB = 1 << 20
DISKS = {"srl": 64 * MIB, "data": 64 * MIB}

# Tools that go into every guest when they are built: place in the guest -> crate.
TOOLS = {"/sbin/dmrepl": "dmrepl", "/sbin/stamp": "stamp"}


class KernelFault(Exception):
    """A guest's kernel reported something that must not happen."""


class Lab:
    def __init__(self, name: str, variant: str = "plain", files: dict = None,
                 logs: pathlib.Path = None, folder: pathlib.Path = None):
        paths.require_root()
        self.name = name
        self.logs = logs or paths.LOGS / name
        self.folder = folder or pathlib.Path(tempfile.mkdtemp(prefix=f"lab-{name[:20]}-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.all = []
        self._files = {"/init": paths.TOP / "tests/lab/init.sh",
                       "/sbin/guest-agent": paths.STATIC / "guest-agent"}
        if paths.module(variant).exists():
            self._files["/root/dm_replicate.ko"] = paths.module(variant)
        for place, tool in TOOLS.items():
            if (paths.STATIC / tool).exists():
                self._files[place] = paths.STATIC / tool
        if paths.DEBUG:
            # Every driver is built in: there is nothing to load, and no list of what there could be.
            self._files["/sbin/modprobe"] = "/bin/true"
        self._files.update(files or {})
        self._image = None
        self._lab_wires = []

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        faults = self.close()
        if faults and kind is None:
            raise KernelFault("\n\n".join(faults))
        # Beside what failed, and perhaps its reason.
        print("\n\n".join(faults), flush=True)

    def image(self) -> pathlib.Path:
        if self._image is None:
            self._image = self.folder / "initrd"
            image.assemble(self._image, self._files)
        return self._image

    def guests(self, count: int = 2, disks: dict = None, volatile: bool = False,
               bus: str = disk.VIRTIO, block: int = 512, boot: bool = True, **options) -> list:
        """Makes and boots guests a, b, c...; `disks` is {name: bytes}, or a list of one such for each.

        `bus` and `volatile` hold for all disks; a disk's value may also be a dict of Disk's arguments
        (size, bus, block, volatile, write_through). `options` go to Guest."""
        wires = [Wire(self.folder, i, j) for i in range(count) for j in range(i + 1, count)]
        if wires:
            self._lab_wires.append(LabWire(self.folder, wires))
        made = []
        for index in range(count):
            name = "abcdefgh"[index]
            wanted = disks[index] if isinstance(disks, list) else (disks or DISKS)
            own = []
            for disk_name, spec in wanted.items():
                spec = dict(spec) if isinstance(spec, dict) else {"size": spec}
                kind = disk.VolatileDisk if spec.pop("volatile", volatile) else disk.Disk
                own.append(kind(disk_name, self.folder / f"{name}-{disk_name}.img",
                                **{"bus": bus, "block": block, **spec}))
            made.append(self.add(Guest(name, index, self.folder, self.image(), own,
                                       wires=[w for w in wires if index in w.ends], **options)))
        if boot:
            for guest in made:
                guest.start()
            for guest in made:
                guest.wait_boot()
        return made

    def add(self, guest: Guest) -> Guest:
        self.all.append(guest)
        return guest

    # The wire ---------------------------------------------------------------

    def nic(self, guest: Guest, peer: Guest) -> str:
        """The guest's interface towards a peer."""
        for i, wire in enumerate(guest._wires):
            if wire.peer(guest.index) == peer.index:
                return f"eth{i}"
        raise KeyError(f"{guest.name} has no wire to {peer.name}")

    def shape(self, one: Guest, other: Guest, netem: str):
        """Shapes both directions, for example `delay 10ms`, `loss 5%`, `rate 100mbit`."""
        for guest, peer in ((one, other), (other, one)):
            if guest.alive():
                guest.sh(f"modprobe -q sch_netem; tc qdisc replace dev {self.nic(guest, peer)} "
                         f"root netem limit 10000 {netem}")

    def cut(self, one: Guest, other: Guest):
        """Packets vanish both ways; nobody is told."""
        self.shape(one, other, "loss 100%")

    def mend(self, one: Guest, other: Guest):
        """Undoes cut and shape."""
        for guest, peer in ((one, other), (other, one)):
            if guest.alive():
                guest.run(f"tc qdisc del dev {self.nic(guest, peer)} root")

    # The end ----------------------------------------------------------------

    def faults(self) -> list:
        return [f"{g.name}: kernel: {fault}" for g in self.all for fault in g.faults()]

    def close(self) -> list:
        """Takes everything down, saves the logs, and returns the kernels' faults."""
        self.logs.mkdir(parents=True, exist_ok=True)
        leaks = []
        for guest in self.all:
            if guest.alive():
                leaks += self._leaks(guest)
                guest.save_dmesg(self.logs / f"{guest.name}.dmesg")
            guest.close()
            for said in (guest.console, guest.console.with_suffix(".put-aside")):
                if said.exists():
                    shutil.copy2(said, self.logs)
        for lab_wire in self._lab_wires:
            lab_wire.stop()
        faults = self.faults() + leaks
        shutil.rmtree(self.folder, ignore_errors=True)
        return faults

    def _leaks(self, guest: Guest) -> list:
        """What the debug kernel of a guest that still answers finds."""
        if not paths.DEBUG:
            return []
        try:
            return [f"{guest.name}: {leak}" for leak in guest.leaks()]
        except (GuestGone, CommandFailed, TimeoutError) as error:
            return [f"{guest.name}: no kmemleak: {error}"]
