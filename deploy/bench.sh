#!/bin/bash
# Measures the figures and writes them to docs/benchmarks.md. FIGURES="flow names" measures only those,
# PEER=0 leaves Docker Swarm out.
set -euo pipefail
cd "$(dirname "$0")/.."

needs=(iperf3:iperf3 dnsperf:dnsperf)
if [ "${PEER:-1}" != 0 ]; then needs+=(/usr/sbin/dockerd:docker.io /usr/bin/docker:docker.io iptables:iptables); fi
missing=()
for need in "${needs[@]}"; do
  command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  echo "installing: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
fi

cargo build --release -p weft
read -ra figures <<<"${FIGURES:-}"
# What measures need not be fast, and is built with the tests.
cargo bench --profile dev -p weft-tests --bench figures -- "${figures[@]}" </dev/null
