# SPDX-License-Identifier: GPL-2.0
"""Who gets in, and what the others cost: commands without privilege; garbage, half messages and floods of connections on
the port, from the peer's address and from others. The kernel stays up, memory does not grow, clients are dropped and
counted, and replication goes on."""

import time

from lab.lab import MIB

from scenarios.kit import load, pair, rawclient
from scenarios.kit.host import KEY, PORT, seen

# Everything that asks something of the kernel; with what group and link are there, all of it is allowed to root.
COMMANDS = """dmrepl status
dmrepl events --json
dmrepl group set db --commit-interval 10ms
dmrepl link set db dr --heartbeat 500ms
dmrepl link disconnect db dr
dmrepl link connect db dr
dmrepl sync db dr --full
dmrepl takeover db
dmrepl link add db dr2 --local {local}:7791 --peer {local}1:7791
dmrepl link del db dr2
dmrepl group add two --srl /dev/lab/srl2 --role primary --secret-file {key}
dmrepl group del two"""

NOBODY = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps={0} --ambient-caps={0} --"
# What comes before a command, and the exit code that it then has: not permitted, or no such family here.
OTHERS = {
    "nobody": (NOBODY.format("-all"), 5),
    "CAP_NET_ADMIN only": (NOBODY.format("+net_admin"), 5),
    "CAP_NET_ADMIN and more, not CAP_SYS_ADMIN": ("setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin --", 5),
    "root in a user namespace": ("unshare --user --map-root-user --", 5),
    "root in a network namespace": ("unshare --net --", 4),
    "root in both": ("unshare --user --map-root-user --net --", 4),
}


def scenario_who_may_do_what(lab):
    """Every operation, read and event subscription as nobody, with CAP_NET_ADMIN only, as root of a user and of a network
    namespace: refused, and nothing is changed. As root of the host itself: allowed."""
    guests = lab.guests(2, disks={**pair.disks(), "srl2": 64 * MIB})
    p = pair.Pair(guests).configure()
    a = p.a
    commands = COMMANDS.format(local=a.address, key=KEY.format("db")).splitlines()
    a.sh("dmrepl srl format /dev/lab/srl2")
    a.sh(f"chmod 644 {KEY.format('db')}; chmod 666 /dev/lab/srl2")
    before = settled(a)
    for who, (prefix, code) in OTHERS.items():
        for command in commands:
            found, out = a.guest.run(f"timeout 20 {prefix} {command} 2>&1", timeout=60)
            assert found == code, f"{who}: {command}: exit code {found}, not {code}: {out}"
    after = settled(a)
    assert after == before, f"something was changed: {before} -> {after}"
    for command in commands:
        found, out = a.guest.run(f"timeout 5 {command} 2>&1", timeout=60)
        # A primary has nothing to take over; `events` never ends by itself.
        allowed = found == 0 or "is primary on this host" in out or (found in (124, 143) and "events" in command)
        assert allowed, f"root: {command}: exit code {found}: {out}"
    a.wait_link("dr", "streaming")
    p.same()



def settled(host) -> dict:
    """What commands could have changed."""
    status = host.status()
    links = {x["name"]: (x["state"], x.get("heartbeat_ms"), x["stats"]["connects"]) for x in status["links"]}
    return {"commit": status.get("commit_interval_ms"), "role": status["role"], "links": links}


