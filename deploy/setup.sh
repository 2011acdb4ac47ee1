#!/bin/bash
# Installs what the build and the demo call, if it is missing; `setup.sh lab` also what the VM lab calls,
# and with it the tests. Needs apt and root only then.
set -euo pipefail

# Command : package that has it.
needs=(
  nft:nftables ip:iproute2 bridge:iproute2 busybox:busybox-static conntrack:conntrack
  gcc:gcc make:make python3:python3 nsenter:util-linux setsid:util-linux
  faketime:faketime iptables:iptables pgrep:procps wireguard-go:wireguard-go wg:wireguard-tools
)
# Machines that are programs, whose kernels are fetched by the lab and only unpacked; and the Open vSwitch that
# tests run in namespaces.
[ "${1:-}" != lab ] || needs+=(
  qemu-system-x86_64:qemu-system-x86 dpkg-deb:dpkg ovs-vsctl:openvswitch-switch
)
missing=()
for need in "${needs[@]}"; do
  command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
# A busybox with shared libraries cannot run in an empty root directory.
if [ -e /bin/busybox ] && ldd /bin/busybox >/dev/null 2>&1; then missing+=(busybox-static); fi
# Rust links with the C library's files.
[ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)

if [ ${#missing[@]} -gt 0 ]; then
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  echo "installing: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
fi
command -v cargo >/dev/null || {
  echo "error: cargo is missing: install Rust 1.90 or newer" >&2
  echo "hint: curl https://sh.rustup.rs -sSf | sh" >&2
  exit 1
}
