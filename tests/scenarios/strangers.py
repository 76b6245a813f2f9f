# SPDX-License-Identifier: GPL-2.0
"""Garbage, half messages and crowds on the port: the kernel stays up, memory does not grow, the stranger
is dropped and counted, and replication goes on beside it."""

from scenarios.kit import load, pair, stranger
from scenarios.kit.host import PORT, seen


def scenario_strangers_at_the_port(lab):
    """All that a stranger can say before the proof."""
    *hosts, c = pair.boot(lab, 3)
    p = pair.Pair(hosts, link_options="--heartbeat 300ms --peer-timeout 5s").configure()
    a, b = p.a, p.b
    events = b.events()
    writers = load.Load(a, seconds=240, writers=1, depth=4, options="--pause-us 20000")
    writers.wait_acked(20)
    target = b.address
    hello = stranger.hello()
    connects = a.link()["stats"]["connects"]

    # From here on only the strangers' part may grow.
    for turn in range(2):
        before = stranger.kernel_memory(b.guest)
        words = [b"", b"GET / HTTP/1.0\r\n\r\n", b"\0" * 4096, b"\xff" * 4096, stranger.noise(turn, 65536),
                 hello[:1], hello[:64], hello[:127], hello + hello, hello + stranger.noise(turn, 4096),
                 hello + stranger.proof()[:20], hello + stranger.proof(stranger.noise(7, 32)),
                 hello[:40] + b"\x01" + hello[41:]]
        words += [hello[:8] + stranger.noise(seed, 120 + 37 * seed) for seed in range(6)]
        stranger.say_all(c, target, words)
        stranger.crowd(c, target, 60)
        stranger.crowd(c, target, 60, hello[:50])
        stranger.crowd(c, target, 30, hello)
        after = stranger.kernel_memory(b.guest)
        print(f"note: slab {before['slab']} -> {after['slab']} KiB, "
              f"available {before['available']} -> {after['available']} KiB")
    # The first turn may fill caches; the second has nothing to add.
    assert after["slab"] < before["slab"] + 4096, (before, after)
    assert after["available"] > before["available"] - 12288, (before, after)

    # A version from the future is told what is spoken here, and an unknown link that it is unknown.
    said = stranger.text_of(stranger.say(c, target, stranger.hello(highest=99, lowest=99)))
    assert "version" in said, said
    said = stranger.text_of(stranger.say(c, target, stranger.hello(link="nosuch")))
    assert "link" in said, said
    # Nothing that depends on the secret is said to one who has not proved that he knows it.
    said = stranger.say(c, target, hello + stranger.proof())
    assert "replic" not in stranger.text_of(said).lower(), said

    assert seen(events, code="bad-peer"), events.text
    dropped = b.status()["links"]
    assert sum(x["stats"].get("dropped", 0) for x in dropped) > 0, dropped
    # The port of a primary.
    stranger.say(c, a.address, hello + stranger.proof())
    assert b.link()["state"] == "streaming", b.link()
    writers.stop()
    p.same()
    assert a.link()["stats"]["connects"] == connects, a.link()


# A man in the middle: passes so many bytes as they are, then changes every byte 1 to a 2; until he is good.
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


for _one in (scenario_strangers_at_the_port, scenario_a_live_session_meets_broken_bytes):
    _one.guests = 0
