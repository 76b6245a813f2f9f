# SPDX-License-Identifier: GPL-2.0
"""QEMU's own control channel, as far as the lab needs it."""

import json
import socket
import time


class Qmp:
    def __init__(self, path: str, timeout: float = 20):
        end = time.monotonic() + timeout
        while True:
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                self._socket.connect(path)
                break
            except OSError:
                self._socket.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        self._socket.settimeout(timeout)
        self._stream = self._socket.makefile("rw")
        self._stream.readline()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments):
        request = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        self._stream.write(json.dumps(request) + "\n")
        self._stream.flush()
        while True:
            answer = json.loads(self._stream.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise RuntimeError(f"QEMU refused {command}: {answer['error'].get('desc')}")

    def close(self):
        self._socket.close()
