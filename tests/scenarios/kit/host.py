# SPDX-License-Identifier: GPL-2.0
"""A host of a replicated group: the commands that its administrator types, and waits that say what they
waited for.

A host remembers how it was configured, as the administrator's start-up script would, so that `up`
brings it back after a boot. What the kernel itself must remember is in the SRL only.
"""

import json
import time

from lab.paths import SLOW

SECRET = "correct horse battery staple"
KEY = "/etc/dm-replicate/{}.key"
PORT = 7790
# Tasks that wait uninterruptibly, and ours, with their stacks.
WAITS = """for p in /proc/[0-9]*; do
	case $(cat $p/comm) in dmrepl-*) ;; *) grep -q 'State:.D' $p/status || continue ;; esac
	echo "$(cat $p/comm) $(sed -n 's/^State://p' $p/status)"; cat $p/stack
done 2>/dev/null"""


class Waited(Exception):
    """What was waited for did not come; the text says what was there instead."""


class Host:
    def __init__(self, guest, role: str, group: str = "db", volumes: dict = None, srl: str = "srl",
                 secret: str = SECRET, ring: bool = True, options: str = "", say=None):
        """`volumes` maps a volume's name to the lab's disk below it, or a path; `options` go to group add;
        `say` is called with each command and its output (the demo shows them)."""
        self.guest, self.role, self.group, self.ring = guest, role, group, ring
        self.volumes = dict(volumes or {"data": "data"})
        self.srl = f"/dev/lab/{srl}"
        self.secret, self.options = secret, options
        self.links = {}
        self.say = say

    @property
    def name(self) -> str:
        return self.guest.name

    @property
    def address(self) -> str:
        return self.guest.address

    def dev(self, volume: str = None) -> str:
        """The device that applications use."""
        return f"/dev/mapper/{self.group}-{volume or next(iter(self.volumes))}"

    def devs(self) -> list:
        return [self.dev(v) for v in self.volumes]

    def disk(self, volume: str = None) -> str:
        """The data device below a volume."""
        disk = self.volumes[volume or next(iter(self.volumes))]
        return disk if disk.startswith("/") else f"/dev/lab/{disk}"

    # Commands ---------------------------------------------------------------

    def sh(self, command: str, timeout: float = 60) -> str:
        """What an administrator types; shown when somebody watches."""
        if self.say:
            self.say(self, command, None)
        out = self.guest.sh(command, timeout)
        if self.say:
            self.say(self, None, out)
        return out

    def load(self):
        """The module and the secret; both are gone after a boot."""
        if "dm_replicate " not in self.guest.sh("cat /proc/modules"):
            self.guest.run("modprobe -q dm-mod")
            self.sh("insmod /root/dm_replicate.ko")
        self.write_secret()

    def write_secret(self):
        self.guest.put(KEY.format(self.group), self.secret + "\n", mode="600")

    def format(self, force: bool = False):
        words = ["dmrepl srl format", self.srl]
        words += [] if self.ring else ["--no-ring"]
        self.sh(" ".join(words + (["--force"] if force else [])))

    def group_add(self, role: bool = True):
        words = [f"dmrepl group add {self.group} --srl {self.srl}"]
        words += [f"--role {self.role}"] if role else []
        self.sh(" ".join(words + [f"--secret-file {KEY.format(self.group)}", self.options]).strip())

    def table(self, volume: str, options: str = "") -> str:
        """The line that makes a volume, as long as its data device."""
        disk = self.disk(volume)
        sectors = int(self.guest.sh(f"blockdev --getsz {disk}"))
        return f"0 {sectors} replicate {self.group} {volume} {disk}{' ' + options if options else ''}"

    def create(self, volume: str = None, options: str = ""):
        for one in [volume] if volume else self.volumes:
            self.sh(f'dmsetup create {self.group}-{one} --table "{self.table(one, options)}"')

    def link_add(self, link: str, peer: "Host", mode: str = "async", options: str = "",
                 port: int = PORT):
        """Adds a link and remembers it for the next boot."""
        self.links[link] = (peer.address, mode, options, port)
        self._link_add(link)

    def _link_add(self, link: str):
        peer, mode, options, port = self.links[link]
        self.sh(f"dmrepl link add {self.group} {link} --local {self.address}:{port} "
                f"--peer {peer}:{port} --mode {mode} {options}".strip())

    def sync(self, link: str, kind: str = "full"):
        self.sh(f"dmrepl sync {self.group} {link} --{kind}")

    def up(self, first: bool = False):
        """Everything after a boot; the role is said the first time only."""
        self.load()
        self.group_add(role=first)
        for link in self.links:
            self._link_add(link)
        self.create()

    def down(self):
        """Takes everything of the group away again, in the order that a user would."""
        for volume in self.volumes:
            self.guest.run(f"dmsetup remove {self.group}-{volume}")
        for link in self.links:
            self.guest.run(f"dmrepl link del {self.group} {link}")
        self.sh(f"dmrepl group del {self.group}")

    def takeover(self, force: bool = False) -> str:
        self.role = "primary"
        return self.sh(f"dmrepl takeover {self.group}{' --force' if force else ''}")

    # Power ------------------------------------------------------------------

    def boot(self):
        """Power on, and the start-up script."""
        self.guest.start().wait_boot()
        self.up()

    def reset(self):
        self.guest.reset()
        self.up()

    # What it says -----------------------------------------------------------

    def status(self) -> dict:
        """The group, as `dmrepl status --json` has it."""
        groups = json.loads(self.guest.sh("dmrepl status --json"))["groups"]
        for group in groups:
            if group["name"] == self.group:
                return group
        raise Waited(f"{self.name}: status knows no group {self.group}: {groups}")

    def link(self, link: str = "dr") -> dict:
        return pick(self.status()["links"], link)

    def volume(self, volume: str = "data") -> dict:
        return pick(self.status()["volumes"], volume)

    def wait(self, what: str, test, timeout: float = 120, every: float = 0.1) -> dict:
        """Waits until `test(group status)` holds; the status that it held for."""
        end = time.monotonic() + timeout * SLOW
        while True:
            status = self.status()
            if test(status):
                return status
            if time.monotonic() > end:
                raise Waited(f"{self.name}: not {what} within {timeout} s: {brief(status)}")
            time.sleep(every)

    def wait_link(self, link: str, *states: str, timeout: float = 120) -> dict:
        status = self.wait(f"link {link} {' or '.join(states)}",
                           lambda s: pick(s["links"], link)["state"] in states, timeout)
        return pick(status["links"], link)

    def wait_in_sync(self, link: str = "dr", timeout: float = 120) -> dict:
        return self.wait(f"in-sync on {link}", lambda s: pick(s["links"], link).get("in_sync"),
                         timeout)

    def wait_drained(self, link: str = "dr", timeout: float = 120) -> dict:
        """The peer has applied all that was ever written here."""
        def drained(status):
            found = pick(status["links"], link)
            return (found["state"] == "streaming" and not found.get("behind_records")
                    and found.get("applied_seq") == status["head_seq"])
        return self.wait(f"drained to {link}", drained, timeout)

    def wait_active(self, timeout: float = 120) -> dict:
        """Every volume serves reads and writes."""
        return self.wait("active", lambda s: s["state"] == "active" and s["volumes"] and all(
            v["state"] == "active" for v in s["volumes"]), timeout)

    def wait_replica(self, timeout: float = 120) -> dict:
        return self.wait("a consistent replica", lambda s: s.get("replica_state") == "consistent",
                         timeout)

    def sum(self, volume: str = None, timeout: float = 120) -> str:
        """What a reader finds on a volume, as a checksum."""
        return self.guest.sh(f"dd if={self.dev(volume)} bs=1M iflag=direct 2>/dev/null | md5sum",
                             timeout).split()[0]

    def stuck(self) -> str:
        """For the message of what did not end in time: which tasks wait in the kernel, and where; the group."""
        waits = self.guest.run(WAITS)[1][-6000:]
        status = self.status()
        return f"{waits}\n{brief(status)}\n{status['stats']} {status['deferred']} deferred, pool {status['pool_used']}"

    def events(self):
        """Starts to listen; the job's text grows by a line of JSON for each event."""
        job = self.guest.spawn("exec dmrepl events --json 2>/dev/null")
        time.sleep(0.3)
        return job


