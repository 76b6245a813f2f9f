# SPDX-License-Identifier: GPL-2.0
"""What a guest boots: a small initramfs, and a read-only disk with the root's own programs and modules.

The disk keeps the boot short: nothing of it is loaded before it is used. Both change with the build
root only and are made once into the cache; what is built from this tree is appended to the initramfs
as a second archive, made new for each lab.
"""

import hashlib
import os
import pathlib
import shutil
import stat
import subprocess
import tempfile

from . import paths

PROGRAMS = """
dmsetup fio mkfs.ext4 e2fsck debugfs dumpe2fs tune2fs mkfs.xfs xfs_repair xfs_io ip tc ss nvme
drbdadm drbdsetup drbdmeta nbd-client blkdiscard fstrim wipefs lsblk strace mount umount bash blkid fallocate
losetup dd timeout perf ping dash setpriv unshare
""".split()

# Loaded on demand by modprobe in the guest; what they depend on comes along.
MODULES = """
virtio_blk virtio_scsi sd_mod virtio_net virtio_rng dm-mod dm-flakey dm-delay dm-log-writes dm-snapshot dm-zero
dm-thin-pool dm-crypt xfs btrfs brd loop null_blk nbd veth sch_netem sch_tbf sch_prio sch_ingress
cls_u32 cls_matchall act_mirred nvmet nvmet-tcp nvme-tcp drbd raid1 tls libcrc32c
nf_tables ip_tables iptable_filter
""".split()

# Without these the disk with all others cannot be read.
FIRST_MODULES = ("virtio_blk",)

# In the initramfs these lead to the disk.
ON_DISK = ("usr", "lib", "lib64")

FILES = ["/etc/nsswitch.conf", "/etc/mke2fs.conf"]

# Programs that others call by their full path.
HELPERS = ("/usr/lib/drbd", "/lib/drbd")


def _libs(program: str) -> set:
    """Shared libraries of a program, under the names the loader asks for."""
    done = subprocess.run(["ldd", program], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL)
    found = set()
    for line in done.stdout.splitlines():
        for word in line.split():
            if word.startswith("/"):
                found.add(word)
    return found


def _copy(source: str, root: pathlib.Path):
    """Copies a file to the same place, with what its symlinks lead to."""
    target = root / source.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy2(os.path.realpath(source), target)


def cpio(folder: pathlib.Path, target: pathlib.Path):
    """Archives a folder as the kernel reads it (not compressed: unpacking costs more than reading)."""
    # It becomes the guest's /, which other users than root go through, too.
    folder.chmod(0o755)
    with open(target, "wb") as out:
        find = subprocess.Popen(["find", ".", "-print0"], cwd=folder, stdout=subprocess.PIPE)
        subprocess.run(["cpio", "--null", "-o", "-H", "newc", "-R", "0:0", "--quiet"], cwd=folder,
                       stdin=find.stdout, stdout=out, check=True)
        if find.wait() != 0:
            raise RuntimeError(f"find in {folder} failed")