def scenario_garbage_on_the_port(lab):
    """Everything that a client can send before the proof."""
    *hosts, c = pair.boot(lab, 3)
    p = pair.Pair(hosts, link_options="--heartbeat 300ms --peer-timeout 5s").configure()
    a, b = p.a, p.b
    events = b.events()
    writers = load.Load(a, seconds=240, writers=1, depth=4, options="--pause-us 20000")
    writers.wait_acked(20)
    target = b.address
    hello, recorded = rawclient.hello(), rawclient.hello(key=b.secret.encode())
    connects = a.link()["stats"]["connects"]

    # From an address that is no peer's nothing is read, and nothing answered.
    for words in (hello, hello + rawclient.proof(), b"GET / HTTP/1.0\r\n\r\n"):
        assert rawclient.text_of(rawclient.send(c, target, words)) == "", "somebody else was answered"
    rawclient.flood(c, target, 100, hello)
    assert seen(events, code="bad-peer", text="not the address of a peer"), events.text
    # All that follows comes from the peer's own address: of another user of that host.
    c = a.guest

    # From here on only the clients' part may grow.
    for turn in range(2):
        before = rawclient.kernel_memory(b.guest)
        words = [b"", b"GET / HTTP/1.0\r\n\r\n", b"\0" * 4096, b"\xff" * 4096, rawclient.noise(turn, 65536),
                 hello[:1], hello[:64], hello[:-1], hello + hello, recorded[:-1] + b"\x01", recorded + recorded,
                 recorded + rawclient.noise(turn, 4096), recorded + rawclient.proof()[:20],
                 recorded + rawclient.proof(rawclient.noise(7, 32)), hello[:40] + b"\x01" + hello[41:]]
        words += [hello[:8] + rawclient.noise(seed, 152 + 37 * seed) for seed in range(6)]
        rawclient.send_all(c, target, words)
        rawclient.flood(c, target, 60)
        rawclient.flood(c, target, 60, hello[:50])
        rawclient.flood(c, target, 30, recorded)
        after = rawclient.kernel_memory(b.guest)
        print(f"note: slab {before['slab']} -> {after['slab']} KiB, "
              f"available {before['available']} -> {after['available']} KiB")
    # The first turn may fill caches; the second has nothing to add.
    assert after["slab"] < before["slab"] + 4096, (before, after)
    assert after["available"] > before["available"] - 12288, (before, after)

    # A version from the future is told what is spoken here, and an unknown link that it is unknown.
    said = rawclient.text_of(rawclient.send(c, target, rawclient.hello(highest=99, lowest=99)))
    assert "version" in said, said
    said = rawclient.text_of(rawclient.send(c, target, rawclient.hello(link="nosuch")))
    assert "link" in said, said
    # A client that has not proved that it knows the secret learns nothing that depends on it.
    said = rawclient.text_of(rawclient.send(c, target, hello))
    assert "proof is wrong" in said, said
    said = rawclient.send(c, target, recorded + rawclient.proof())
    assert "replic" not in rawclient.text_of(said).lower(), said

    assert seen(events, code="bad-peer"), events.text
    dropped = b.status()["links"]
    assert sum(x["stats"].get("dropped", 0) for x in dropped) > 0, dropped
    # The port of a primary.
    rawclient.send(b.guest, a.address, hello + rawclient.proof())
    assert b.link()["state"] == "streaming", b.link()
    writers.stop()
    p.same()
    assert a.link()["stats"]["connects"] == connects, a.link()


# A relay: passes some bytes as they are, then changes every byte 1 to a 2, until /run/good exists.
RELAY = """#!/bin/sh
if [ -e /run/good ]; then dd bs=65536 2>/dev/null; else dd bs=1 count=6000 2>/dev/null; tr '\\001' '\\002'; fi | nc {} {}
"""


def scenario_a_live_session_meets_broken_bytes(lab):
    """Bytes are changed on their way in a proven session: never applied, counted, sent again."""
    *hosts, middle = pair.boot(lab, 3)
    p = pair.Pair(hosts).configure()
    a, b = p.a, p.b
    middle.put("/run/relay", RELAY.format(b.address, PORT), mode="755")
    relay = middle.spawn(f"exec nc -ll -p {PORT + 1} -e /run/relay")
    a.sh("dmrepl link disconnect db dr")
    a.sh("dmrepl link del db dr")
    # What comes over the relay comes from its address.
    b.sh("dmrepl link del db dr")
    b.sh(f"dmrepl link add db dr --local {b.address}:{PORT} --peer {middle.address}:{PORT + 1} --peer-timeout 3s")
    a.sh(f"dmrepl link add db dr --local {a.address}:{PORT} --peer {middle.address}:{PORT + 1} "
         "--heartbeat 300ms --peer-timeout 3s")
    writers = load.Load(a, seconds=120, writers=1, depth=2, blocks="4096,16384", options="--pause-us 20000")
    writers.wait_acked(50)
    b.wait("an integrity error", lambda s: s["links"][0]["stats"].get("crc_errors", 0) > 0, timeout=30)
    writers.stop()
    middle.put("/run/good", "")
    a.wait_drained("dr", timeout=60)
    assert a.sum() == b.sum()
    print(f"note: {b.link()['stats']}")
    relay.kill()


