# SPDX-License-Identifier: GPL-2.0
"""One guest: a QEMU process, its disks, its console, and the channel to its agent.

`kill` cuts the power. What the disks then hold is their affair: `power_cut` makes volatile disks lose
a seeded subset of what was not flushed, `reset` keeps everything.
"""

import pathlib
import re
import shlex
import signal
import subprocess
import time

from . import accel, agent, disk, dmesg, image, paths
from .agent import CommandFailed, GuestGone
from .qmp import Qmp

BOOT_TIMEOUT = 240 * paths.SLOW
# Under emulation QEMU now and then loses an interrupt of a disk while the kernel boots; the driver notices after a
# minute. Or its clock runs wild although accel.clock tells it how fast it is. Nothing of a test has run in the guest by
# then, so it is switched on again, and what that boot said is put aside.
BOOT_TRIES = 4


class Guest:
    def __init__(self, name: str, index: int, folder: pathlib.Path, initrd: pathlib.Path,
                 disks: list, memory: int = 1024, cpus: int = 1, wires=(), kernel=None,
                 append: str = "", nbd_arguments: list = (), tty: bool = False):
        self.name, self.index = name, index
        self.address = f"10.0.0.{index + 1}"
        self.disks = {d.name: d for d in disks}
        self.boots = 0
        self.expected = []
        self._folder, self._initrd = folder, initrd
        self._memory, self._cpus = memory * (2 if paths.DEBUG else 1), cpus
        self._wires = list(wires)
        self._kernel = kernel or paths.kernel()
        # The debug kernel's module carries its KUnit tests: they have a run of their own.
        self._append = f"kunit.enable=0 {append}" if paths.DEBUG else append
        self._nbd_arguments = list(nbd_arguments)
        self._tty = folder / f"{name}.tty" if tty else None
        self._process = None
        self._channel = None
        self._qmp = None
        self._server = None
        self.console = folder / f"{name}.console"
        for d in disks:
            d.create()

    # Power ------------------------------------------------------------------

    def start(self):
        """Power on; returns at once, see wait_boot."""
        if self.alive():
            raise RuntimeError(f"{self.name} already runs")
        volatile = [d for d in self.disks.values() if isinstance(d, disk.VolatileDisk)]
        if volatile and self._server is None:
            self._server = disk.Server(self.name, self._folder, volatile, self._nbd_arguments)
        self._agent_path = self._folder / f"{self.name}.agent"
        self._qmp_path = self._folder / f"{self.name}.qmp"
        for path in (self._agent_path, self._qmp_path):
            path.unlink(missing_ok=True)
        with open(self._folder / f"{self.name}.qemu", "ab") as log:
            self._process = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=log,
                                             stderr=log)
        self._since = time.monotonic()
        self._said = self.console.stat().st_size if self.console.exists() else 0
        self.boots += 1
        return self

    def _command(self) -> list:
        net = ",".join([self.address] + [w.setting(self.index) for w in self._wires])
        append = (f"console=ttyS0 loglevel=6 panic=-1 mitigations=off nokaslr no_timer_check "
                  f"random.trust_cpu=on rcupdate.rcu_expedited=1 watchdog_thresh=60 {accel.clock()} "
                  f"lab.name={self.name} lab.disks={len(self.disks)} lab.net={net} {self._append}")
        command = ["qemu-system-x86_64", *accel.arguments(), "-machine", "q35,i8042=off",
                   "-smp", str(self._cpus), "-m", str(self._memory), "-nodefaults", "-no-reboot",
                   "-display", "none", "-no-user-config", "-name", self.name,
                   "-kernel", str(self._kernel), "-initrd", str(self._initrd), "-append", append,
                   "-chardev", f"file,id=console,path={self.console},append=on",
                   "-serial", "chardev:console",
                   "-qmp", f"unix:{self._qmp_path},server=on,wait=off",
                   "-device", "virtio-serial-pci",
                   "-chardev", f"socket,id=agent,path={self._agent_path},server=on,wait=off",
                   "-device", "virtserialport,chardev=agent,name=lab.agent",
                   "-device", "virtio-rng-pci"]
        if self._tty:
            command[command.index("-append") + 1] += " lab.tty=1"
            command += ["-chardev", f"socket,id=tty,path={self._tty},server=on,wait=off",
                        "-device", "virtconsole,chardev=tty"]
        for wire in self._wires:
            command += wire.arguments(self.index)
        for d in self.disks.values():
            command += d.arguments()
        command += ["-blockdev", f"driver=file,filename={image.base()[1]},read-only=on,node-name=tools",
                    "-device", "virtio-blk-pci,drive=tools,serial=lab-tools"]
        return command

    def wait_boot(self, timeout: float = BOOT_TIMEOUT):
        """Returns when the guest takes commands."""
        for tries in range(1, BOOT_TRIES + 1):
            channel = agent.Channel(self.name, str(self._agent_path))
            try:
                channel.connect(timeout / BOOT_TRIES, self.alive)
                self._channel = channel
                self._check_clock()
                if paths.DEBUG:
                    # What boot itself has left is not ours.
                    self.run("echo clear >/sys/kernel/debug/kmemleak")
                return self
            except GuestGone as gone:
                self._channel = None
                if tries == BOOT_TRIES or not self.alive():
                    qemu = (self._folder / f"{self.name}.qemu").read_text(errors="replace")[-500:]
                    raise GuestGone(f"{gone}\n{qemu}{self.console_text()[-2000:]}") from None
                print(f"lab: {gone}; switching it on again", flush=True)
                channel.close(f"{self.name} is switched on again")
                self.kill()
                self._put_aside()
                self.start()

    def _put_aside(self):
        """Takes what this boot said out of the console: it is another log then, and no kernel's fault."""
        if self.console.exists():
            with open(self.console, "r+b") as console:
                console.seek(self._said)
                self.console.with_suffix(".put-aside").open("ab").write(console.read())
                console.truncate(self._said)

    def _check_clock(self):
        """No guest can have been up for longer than it has been switched on."""
        up = float(self.run("cat /proc/uptime")[1].split()[0])
        on = time.monotonic() - self._since
        if up > 1.2 * on + 1:
            raise GuestGone(f"{self.name}: its clock runs {up / on:.0f} times too fast")

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self):
        """Cuts the power. Disks are left as they are; see power_cut and reset."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._channel is not None:
            self._channel.close(f"{self.name} was killed")
            self._channel = None
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None

    def wait_death(self, timeout: float = 60):
        """Waits until the guest ended by itself (panic, poweroff)."""
        self._process.wait(timeout)
        self.kill()

    def freeze(self):
        """Stops its processors, and all else of it, until thaw; unlike QEMU's own stop this flushes no disk.

        On return its disks stand still, too: what it had sent to their server is carried out."""
        self._process.send_signal(signal.SIGSTOP)
        while not self._stands_still():
            time.sleep(0.001)
        if self._server is not None:
            self._server.ask("quiet")

    def _stands_still(self) -> bool:
        for thread in pathlib.Path(f"/proc/{self._process.pid}/task").iterdir():
            # The state is the first word after the name, which is in brackets.
            if (thread / "stat").read_text().rpartition(")")[2].split()[0] != "T":
                return False
        return True

    def thaw(self):
        self._process.send_signal(signal.SIGCONT)

    def power_cut(self, seed: int) -> str:
        """Cuts the power; volatile disks keep a random subset of what was not flushed.

        Returns the disk server's account of it. The guest stays off."""
        self.kill()
        if self._server is None:
            raise RuntimeError(f"{self.name} has no volatile disks: a power cut would show nothing")
        return self._server.ask(f"cut {seed}")

    def reset(self, boot: bool = True):
        """The reset button: memory is lost, the disks' caches survive."""
        self.kill()
        if boot:
            self.start().wait_boot()

    def close(self):
        self.kill()
        if self._server is not None:
            self._server.stop()
            self._server = None

    def nbd(self, command: str) -> str:
        """A control command of the volatile disks' server."""
        return self._server.ask(command)

    @property
    def qmp(self) -> Qmp:
        if self._qmp is None:
            self._qmp = Qmp(str(self._qmp_path))
        return self._qmp

    # Commands ---------------------------------------------------------------

    def run(self, command: str, timeout: float = 60, stdin: bytes = b"") -> tuple:
        """Runs a shell command: (exit code, output). 124 is the timeout."""
        job = self.spawn(command, timeout, stdin)
        try:
            rc = job.wait(timeout + 30)
        except TimeoutError:
            # The agent itself did not answer: the guest is stuck.
            raise GuestGone(f"{self.name} does not answer: {command}\n"
                            f"{self.console_text()[-3000:]}") from None
        return rc, job.text

    def sh(self, command: str, timeout: float = 60, stdin: bytes = b"") -> str:
        """Runs a command that must succeed; its output."""
        rc, out = self.run(command, timeout, stdin)
        if rc != 0:
            raise CommandFailed(f"{self.name}: `{command}` ended with {rc}:\n{out[-3000:]}")
        return out

    def fails(self, command: str, pattern: str = "", timeout: float = 60) -> str:
        """Runs a command that must fail with output that matches; its output."""
        rc, out = self.run(command, timeout)
        if rc in (0, 124) or not re.search(pattern, out):
            raise CommandFailed(f"{self.name}: `{command}` should fail saying /{pattern}/, "
                                f"but ended with {rc}:\n{out[-3000:]}")
        return out

    def spawn(self, command: str, timeout: float = 0, stdin: bytes = b"") -> agent.Job:
        """Starts a command and returns at once; the job has wait(), kill(), text, rc."""
        if self._channel is None:
            raise GuestGone(f"{self.name} is off")
        return self._channel.start(command, timeout, stdin)

    def put(self, path: str, data, mode: str = "644"):
        """Writes a file in the guest, from bytes, text or a local Path."""
        if isinstance(data, pathlib.Path):
            data = data.read_bytes()
        elif isinstance(data, str):
            data = data.encode()
        where = shlex.quote(path)
        self.sh(f"mkdir -p $(dirname {where}) && cat >{where} && chmod {mode} {where}", stdin=data)

    def get(self, path: str, timeout: float = 60) -> bytes:
        """A file of the guest."""
        job = self.spawn(f"cat {shlex.quote(path)}", timeout)
        if job.wait(timeout + 30) != 0:
            raise CommandFailed(f"{self.name}: cannot read {path}: {job.text[-500:]}")
        return job.output

    def until(self, command: str, pattern: str = "", timeout: float = 60, every: float = 0.2) -> str:
        """Runs a command again and again until it succeeds with output that matches."""
        end = time.monotonic() + timeout * paths.SLOW
        while True:
            rc, out = self.run(command, timeout)
            if rc == 0 and re.search(pattern, out):
                return out
            if time.monotonic() > end:
                raise CommandFailed(f"{self.name}: `{command}` did not come to /{pattern}/ within "
                                    f"{timeout} s; last ({rc}):\n{out[-3000:]}")
            time.sleep(every)

    def load(self, parameters: str = ""):
        """Loads the module."""
        self.sh(f"modprobe -q dm-mod; insmod /root/dm_replicate.ko {parameters}")

    # What it said -----------------------------------------------------------

    def console_text(self) -> str:
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def leaks(self) -> list:
        """Memory that nothing refers to: what two scans of kmemleak, some time apart, have not found."""
        self.run("for i in 1 2; do echo scan >/sys/kernel/debug/kmemleak; sleep 3; done", 120)
        return [f"kmemleak: {text}" for text in
                self.sh("cat /sys/kernel/debug/kmemleak").split("unreferenced object") if text.strip()]

    def faults(self) -> list:
        """What the kernel should not have said, in all boots of this guest."""
        return dmesg.faults(self.console_text(), self.expected)

    def save_dmesg(self, target: pathlib.Path):
        """The kernel's whole log, as far as the guest can still tell."""
        try:
            target.write_text(self.run("dmesg", timeout=10)[1])
        except (GuestGone, TimeoutError):
            pass
