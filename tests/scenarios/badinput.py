# SPDX-License-Identifier: GPL-2.0
"""Bad input of every kind: a clear message that names the thing that is wrong, and nothing changed."""

from lab.lab import MIB

from scenarios.kit.host import Host
from scenarios.kit.pair import LINK


def _dm_fails(guest, name: str, table: str, *words: str):
    """A table line that is refused; the reason stands in the kernel's log."""
    guest.sh("dmesg -c >/dev/null")
    guest.fails(f'dmsetup create {name} --table "{table}"', "failed|rror")
    said = guest.sh("dmesg")
    for word in words:
        assert word.lower() in said.lower(), f"'{word}' is not in what was said for {table}:\n{said}"
    assert name not in guest.sh("ls /dev/mapper")


def _fails(guest, command: str, *words: str):
    """A command that is refused with all these words."""
    said = guest.fails(command)
    for word in words:
        assert word.lower() in said.lower(), f"'{word}' is not in what was said to {command}:\n{said}"


def _digest(guest, *disks: str) -> str:
    return guest.sh("md5sum " + " ".join(f"/dev/lab/{d}" for d in disks))


def scenario_table_lines(lab):
    """Unknown group, wrong arguments, a data device that is too small, busy, or the log itself."""
    (guest,) = lab.hosts
    host = Host(guest, "primary")
    host.load()
    sectors = int(guest.sh("blockdev --getsz /dev/lab/data"))
    _dm_fails(guest, "x", f"0 {sectors} replicate nosuch data /dev/lab/data", "unknown group 'nosuch'")
    host.format()
    before = _digest(guest, "data", "small", "other")
    host.group_add()
    good = f"0 {sectors} replicate db data /dev/lab/data"
    for table, words in (
            (f"0 {sectors} replicate", ("argument", "usage")),
            (f"0 {sectors} replicate db", ("argument", "usage")),
            (f"0 {sectors} replicate db data", ("argument", "usage")),
            (f"{good} 2", ("optional arguments", "2")),
            (f"{good} 1 block_size", ("block_size",)),
            (f"{good} two block_size 4096", ("two",)),
            (f"{good} 2 block_size 513", ("block_size 513",)),
            (f"{good} 2 block_size 1048576", ("block_size",)),
            (f"{good} 2 discard_zero 2", ("discard_zero",)),
            (f"{good} 2 blocksize 4096", ("blocksize", "block_size")),
            (f"0 {sectors} replicate db da/ta /dev/lab/data", ("da/ta", "volume name")),
            (f"0 {sectors} replicate db {'v' * 64} /dev/lab/data", ("volume name",)),
            (f"0 {sectors} replicate db data /dev/lab/nosuch", ("nosuch",)),
            (f"0 {sectors} replicate db data /dev/lab/small", ("too small",)),
            (f"0 {sectors} replicate db data /dev/lab/srl", ("srl",)),
            (f"8 {sectors - 8} replicate db data /dev/lab/data", ("gap in table",)),
            (f"0 {sectors - 1} replicate db data /dev/lab/data 2 block_size 4096", ("block",))):
        _dm_fails(guest, "x", table, *words)
    # Mounted elsewhere.
    guest.sh("mkfs.ext4 -q /dev/lab/other && mount /dev/lab/other /mnt")
    sectors_other = int(guest.sh("blockdev --getsz /dev/lab/other"))
    _dm_fails(guest, "x", f"0 {sectors_other} replicate db data /dev/lab/other", "other", "in use")
    guest.sh("umount /mnt && wipefs -aq /dev/lab/other && dd if=/dev/zero of=/dev/lab/other bs=1M 2>/dev/null; true")
    assert _digest(guest, "data", "small", "other") == before, "a refused line has changed a disk"
    # The good line works after all of that; the same volume twice does not.
    host.create()
    host.wait_active()
    _dm_fails(guest, "y", f"0 {sectors_other} replicate db data /dev/lab/other", "db/data", "already")
    _fails(guest, "dmrepl group del db", "db", "volume")
    _fails(guest, "dmsetup message db-data 0 nonsense", "")
    host.down()
    # A smaller disk than the volume table says.
    host.group_add(role=False)
    _dm_fails(guest, "x", "0 2048 replicate db data /dev/lab/small", "data")


scenario_table_lines.guests = 1
scenario_table_lines.options = {"disks": {"srl": 32 * MIB, "data": 16 * MIB, "small": 4 * MIB, "other": 16 * MIB}}