# What a flood consists of: connections a second, how many it keeps open, and the bytes of which each sends a piece.
FLOODS = {
    "nothing": (100, 300, 0),
    "half": (50, 100, 80),
    "hello": (100, 300, rawclient.HELLO_BYTES),
}


def flood(guest, address: str, name: str, data: bytes):
    """Starts one of FLOODS; it ends when its job is killed."""
    rate, kept, piece = FLOODS[name]
    guest.put(f"/run/{name}", data)
    return guest.spawn(f"exec guest-agent flood {address}:{PORT} {rate} {kept} {piece} /run/{name}")


def reconnect(host):
    host.sh("dmrepl link disconnect db dr")
    host.wait_link("dr", "idle")
    host.sh("dmrepl link connect db dr")
    host.wait_link("dr", "streaming", timeout=60)


def scenario_floods(lab):
    """Floods from another address, and from the peer's own: the honest peer gets in with its first connection, places are
    bounded, and commands answer."""
    *hosts, c = pair.boot(lab, 3)
    p = pair.Pair(hosts, link_options="--heartbeat 300ms --peer-timeout 5s").configure()
    a, b = p.a, p.b
    # A hello without the secret, and one that was recorded, again and again.
    key = b.secret.encode()
    hellos = rawclient.hello() + rawclient.hello(key=key)
    floods = [flood(guest, b.address, name, hellos) for guest in (c, a.guest) for name in FLOODS]

    def dropped() -> int:
        return b.link()["stats"]["dropped"]

    began = dropped()
    b.wait("connections dropped", lambda s: s["links"][0]["stats"]["dropped"] > began + 200, timeout=120)
    connects, took, waiting = a.link()["stats"]["connects"], [], []
    for _ in range(5):
        waiting.append(b.link()["handshakes"])
        start = time.monotonic()
        reconnect(a)
        took.append(time.monotonic() - start)
    assert 60 <= max(waiting) <= 64, f"the flood does not fill the places of its address, and no more: {waiting}"
    # None of its connections was closed for another's sake.
    assert a.link()["stats"]["connects"] == connects + 5, a.link()
    print(f"note: reconnected in {', '.join(f'{t:.1f}' for t in took)} s; {dropped() - began} connections dropped")

    # Who has recorded more hellos than there are places can hold them all for a second: even then the peer gets in.
    nonces = (number.to_bytes(32, "little") for number in range(1, 201))
    floods.append(flood(a.guest, b.address, "hello", b"".join(rawclient.hello(nonce=n, key=key) for n in nonces)))
    began = dropped()
    b.wait("connections dropped", lambda s: s["links"][0]["stats"]["dropped"] > began + 200, timeout=120)
    start = time.monotonic()
    reconnect(a)
    print(f"note: among recorded hellos in {time.monotonic() - start:.1f} s")
    assert b.link()["handshakes"] <= 64, b.link()
    load.Load(a, seconds=2, writers=1, depth=2).finish()
    p.same()
    # Whatever the flood does, what listens can be taken away.
    start = time.monotonic()
    for command in ("link del db dr", "link add db dr --local {0}:{1} --peer {2}:{1}", "link del db dr"):
        b.guest.sh(f"timeout 20 dmrepl {command.format(b.address, PORT, a.address)}", timeout=60)
    b.guest.sh("timeout 20 dmsetup remove db-data && timeout 20 dmrepl group del db && timeout 20 rmmod dm_replicate")
    print(f"note: all of it removed in {time.monotonic() - start:.1f} s")
    for one in floods:
        one.kill()


for _one in (scenario_who_may_do_what, scenario_garbage_on_the_port, scenario_a_live_session_meets_broken_bytes, scenario_floods):
    _one.guests = 0
scenario_floods.debug = True
