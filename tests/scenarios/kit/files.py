# SPDX-License-Identifier: GPL-2.0
"""Real files on a filesystem: a tree of sources that guests can read, a writer that copies it file by
file, each made durable and then announced, and the comparison of what is found later.

A file is written under another name, flushed, renamed, and the folder flushed; then its number is said.
So a name that is visible has its whole content, and with one writer the visible names are a prefix of
the tree's list.
"""

import hashlib
import pathlib
import shlex
import subprocess
import time

from lab import paths
from lab.lab import MIB

# Parts of the kernel's source, by which the tree is made; the fallback is what every root has.
PARTS = ("block", "drivers/md", "fs/xfs", "fs/ext4", "net/core", "mm")
FALLBACK = "/usr/lib/python3*"

DISK = "source"
TREE = "/tree"


def source(parts=PARTS, limit: int = 12 * MIB) -> list:
    """[(name, path)] of the tree's files, in the order of the writer."""
    tops = sorted(paths.CACHE.glob("linux-*/drivers/md"))
    found = []
    if tops:
        top = tops[-1].parent.parent
        for part in parts:
            found += sorted(f for f in (top / part).rglob("*") if f.suffix in (".c", ".h", ".rs", ""))
    else:
        top = pathlib.Path("/")
        for one in sorted(pathlib.Path("/usr/lib").glob("python3*")):
            found += sorted(one.rglob("*.py"))
    files, total = [], 0
    for file in found:
        if not file.is_file() or file.is_symlink() or not file.stat().st_size:
            continue
        total += file.stat().st_size
        if total > limit:
            break
        files.append((str(file.relative_to(top)).replace("/", "+"), file))
    return files


class Tree:
    """A disk that holds the tree, and what is on it. The same file is a disk of every guest."""

    def __init__(self, folder: pathlib.Path, limit: int = 12 * MIB):
        self.files = source(limit=limit)
        self.names = [name for name, _ in self.files]
        self.sums = {}
        self.bytes = 0
        self.image = folder / "tree.img"
        place = folder / "tree"
        place.mkdir()
        for name, file in self.files:
            data = file.read_bytes()
            self.sums[name] = hashlib.md5(data).hexdigest()
            self.bytes += len(data)
            (place / name).write_bytes(data)
        (place / ".list").write_text("".join(n + "\n" for n in self.names))
        size = self.bytes // MIB * 3 // 2 + 8
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "1024", "-m", "0", "-O", "^has_journal", "-d",
                        str(place), str(self.image), f"{size}M"], check=True)

    def give(self, folder: pathlib.Path, guest: str) -> dict:
        """Makes the guest's copy of the disk; its entry for Lab.guests."""
        target = folder / f"{guest}-{DISK}.img"
        subprocess.run(["cp", "--sparse=always", str(self.image), str(target)], check=True)
        return {DISK: {"size": self.image.stat().st_size, "volatile": False}}


def mount_tree(guest):
    guest.sh(f"mkdir -p {TREE}; grep -q ' {TREE} ' /proc/mounts || mount -o ro /dev/lab/{DISK} {TREE}")


def mkfs(kind: str, dev: str) -> str:
    # Nothing is discarded first: the disks are new, and the time is not the test's.
    return f"mkfs.ext4 -q -F -E nodiscard {dev}" if kind == "ext4" else f"mkfs.xfs -q -f -K {dev}"


COPY = """
mkdir -p {to} && cd {to} || exit 1
n=0
while read -r f; do
	n=$((n + 1))
	[ $n -gt {skip} ] || continue
	cp {tree}/"$f" .new && sync .new && mv .new "$f" && sync . || exit 1
	echo "F $n"
done <{tree}/.list
echo done
"""


class Copier:
    """Copies the tree in a guest, one durable file after the other."""

    def __init__(self, guest, to: str, skip: int = 0):
        mount_tree(guest)
        self.job = guest.spawn(COPY.format(to=shlex.quote(to), tree=TREE, skip=skip))

    def durable(self) -> int:
        """Files that were said to be durable, as far as is known here."""
        lines = self.job.text.split("\n")[:-1]
        numbers = [int(x[2:]) for x in lines if x.startswith("F ")]
        return max(numbers, default=0)

    def wait(self, files: int, timeout: float = 60):
        end = time.monotonic() + timeout * paths.SLOW
        while self.durable() < files:
            if not self.job.running() and self.durable() < files:
                raise AssertionError(f"the copier ended with {self.job.rc}: {self.job.text[-500:]}")
            if time.monotonic() > end:
                raise AssertionError(f"{self.durable()} of {files} files within {timeout} s")
            time.sleep(0.05)


def compare(guest, folder: str, tree: Tree, at_least: int = 0, timeout: float = 180) -> int:
    """Compares every file found with the tree; how many there are. They must be the first of the list,
    and not fewer than `at_least`."""
    out = guest.sh(f"cd {folder} 2>/dev/null && ls | grep -v '^lost+found$' | xargs -r md5sum; true",
                   timeout)
    found = {}
    for line in out.splitlines():
        checksum, _, name = line.partition("  ")
        found[name] = checksum
    wrong = [n for n, s in found.items() if tree.sums.get(n) != s]
    assert not wrong, f"{len(wrong)} files differ from what was written: {wrong[:5]}"
    expected = tree.names[:len(found)]
    missing = [n for n in expected if n not in found]
    assert not missing, f"later files are there and earlier ones are not: {missing[:5]}"
    assert len(found) >= at_least, f"{at_least} files were durable, {len(found)} are there"
    return len(found)


def check_filesystem(guest, kind: str, dev: str):
    """The filesystem, unmounted after its own journal was replayed, must be in order."""
    if kind == "ext4":
        guest.sh(f"e2fsck -fn {dev}", timeout=120)
    else:
        guest.sh(f"xfs_repair -n {dev} 2>&1", timeout=120)