def scenario_logs(lab):
    """An SRL that is not formatted, too small, another group's, in use, damaged, or something else."""
    (guest,) = lab.hosts
    host = Host(guest, "primary")
    host.load()
    key = "--secret-file /etc/dm-replicate/db.key"
    _fails(guest, f"dmrepl group add db --srl /dev/lab/srl --role primary {key}", "/dev/lab/srl", "srl format")
    _fails(guest, f"dmrepl group add db --srl /dev/lab/nosuch --role primary {key}", "/dev/lab/nosuch")
    _fails(guest, "dmrepl srl format /dev/lab/tiny", "/dev/lab/tiny", "needs at least")
    guest.sh("mkfs.ext4 -q /dev/lab/fs")
    before = _digest(guest, "fs")
    _fails(guest, "dmrepl srl format /dev/lab/fs", "/dev/lab/fs", "ext2/3/4", "--force")
    _fails(guest, f"dmrepl group add db --srl /dev/lab/fs --role primary {key}", "/dev/lab/fs")
    assert _digest(guest, "fs") == before, "a refused command has changed the filesystem"
    guest.sh("mount /dev/lab/fs /mnt")
    _fails(guest, "dmrepl srl format /dev/lab/fs --force", "in use")
    guest.sh("umount /mnt")
    host.format()
    _fails(guest, "dmrepl srl format /dev/lab/srl", "/dev/lab/srl", "--force")
    _fails(guest, f"dmrepl group add db --srl /dev/lab/srl {key}", "role")
    _fails(guest, f"dmrepl group add d/b --srl /dev/lab/srl --role primary {key}", "d/b")
    _fails(guest, "dmrepl group add db --srl /dev/lab/srl --role primary --secret-file /nosuch", "/nosuch")
    _fails(guest, f"dmrepl group add db --srl /dev/lab/srl --role primary {key} --srl-policy bypass", "not implemented")
    _fails(guest, f"dmrepl group add db --srl /dev/lab/srl --role primary {key} --pool 64K", "pool")
    host.group_add()
    _fails(guest, f"dmrepl group add db --srl /dev/lab/srl --role primary {key}", "db", "already")
    _fails(guest, f"dmrepl group add two --srl /dev/lab/srl --role primary {key}", "/dev/lab/srl", "in use")
    _fails(guest, "dmrepl srl format /dev/lab/srl --force", "/dev/lab/srl", "in use")
    # A second group with its own log works beside it.
    two = Host(guest, "primary", group="two", volumes={"other": "fs"}, srl="srl2")
    two.write_secret()
    two.format()
    two.group_add()
    assert two.status()["name"] == "two" and host.status()["name"] == "db"
    two.sh("dmrepl group del two")
    two.role = "secondary"
    two.format(force=True)
    two.group_add()
    two.sh("dmrepl group del two")
    _fails(guest, "dmrepl group add two --srl /dev/lab/srl2 --role primary --secret-file /etc/dm-replicate/two.key",
           "/dev/lab/srl2", "secondary", "takeover")
    host.create()
    host.wait_active()
    host.down()
    # The role is in the superblock now, and so is the name.
    _fails(guest, f"dmrepl group add db --srl /dev/lab/srl --role secondary {key}", "primary", "demoted")
    _fails(guest, f"dmrepl group add two --srl /dev/lab/srl {key}", "db")
    # Of the two slots and their copies one may be damaged, all may not.
    guest.sh("dmrepl srl check /dev/lab/srl")
    guest.sh("dd if=/dev/lab/srl of=/tmp/begin bs=1M count=1 2>/dev/null; "
             "dd if=/dev/urandom of=/dev/lab/srl bs=4k count=1 conv=notrunc 2>/dev/null; sync")
    host.group_add(role=False)
    host.down()
    guest.sh("dd if=/tmp/begin of=/dev/lab/srl bs=1M conv=notrunc 2>/dev/null; sync")


scenario_logs.guests = 1
scenario_logs.options = {"disks": {"srl": 32 * MIB, "srl2": 32 * MIB, "data": 16 * MIB, "fs": 16 * MIB,
                                   "tiny": {"size": 64 * 1024}}}


def scenario_commands(lab):
    """Unknown groups and links, values that are not implemented, no module, no permission."""
    (guest,) = lab.hosts
    _fails(guest, "dmrepl status", "module")
    host = Host(guest, "primary")
    host.load()
    _fails(guest, "dmrepl status nosuch", "nosuch")
    _fails(guest, "dmrepl takeover nosuch", "nosuch")
    _fails(guest, "dmrepl group del nosuch", "nosuch")
    _fails(guest, "dmrepl link add nosuch dr --local 10.0.0.1 --peer 10.0.0.2", "nosuch")
    host.format()
    host.group_add()
    host.create()
    host.wait_active()
    # An address of its own; there is no way to any other.
    guest.sh("ip link set lo up; ip addr add 10.0.0.1/32 dev lo")
    for word, value in (("on-disconnect", "fail"), ("on-disconnect", "freeze"), ("on-log-full", "map"),
                        ("on-log-full", "stall"), ("on-log-full", "fail")):
        _fails(guest, f"dmrepl link add db dr --local 10.0.0.1 --peer 10.0.0.2 --{word} {value}", value, "not implemented")
    assert not host.status()["links"]
    _fails(guest, "dmrepl link add db dr --local 10.9.9.9 --peer not-an-address", "not-an-address")
    _fails(guest, "dmrepl link add db dr --local 10.0.0.1 --peer 10.0.0.2 --mode half", "half")
    _fails(guest, "dmrepl takeover db", "primary")
    guest.sh("dmrepl link add db dr --local 10.0.0.1 --peer 10.0.0.2")
    _fails(guest, "dmrepl link add db dr --local 10.0.0.1 --peer 10.0.0.2", "dr", "already")
    _fails(guest, "dmrepl link del db nosuch", "nosuch")
    _fails(guest, "dmrepl sync db nosuch --full", "nosuch")
    for kind in ("update", "reverse"):
        _fails(guest, f"dmrepl sync db dr --{kind}", kind, "not implemented")
    # A link to a dead address says so, and costs the writers nothing.
    link = host.wait_link("dr", "connecting")
    host.wait("a reason", lambda s: s["links"][0].get("reason") in ("unreachable", "peer-timeout"))
    assert "10.0.0.2" in host.link("dr")["reason_text"], host.link("dr")
    guest.sh(f"dd if=/dev/zero of={host.dev()} bs=4k count=50 oflag=direct 2>&1", timeout=20)
    print(f"note: {link['reason_text']}")
    # A secret that can be guessed is none.
    guest.sh("echo 123456789abcdef >/tmp/short")
    _fails(guest, "dmrepl group set db --secret-file /tmp/short", "15 bytes")
    host.sh("dmrepl link del db dr")


