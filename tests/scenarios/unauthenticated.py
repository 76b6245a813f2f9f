# SPDX-License-Identifier: GPL-2.0
"""Garbage, half messages and floods of connections on the port: the kernel stays up, memory does not grow, the
client is dropped and counted, and replication goes on."""

from scenarios.kit import load, pair, rawclient
from scenarios.kit.host import PORT, seen


def scenario_garbage_on_the_port(lab):
    """Everything that a client can send before the proof."""
    *hosts, c = pair.boot(lab, 3)
    p = pair.Pair(hosts, link_options="--heartbeat 300ms --peer-timeout 5s").configure()
    a, b = p.a, p.b
    events = b.events()
    writers = load.Load(a, seconds=240, writers=1, depth=4, options="--pause-us 20000")
    writers.wait_acked(20)
    target = b.address
    hello = rawclient.hello()
    connects = a.link()["stats"]["connects"]

    # From here on only the clients' part may grow.
    for turn in range(2):
        before = rawclient.kernel_memory(b.guest)
        words = [b"", b"GET / HTTP/1.0\r\n\r\n", b"\0" * 4096, b"\xff" * 4096, rawclient.noise(turn, 65536),
                 hello[:1], hello[:64], hello[:127], hello + hello, hello + rawclient.noise(turn, 4096),
                 hello + rawclient.proof()[:20], hello + rawclient.proof(rawclient.noise(7, 32)),
                 hello[:40] + b"\x01" + hello[41:]]
        words += [hello[:8] + rawclient.noise(seed, 120 + 37 * seed) for seed in range(6)]
        rawclient.send_all(c, target, words)
        rawclient.flood(c, target, 60)
        rawclient.flood(c, target, 60, hello[:50])
        rawclient.flood(c, target, 30, hello)
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
    said = rawclient.send(c, target, hello + rawclient.proof())
    assert "replic" not in rawclient.text_of(said).lower(), said

    assert seen(events, code="bad-peer"), events.text
    dropped = b.status()["links"]
    assert sum(x["stats"].get("dropped", 0) for x in dropped) > 0, dropped
    # The port of a primary.
    rawclient.send(c, a.address, hello + rawclient.proof())
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


for _one in (scenario_garbage_on_the_port, scenario_a_live_session_meets_broken_bytes):
    _one.guests = 0
