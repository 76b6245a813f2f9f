# SPDX-License-Identifier: GPL-2.0
"""The host's end of the channel to guest-agent: runs commands in a guest, several at a time.

One thread per channel reads answers and hands them to the job that waits. When the guest goes away
every job ends with GuestGone.
"""

import itertools
import socket
import threading
import time

from .paths import SLOW


class GuestGone(Exception):
    """The guest was killed, died, or does not answer."""


class CommandFailed(Exception):
    """A command that had to succeed did not."""


class Job:
    """A command that runs in the guest."""

    def __init__(self, channel, number: int, command: str):
        self.command = command
        self.rc = None
        self._channel = channel
        self._number = number
        self._parts = []
        self._done = threading.Event()
        self._gone = None

    @property
    def output(self) -> bytes:
        return b"".join(self._parts)

    @property
    def text(self) -> str:
        return self.output.decode(errors="replace")

    def running(self) -> bool:
        return not self._done.is_set()

    def wait(self, timeout: float = None) -> int:
        """The exit code; GuestGone when the guest went away, TimeoutError when it takes longer."""
        if not self._done.wait(timeout and timeout * SLOW):
            raise TimeoutError(f"{self._channel.name}: still running after {timeout} s: "
                               f"{self.command}\n{self.text[-2000:]}")
        if self._gone:
            raise GuestGone(f"{self._channel.name}: {self._gone} during: {self.command}")
        return self.rc

    def kill(self):
        self._channel.send(b"kill %d\n" % self._number)

    def feed(self, data: bytes):
        self._parts.append(data)

    def finish(self, rc: int = None, gone: str = None):
        self.rc, self._gone = rc, gone
        self._done.set()


class Channel:
    """A connection to one boot of one guest."""

    def __init__(self, name: str, path: str):
        self.name = name
        self._path = path
        self._socket = None
        self._ids = itertools.count(1)
        self._jobs = {}
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._closed = None

    def connect(self, timeout: float, alive) -> None:
        """Waits for the agent; `alive()` tells whether waiting still makes sense."""
        end = time.monotonic() + timeout
        while self._socket is None:
            conn = socket.socket(socket.AF_UNIX)
            try:
                conn.connect(self._path)
                self._socket = conn
            except OSError:
                conn.close()
                if not alive() or time.monotonic() > end:
                    raise GuestGone(f"{self.name}: no agent port at {self._path}") from None
                time.sleep(0.02)
        threading.Thread(target=self._read, daemon=True).start()
        self.send(b"hello\n")
        while not self._ready.wait(0.1):
            if not alive():
                raise GuestGone(f"{self.name}: the guest ended while booting")
            if time.monotonic() > end:
                raise GuestGone(f"{self.name}: not booted after {timeout} s")

    def send(self, data: bytes):
        try:
            with self._lock:
                self._socket.sendall(data)
        except OSError as error:
            raise GuestGone(f"{self.name}: {error}") from None

    def start(self, command: str, timeout: float = 0, stdin: bytes = b"") -> Job:
        raw = command.encode()
        number = next(self._ids)
        job = Job(self, number, command)
        if self._closed:
            raise GuestGone(f"{self.name}: {self._closed}")
        self._jobs[number] = job
        head = b"run %d %d %d %d\n" % (number, int(timeout * 1000 * SLOW), len(raw), len(stdin))
        try:
            self.send(head + raw + stdin)
        except GuestGone:
            self._jobs.pop(number, None)
            raise
        if self._closed:
            job.finish(gone=self._closed)
        return job

    def _read(self):
        why = "the guest went away"
        try:
            with self._socket.makefile("rb") as stream:
                while line := stream.readline():
                    words = line.split()
                    if not words:
                        continue
                    if words[0] == b"ready":
                        self._ready.set()
                    elif words[0] == b"out":
                        data = stream.read(int(words[2]))
                        if job := self._jobs.get(int(words[1])):
                            job.feed(data)
                    elif words[0] == b"exit":
                        if job := self._jobs.pop(int(words[1]), None):
                            job.finish(rc=int(words[2]))
        except (OSError, ValueError, IndexError) as error:
            why = f"the channel broke: {error}"
        self.close(why)

    def close(self, why: str = "closed"):
        if self._closed:
            return
        self._closed = why
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except (OSError, AttributeError):
            pass
        for job in list(self._jobs.values()):
            job.finish(gone=why)
        self._jobs.clear()
