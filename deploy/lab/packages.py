"""Debian packages that the VMs need and this machine does not: fetched with apt, unpacked into the
cache, never installed. Their own scripts do not run here."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from failure import Failure


def kernel(name, cache):
    """The kernel image and the directory of modules of a kernel package or of one that depends on it."""
    tree = unpacked(name, cache, kernel_packages)
    images = sorted(tree.glob("boot/vmlinuz-*"))
    if not images:
        raise Failure(f"package {name} has no kernel", "--kernel linux-image-cloud-amd64")
    version = images[-1].name.removeprefix("vmlinuz-")
    for below in ("lib/modules", "usr/lib/modules"):
        if (tree / below / version).is_dir():
            return images[-1], tree / below / version
    raise Failure(f"package {name} has no modules for {version}", "--kernel linux-image-cloud-amd64")


def open_vswitch(cache):
    """A directory with Open vSwitch and those libraries of it that this machine does not have."""
    return unpacked("openvswitch-switch", cache, missing_packages)


def unpacked(name, cache, fetch):
    tree = cache / name
    if not tree.exists():
        print(f"fetching {name} into {cache}", flush=True)
        new = cache / f"{name}.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        try:
            fetch(name, new)
            # Only a whole one gets the name.
            new.rename(tree)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return tree


def kernel_packages(name, into):
    """A metapackage names the kernel's package, which on some systems names that of its modules."""
    wanted, seen = [name], set()
    while wanted:
        package = wanted.pop()
        if package in seen:
            continue
        seen.add(package)
        fields = download(package, into)
        depends = re.findall(r"[a-z0-9][a-z0-9.+-]*(?= *[(,|]|$)", fields)
        wanted += [one for one in depends if re.match(r"linux-(image|modules)-", one)]


def missing_packages(name, into):
    planned = apt("install", "--simulate", "--no-install-recommends", name)
    for package in re.findall(r"^Inst (\S+)", planned, re.MULTILINE) or [name]:
        download(package, into)


def download(package, into):
    """Fetches and unpacks one package; what it depends on, as its control file says it."""
    apt("download", package, cwd=into)
    file = next(into.glob("*.deb"))
    said("dpkg-deb", "-x", file, into)
    depends = said("dpkg-deb", "-f", file, "Depends")
    file.unlink()
    return depends.strip()


def apt(*words, cwd=None):
    # Not as user _apt: the cache may lie where only its owner may write.
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", *words]
    try:
        return said(*command, cwd=cwd)
    except Failure:
        # The lists may be missing, or older than the archive.
        if os.geteuid() == 0:
            said("apt-get", "-qq", "update")
        try:
            return said(*command, cwd=cwd)
        except Failure as failure:
            raise Failure(str(failure), "`apt-get update`; is there a network?") from None


def said(*command, cwd=None):
    """Standard output of a command that must succeed."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Failure(f"{words[0]} is missing", "the lab needs Debian or Ubuntu") from None
    if done.returncode != 0:
        raise Failure(f"`{' '.join(words)}`: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def program(name, tree=None):
    """Path of a program of this machine, else of an unpacked package."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found:
        return Path(found)
    # Packages with alternatives keep programs outside of the usual directories.
    for path in sorted(tree.rglob(name)) if tree else []:
        if path.is_file() and os.access(path, os.X_OK):
            return path
    raise Failure(f"{name} is missing", "deploy/setup.sh lab")
