# SPDX-License-Identifier: GPL-2.0
"""Stamped writers in a guest. Their journal streams to the host, so that it is known which
writes were acknowledged before the guest was killed."""

import json
import pathlib
import time

from lab.paths import SLOW

MIX = "512,4096x6,16384,65536,unaligned"


class Load:
    def __init__(self, host, devices: list = None, seconds: float = 60, writers: int = 2, depth: int = 4,
                 readers: int = 0, seed: int = 1, blocks: str = MIX, options: str = ""):
        """`devices`: paths in the guest (default: all volumes of the host)."""
        self.host, self.readers = host, readers
        paths = devices or host.devs()
        self._words = f"/run/stamp.{seed}.{time.monotonic_ns()}"
        command = (f"exec stamp write {' '.join('--dev ' + d for d in paths)} --writers {writers} "
                   f"--depth {depth} --readers {readers} --blocks {blocks} --seconds {seconds} "
                   f"--seed {seed} {options} --ack-file - 2>{self._words}")
        self.job = host.guest.spawn(command)

    def journal(self) -> bytes:
        """The whole lines that have arrived by now."""
        data = self.job.output
        return data[:data.rfind(b"\n") + 1]

    def acked(self) -> int:
        return self.journal().count(b"\nC ")

    def wait_acked(self, count: int, timeout: float = 120):
        end = time.monotonic() + timeout * SLOW
        while self.acked() < count:
            if not self.job.running():
                raise AssertionError(f"the writers ended early ({self.job.rc}): {self.words()}")
            if time.monotonic() > end:
                raise AssertionError(f"{self.acked()} of {count} writes done within {timeout} s")
            time.sleep(0.02)

    def stop(self, timeout: float = 120):
        """Ends the writers; what is under way is waited for."""
        if self.job.running():
            self.job.kill()
        self.job.wait(timeout)
        self.check_reads()

    def check_reads(self):
        """No reader has seen by now what it must not see."""
        if self.readers:
            words = self.words()
            assert "VIOLATION" not in words, words[:4000]

    def finish(self, timeout: float = 180) -> dict:
        """Waits for the end; the writers' own account, which must be free of errors and violations."""
        rc = self.job.wait(timeout)
        words = self.words()
        assert rc == 0, f"stamp write ended with {rc}: {words}"
        return json.loads(words.strip().splitlines()[-1])

    def words(self) -> str:
        return self.host.guest.run(f"cat {self._words}")[1]

    def save(self, path: pathlib.Path, journal: bytes = None) -> pathlib.Path:
        path.write_bytes(self.journal() if journal is None else journal)
        return path


def shapes(host, volume: str = None, seed: int = 1) -> str:
    """Every shape of request, read back."""
    out = host.guest.sh(f"stamp shapes --dev {host.dev(volume)} --seed {seed}", timeout=240)
    assert "PASS" in out, out
    return out
