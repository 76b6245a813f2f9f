# SPDX-License-Identifier: GPL-2.0
"""Types what Documentation/tutorial.rst shows, as it stands there.

alpha and beta are two guests of the lab, which have the tutorial's addresses and other names for its devices.
Called by scenarios that show that the tutorial's way is a way.
"""

import re

from lab import paths

TEXT = paths.TOP / "Documentation/tutorial.rst"
DEVICES = {"/dev/vdb": "/dev/lab/data", "/dev/vdc": "/dev/lab/srl"}
PROMPT = re.compile(r"\s+(alpha|beta|both)# (.*)")
UNDERLINE = re.compile(r"(=+|-+)$")


def commands(section: str) -> list:
    """[(host, command)] of a section, in order; host is alpha, beta, or both."""
    lines = TEXT.read_text().splitlines()
    heads = [n for n in range(len(lines) - 1) if lines[n] and UNDERLINE.match(lines[n + 1])]
    begin = next(n for n in heads if lines[n] == section)
    end = next((n for n in heads if n > begin), len(lines))
    found, rest = [], iter(lines[begin:end])
    for line in rest:
        if match := PROMPT.match(line):
            command = match[2]
            while command.endswith("\\"):
                command = command[:-1] + next(rest).strip()
            found.append((match[1], command))
    if not found:
        raise ValueError(f"the tutorial shows no command under '{section}'")
    return found


def play(hosts: dict, section: str, before=None):
    """Types a section's commands; `hosts` maps alpha and beta to hosts. `before(host, command)` is called
    ahead of each, where a person would have looked whether it is time."""
    for who, command in commands(section):
        for name in hosts if who == "both" else [who]:
            _type(hosts, hosts[name], command, before)


def _type(hosts: dict, host, command: str, before):
    for shown, device in DEVICES.items():
        command = command.replace(shown, device)
    if match := re.match(r"ssh (alpha|beta) (.*)", command):
        host, command = hosts[match[1]], match[2]
    if match := re.match(r"scp -p (\S+) (alpha|beta):(\S+)$", command):
        name = match[1].rsplit("/", 1)[-1]
        hosts[match[2]].guest.put(match[3].rstrip("/") + "/" + name, host.guest.get(match[1]), mode="600")
        print(f"{host.name}# {command}", flush=True)
        return
    if before:
        before(host, command)
    print(f"{host.name}# {command}", flush=True)
    out = host.guest.sh(command)
    print("".join(f"    {line}\n" for line in out.splitlines()), end="", flush=True)
