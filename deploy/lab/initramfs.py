"""The root file system of a VM: one cpio archive, made in memory, that the kernel unpacks."""

import lzma
import os
import re
import stat
import subprocess
from pathlib import Path

from failure import Failure
from packages import program, said

# Where the dynamic linker looks by itself.
LIBRARIES = "lib/x86_64-linux-gnu"
# What a host needs. Shells too: that of busybox takes its own `ip` for every `ip`.
PROGRAMS = ("dash", "bash", "ip", "bridge", "tc", "nft")
OVS_PROGRAMS = ("ovs-vsctl", "ovs-ofctl", "ovs-appctl", "ovsdb-tool", "ovsdb-server", "ovs-vswitchd")
OVS_SCHEMA = "usr/share/openvswitch/vswitch.ovsschema"
# Modules by their file name, * for any; with all that they depend on. The first ones are the machine.
MODULES = """
    virtio_pci virtio_net virtio_console virtio_rng
    af_packet bridge br_netfilter veth vxlan 8021q macvlan ipvlan dummy tun tap vrf bonding
    openvswitch vport-vxlan wireguard overlay nsh
    nf_tables nf_conntrack nf_conntrack_netlink nf_conntrack_bridge nf_flow_table nf_flow_table_inet nf_nat
    nf_reject_ipv4 nf_reject_ipv6 nf_log_syslog nfnetlink_log nfnetlink_queue nft_*
    sch_netem sch_tbf sch_htb sch_ingress sch_fq sch_fq_codel cls_u32 cls_flower cls_matchall act_mirred
    ifb inet_diag tcp_diag udp_diag unix_diag packet_diag netlink_diag nlmon
    crc32c_generic crc32c-intel libcrc32c chacha20poly1305 libchacha20poly1305
""".split()
DIRECTORIES = "dev proc sys run tmp root etc bin sbin lib lib64 usr usr/bin usr/lib usr/share var var/lib var/log lab mnt"