def _module_files() -> list:
    """The .ko.xz files of MODULES and everything they need."""
    release = paths.release()
    files = []
    for name in MODULES:
        done = subprocess.run(["modprobe", "-S", release, "--show-depends", name], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for line in done.stdout.splitlines():
            words = line.split()
            if words and words[0] == "insmod" and words[1] not in files:
                files.append(words[1])
    return files


def _build_base(root: pathlib.Path):
    for folder in ("bin", "sbin", "usr/bin", "usr/sbin", "lib64", "dev", "proc", "sys", "tmp", "run", "etc",
                   "mnt", "root", "var/lib/drbd", "var/run", "etc/drbd.d", "lib/modules"):
        (root / folder).mkdir(parents=True, exist_ok=True)

    busybox = shutil.which("busybox")
    shutil.copy2(busybox, root / "bin/busybox")
    for applet in paths.output(busybox, "--list").split():
        link = root / "bin" / applet
        # Busybox's own shell would prefer its applets to the real programs.
        if applet not in ("busybox", "sh") and not link.exists():
            link.symlink_to("/bin/busybox")
    (root / "bin/sh").symlink_to("/usr/sbin/dash")

    for name in PROGRAMS:
        program = shutil.which(name)
        if program is None:
            continue
        # The real thing goes where PATH looks first, before busybox's applet of that name.
        target = root / "usr/sbin" / name
        shutil.copy2(os.path.realpath(program), target)
        target.chmod(target.stat().st_mode | stat.S_IXUSR)
        for lib in _libs(program):
            _copy(lib, root)
    for folder in HELPERS:
        for program in sorted(pathlib.Path(folder).glob("*")) if os.path.isdir(folder) else ():
            if program.is_file():
                _copy(str(program), root)
                for lib in _libs(str(program)):
                    _copy(lib, root)
    for name in FILES:
        if os.path.exists(name):
            _copy(name, root)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "etc/ld.so.conf").write_text("/usr/lib/x86_64-linux-gnu\n/lib/x86_64-linux-gnu\n"
                                         "/usr/lib/x86_64-linux-gnu/ceph\n")
    subprocess.run(["ldconfig", "-r", str(root)], check=True, stderr=subprocess.DEVNULL)

    release = paths.release()
    lib = root / "lib/modules" / release
    for source in _module_files():
        target = root / os.path.realpath(source).lstrip("/").replace("usr/lib/", "lib/", 1)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Plain, so that any modprobe can load them and nothing is unpacked at boot.
        if source.endswith(".xz"):
            with open(target.with_suffix(""), "wb") as out:
                subprocess.run(["xz", "-dc", source], stdout=out, check=True)
        else:
            shutil.copy2(source, target)
    for name in ("modules.builtin", "modules.order", "modules.builtin.modinfo"):
        shutil.copy2(f"/lib/modules/{release}/{name}", lib / name)
    subprocess.run(["depmod", "-b", str(root), release], check=True)


def _key() -> str:
    recipe = hashlib.sha256()
    recipe.update(pathlib.Path(__file__).read_bytes())
    recipe.update(paths.MARK.read_bytes())
    recipe.update(paths.release().encode())
    return recipe.hexdigest()[:12]


def _split(root: pathlib.Path, first: pathlib.Path, disk: pathlib.Path):
    """Makes the initramfs archive and the disk of what was gathered under one root."""
    release = paths.release()
    early = root / "first"
    early.mkdir()
    for name in FIRST_MODULES:
        for file in (root / "lib/modules" / release).rglob(f"{name}.ko"):
            shutil.copy2(file, early / file.name)
    with tempfile.TemporaryDirectory(prefix="disk-") as folder:
        os.chmod(folder, 0o755)
        for name in ON_DISK:
            shutil.move(root / name, pathlib.Path(folder) / name)
            (root / name).symlink_to(f"/tools/{name}")
        (root / "tools").mkdir()
        size = int(paths.output("du", "-sm", folder).split()[0]) * 5 // 4 + 8
        disk.unlink(missing_ok=True)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-m", "0", "-O", "^has_journal",
                        "-d", folder, str(disk), f"{size}M"], check=True)
    cpio(root, first)


def base() -> tuple:
    """(initramfs archive, disk image) of all that comes from the build root; made when not cached."""
    first = paths.CACHE / f"guest-{_key()}.cpio"
    disk = first.with_suffix(".ext4")
    if not first.exists():
        with tempfile.TemporaryDirectory(prefix="image-") as folder:
            _build_base(pathlib.Path(folder))
            parts = [f.with_suffix(f"{f.suffix}.part{os.getpid()}") for f in (first, disk)]
            _split(pathlib.Path(folder), *parts)
            parts[1].rename(disk)
            parts[0].rename(first)
    return first, disk


def assemble(target: pathlib.Path, files: dict):
    """Writes the initramfs to boot: the base, then `files` (path in the guest -> path here)."""
    with tempfile.TemporaryDirectory(prefix="overlay-") as folder:
        root = pathlib.Path(folder)
        for name, source in files.items():
            place = root / name.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)
        overlay = root.parent / (root.name + ".cpio")
        try:
            cpio(root, overlay)
            with open(target, "wb") as out:
                for part in (base()[0], overlay):
                    with open(part, "rb") as data:
                        shutil.copyfileobj(data, out, 1 << 20)
                    # The kernel wants archives to start at four bytes.
                    out.write(b"\0" * (-out.tell() % 4))
        finally:
            overlay.unlink(missing_ok=True)