def seen(job, **wanted) -> list:
    """The events of a listening job that have these fields; a value may be part of the text."""
    found = []
    for line in job.text.splitlines():
        if not line.startswith("{") or not line.endswith("}"):
            continue
        event = json.loads(line)
        if all(str(value) in str(event.get(key, "")) for key, value in wanted.items()):
            found.append(event)
    return found


def wait_event(job, timeout: float = 60, **wanted) -> dict:
    end = time.monotonic() + timeout * SLOW
    while True:
        found = seen(job, **wanted)
        if found:
            return found[0]
        if time.monotonic() > end:
            raise Waited(f"no event {wanted} within {timeout} s; seen:\n{job.text[-3000:]}")
        time.sleep(0.1)


def pick(objects: list, name: str) -> dict:
    for one in objects:
        if one["name"] == name:
            return one
    raise Waited(f"no {name} among {[o['name'] for o in objects]}")


def brief(status: dict) -> str:
    """A status as one line per object, states and reasons first."""
    def line(kind, one):
        text = f"{kind} {one['name']}: {one.get('state')} ({one.get('reason')}: {one.get('reason_text')})"
        rest = {k: v for k, v in one.items() if k.endswith(("seq", "records", "bytes", "sync", "text"))
                and k != "reason_text"}
        return f"{text} {rest}"
    lines = [line("group", status)]
    lines += [line("volume", v) for v in status.get("volumes", [])]
    lines += [line("link", x) for x in status.get("links", [])]
    return "\n  ".join(lines)