class Archive:
    """A cpio archive in the format "newc"; a path that is there already keeps its first content."""

    def __init__(self, file):
        self.file = file
        self.paths = set()

    def add(self, path, mode, content=b""):
        path = str(path).strip("/")
        if path in self.paths:
            return
        self.parents(path)
        self.paths.add(path)
        self.entry(path, mode, content)

    def parents(self, path):
        parent = os.path.dirname(path)
        if parent and parent not in self.paths:
            self.add(parent, stat.S_IFDIR | 0o755)

    def entry(self, path, mode, content):
        name = path.encode() + b"\0"
        # ino mode uid gid nlink mtime size, device and special device as major and minor, name, check
        fields = (len(self.paths), mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self.file.write(header + name + padding(len(header) + len(name)))
        self.file.write(content)
        self.file.write(padding(len(content)))

    def directory(self, path, mode=0o755):
        self.add(path, stat.S_IFDIR | mode)

    def link(self, path, target):
        self.add(path, stat.S_IFLNK | 0o777, target.encode())

    def text(self, path, text, mode=0o644):
        self.add(path, stat.S_IFREG | mode, text.encode())

    def copy(self, path, source):
        mode = 0o755 if os.access(source, os.X_OK) else 0o644
        try:
            self.add(path, stat.S_IFREG | mode, Path(source).read_bytes())
        except OSError as error:
            raise Failure(f"{source}: {error.strerror}") from None

    def program(self, path, source, trees=()):
        """A program and the shared libraries that it is linked to, searched below `trees` too."""
        self.copy(path, source)
        for name, library in libraries(source, trees):
            # The linker itself has an absolute path in every program.
            self.copy(library if name.startswith("/") else f"{LIBRARIES}/{name}", library)

    def end(self):
        self.entry("TRAILER!!!", 0, b"")
        self.file.flush()


def padding(length):
    return b"\0" * (-length % 4)


def libraries(source, trees):
    """(name, path) of each shared library; none for a static program or a script."""
    below = [str(tree / place) for tree in trees for place in (f"usr/{LIBRARIES}", LIBRARIES)]
    env = {**os.environ, "LD_LIBRARY_PATH": ":".join(below), "LC_ALL": "C"}
    done = subprocess.run(["ldd", source], env=env, capture_output=True, text=True, check=False)
    if "not found" in done.stdout:
        lines = [line.strip() for line in done.stdout.splitlines() if "not found" in line]
        raise Failure(f"{source}: {'; '.join(lines)}")
    named = re.findall(r"^\s*(\S+) => (/\S+)", done.stdout, re.MULTILINE)
    linker = re.findall(r"^\s*(/\S+) \(0x", done.stdout, re.MULTILINE)
    return named + [(path, path) for path in linker]


def add_modules(archive, modules):
    """The modules of `MODULES` and what they depend on, with the lists that modprobe reads."""
    base = f"lib/modules/{modules.name}"
    files = {module_name(path): path for path in modules.rglob("*.ko*")}
    content, depends, aliases = {}, {}, []
    wanted = [name for pattern in MODULES for name in matching(pattern, files)]
    while wanted:
        name = wanted.pop()
        # What is not a file is built in, or not known to this kernel.
        if name in content or name not in files:
            continue
        content[name] = decompressed(files[name])
        facts = re.findall(rb"\0(depends|alias)=([^\0]*)(?=\0)", content[name])
        needs = [need for key, value in facts if key == b"depends" for need in value.decode().split(",")]
        depends[name] = [module_name(Path(need)) for need in needs if need]
        aliases += [f"alias {value.decode()} {name}\n" for key, value in facts if key == b"alias"]
        wanted += depends[name]
    for name in content:
        archive.add(f"{base}/{name}.ko", stat.S_IFREG | 0o644, content[name])
    lines = [f"{name}.ko: {' '.join(f'{need}.ko' for need in closure(name, depends))}\n" for name in content]
    archive.text(f"{base}/modules.dep", "".join(lines))
    archive.text(f"{base}/modules.alias", "".join(aliases))
    for known in ("modules.builtin", "modules.order"):
        archive.copy(f"{base}/{known}", modules / known)


def module_name(path):
    # The kernel does not tell - from _ in the name of a module.
    return path.name.split(".ko")[0].replace("-", "_")


def matching(pattern, names):
    shape = re.compile(pattern.replace("-", "_").replace("*", ".*"))
    return [name for name in names if shape.fullmatch(name)]


def closure(name, depends):
    """All that a module depends on, each before what it needs itself, as in the lists of depmod."""
    found = []
    for need in depends.get(name, []):
        found += [one for one in [need, *closure(need, depends)] if one in depends]
    return [one for i, one in enumerate(found) if one not in found[i + 1 :]]


def decompressed(path):
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return subprocess.run(
            [program("zstd"), "-dcq", path], capture_output=True, check=True
        ).stdout
    return path.read_bytes()


def add_busybox(archive):
    """Busybox as the VM's own commands, and a second time as the root directory of containers."""
    busybox = program("busybox")
    if libraries(busybox, ()):
        raise Failure(f"{busybox} needs shared libraries", "apt-get install busybox-static")
    for root in ("", "srv/busybox/"):
        archive.copy(f"{root}bin/busybox", busybox)
        for name in said(busybox, "--list").split():
            archive.link(f"{root}bin/{name}", "busybox")
        archive.text(f"{root}etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        archive.text(f"{root}etc/nsswitch.conf", "hosts: files dns\n")
    for below in ("dev", "proc", "sys", "tmp", "root", "www"):
        archive.directory(f"srv/busybox/{below}")


def add_open_vswitch(archive, tree):
    for name in OVS_PROGRAMS:
        archive.program(f"usr/bin/{name}", program(name, tree), [tree])
    schema = next((root / OVS_SCHEMA for root in (tree, Path("/")) if (root / OVS_SCHEMA).exists()), None)
    if schema is None:
        raise Failure("openvswitch's schema is missing", f"remove {tree} and try again")
    archive.copy(OVS_SCHEMA, schema)


def make(file, modules, weft, script, guest, more, ovs):
    """Writes the archive to `file`. `more`: pairs of a file here and its path in the VM; `ovs`: the
    directory with Open vSwitch, or none."""
    archive = Archive(file)
    archive.copy("init", guest / "init")
    archive.copy("lab/lab.sh", guest / "lab.sh")
    if script:
        archive.add("lab/script", stat.S_IFREG | 0o755, script.read_bytes())
    for path in DIRECTORIES.split():
        # The kernel starts /sbin/modprobe; everything else is found by PATH.
        archive.link("sbin", "bin") if path == "sbin" else archive.directory(path)
    archive.directory("tmp", 0o1777)
    archive.link("etc/mtab", "/proc/self/mounts")
    archive.link("bin/sh", "/usr/bin/dash")
    archive.link("bin/bash", "/usr/bin/bash")
    for source, path in more:
        archive.program(path, source)
    archive.program("usr/bin/weft", weft)
    for name in PROGRAMS:
        archive.program(f"usr/bin/{name}", program(name))
    if ovs:
        add_open_vswitch(archive, ovs)
    add_busybox(archive)
    add_modules(archive, modules)
    archive.end()
