# SPDX-License-Identifier: GPL-2.0
"""What is measured: each target has a device on guest a that fio writes to, and a way to come to rest."""

from lab.lab import MIB

from scenarios.kit.host import Host
from scenarios.kit.pair import LINK

SIZE = 256 * MIB
DISKS = {"raw": SIZE, "remote": SIZE, "drbda": SIZE, "drbdc": SIZE, "srl": 512 * MIB, "data": SIZE}
PORT_NVME = 4420


class Target:
    """A device to write to."""

    def __init__(self, name: str, device: str):
        self.name, self.device = name, device

    def begin(self):
        """Makes it ready for a measurement."""

    def rest(self):
        """Waits until nothing is under way any more, so that the next one is not disturbed."""


class Raw(Target):
    def __init__(self, a, _b):
        super().__init__("raw", "/dev/lab/raw")
        a.sh("modprobe -q sch_netem; true")


class NvmeTcp(Target):
    """The peer's disk, written over the wire: what one round trip and a remote write cost at least."""

    def __init__(self, a, b):
        super().__init__("nvme-tcp", "/dev/nvme0n1")
        nqn, root = "bench", "/sys/kernel/config/nvmet"
        b.sh(f"""modprobe nvmet-tcp && {{ grep -q configfs /proc/mounts || mount -t configfs config /sys/kernel/config; }} &&
cd {root} && mkdir subsystems/{nqn} && cd subsystems/{nqn} &&
echo 1 >attr_allow_any_host && mkdir namespaces/1 && echo -n $(readlink -f /dev/lab/remote) >namespaces/1/device_path &&
echo 1 >namespaces/1/enable && mkdir {root}/ports/1 && cd {root}/ports/1 && echo tcp >addr_trtype &&
echo ipv4 >addr_adrfam && echo {b.address} >addr_traddr && echo {PORT_NVME} >addr_trsvcid &&
ln -s {root}/subsystems/{nqn} subsystems/{nqn}""")
        a.sh("modprobe nvme-tcp; mkdir -p /etc/nvme; echo nqn.2014-08.org.nvmexpress:uuid:"
             "00000000-0000-4000-8000-000000000001 >/etc/nvme/hostnqn; "
             f"nvme connect -t tcp -a {b.address} -s {PORT_NVME} -n {nqn}", timeout=60)
        a.until(f"test -b {self.device}", timeout=30)


DRBD = """
resource {name} {{
	options {{ }}
	net {{ protocol {protocol}; {net} }}
	device /dev/drbd{minor};
	disk /dev/lab/{disk};
	meta-disk internal;
	on a {{ address {a}:{port}; }}
	on b {{ address {b}:{port}; }}
}}
"""


class Drbd(Target):
    """DRBD 8.4 of the stock kernel."""

    def __init__(self, a, b, protocol: str, minor: int):
        self.resource = f"drbd{protocol.lower()}"
        super().__init__(f"drbd-{protocol}", f"/dev/drbd{minor}")
        self.a = a
        text = DRBD.format(name=self.resource, protocol=protocol, minor=minor, disk=self.resource,
                           a=a.address, b=b.address, port=7800 + minor,
                           net="max-buffers 8000; sndbuf-size 4M;")
        for guest in (a, b):
            guest.sh("modprobe drbd usermode_helper=/bin/true; mkdir -p /etc/drbd.d /var/lib/drbd /var/run/drbd /var/lock; "
                     "grep -q usage-count /etc/drbd.conf 2>/dev/null || "
                     "echo 'global { usage-count no; } include \"/etc/drbd.d/*.res\";' >/etc/drbd.conf")
            guest.put(f"/etc/drbd.d/{self.resource}.res", text)
            guest.sh(f"drbdadm --force create-md {self.resource} </dev/null && drbdadm up {self.resource}", timeout=60)
        a.until(f"drbdadm dstate {self.resource}", "Inconsistent/Inconsistent", timeout=60)
        # Both disks are blank: nothing need be copied first.
        a.sh(f"drbdadm new-current-uuid --clear-bitmap {self.resource}/0 && "
             f"drbdadm primary {self.resource}", timeout=60)
        a.until(f"drbdadm dstate {self.resource}", "UpToDate/UpToDate", timeout=60)

    def rest(self):
        # Its send buffer is empty when the peer has confirmed everything.
        self.a.until(f"grep -A1 '^ *{self.device[9:]}:' /proc/drbd", r"pe:0 ua:0 ap:0", timeout=120)


class Replicate(Target):
    """Ours; the modes share the group, a mode is set before each measurement."""

    hosts = None

    def __init__(self, a, b, mode: str):
        super().__init__(f"replicate-{mode}", "/dev/mapper/db-data")
        self.mode = mode
        if Replicate.hosts is None:
            first, second = Host(a, "primary"), Host(b, "secondary")
            for host in (first, second):
                host.load()
                host.format()
                host.group_add()
                host.create()
            second.link_add(LINK, first, mode)
            first.link_add(LINK, second, mode)
            first.wait_link(LINK, "needs-sync", "catching-up", "streaming")
            first.sync(LINK, "assume-clean")
            first.wait_drained(LINK)
            Replicate.hosts = (first, second)

    def begin(self):
        for host in Replicate.hosts:
            host.sh(f"dmrepl link set db {LINK} --mode {self.mode}")
        first = Replicate.hosts[0]
        if self.mode != "async":
            first.wait_in_sync(LINK)

    def rest(self):
        Replicate.hosts[0].wait_drained(LINK, timeout=120)


MAKERS = {
    "raw": Raw,
    "nvme-tcp": NvmeTcp,
    "drbd-A": lambda a, b: Drbd(a, b, "A", 1),
    "drbd-C": lambda a, b: Drbd(a, b, "C", 2),
    "replicate-async": lambda a, b: Replicate(a, b, "async"),
    "replicate-received": lambda a, b: Replicate(a, b, "received"),
}

# What ours is held against: the same safety, or what it replaces.
RATIOS = {
    "replicate-async": ("raw", "drbd-A"),
    "replicate-received": ("nvme-tcp", "drbd-C"),
}