scenario_commands.guests = 1


def scenario_peers(lab):
    """Wrong secret, another group, a volume that is too small or of larger blocks, a missing volume, two
    primaries, an unknown link: both sides give the reason and no data moves."""
    a_guest, b_guest = lab.hosts
    a = Host(a_guest, "primary")
    b = Host(b_guest, "secondary")

    def fresh(host, **changes):
        """The host's group anew, with something changed."""
        if any(g["name"] == "db" for g in _groups(host)):
            host.down()
        host.guest.run("blkdiscard -f /dev/lab/srl")
        host.links.clear()
        for name, value in changes.items():
            setattr(host, name, value)
        host.write_secret()
        host.format(force=True)
        host.group_add()
        host.create()

    def meet(*reasons, words=(), turned_away=False):
        b.link_add(LINK, a)
        a.link_add(LINK, b)
        for host in (a, b):
            if turned_away and host is b:
                # An unauthenticated peer changes no state: the reason is shown, the link goes on waiting.
                host.wait("said why", lambda s: s["links"][0]["reason"] in reasons, timeout=30)
                link = host.wait_link(LINK, "connecting", timeout=1)
                assert link["stats"]["dropped"] > 0, link
            else:
                link = host.wait_link(LINK, "refused", timeout=30)
            assert link["reason"] in (*reasons, "peer-refused"), (host.name, link)
            for word in words:
                assert word.lower() in link["reason_text"].lower(), (host.name, word, link)
        assert a.link()["reason"] in reasons or b.link()["reason"] in reasons
        assert b.status()["applied_seq"] == 0, b.status()
        print(f"note: {b.link()['reason']}: {b.link()['reason_text']}")

    for host in (a, b):
        host.load()
    fresh(a)
    fresh(b, secret="something else, as long")
    meet("auth", words=("secret",), turned_away=True)
    fresh(a)
    fresh(b, secret=a.secret, volumes={"data": "small"})
    meet("volume-too-small", words=("data",))
    fresh(a)
    fresh(b, volumes={"data": "blocks"})
    meet("block-size", words=("data", "block_size"))
    fresh(a, volumes={"data": "data", "more": "small"})
    fresh(b, volumes={"data": "data"})
    meet("volume-missing", words=("more",))
    fresh(a, volumes={"data": "data"})
    fresh(b, role="primary")
    b.link_add(LINK, a)
    a.link_add(LINK, b)
    for host in (a, b):
        link = host.wait_link(LINK, "refused", "connecting", timeout=30)
        host.wait("a reason", lambda s: s["links"][0].get("reason") not in (None, "none", "not-connected"))
    fresh(a)
    fresh(b, role="secondary")
    # The peer knows no link of this name.
    b.link_add("other", a)
    a.link_add(LINK, b)
    a.wait("unknown link", lambda s: s["links"][0]["reason"] in ("unknown-link", "peer-refused"), timeout=30)
    # The secondary adopts the group of its first primary and refuses any other's.
    fresh(a)
    fresh(b)
    b.link_add(LINK, a)
    a.link_add(LINK, b)
    a.wait_link(LINK, "needs-sync", "catching-up", "streaming")
    a.sync(LINK, "assume-clean")
    a.wait_link(LINK, "streaming")
    fresh(a)
    a.link_add(LINK, b)
    for host in (a, b):
        link = host.wait_link(LINK, "refused", timeout=30)
        assert link["reason"] in ("group-mismatch", "peer-refused"), (host.name, link)


def _groups(host) -> list:
    import json
    return json.loads(host.guest.sh("dmrepl status --json"))["groups"]


scenario_peers.options = {"disks": {"srl": 32 * MIB, "data": 16 * MIB, "small": 8 * MIB,
                                    "blocks": {"size": 16 * MIB, "block": 4096}}}
