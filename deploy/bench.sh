#!/bin/bash
# Measures the figures and writes them to docs/benchmarks.md. FIGURES="flow names" measures only those of
# flow create names memory outage run bridge publish connections crowd encrypted engine; PEER=0 leaves the peers
# out (Docker, and other programs that encrypt).
set -euo pipefail
cd "$(dirname "$0")/.."

read -ra figures <<<"${FIGURES:-}"
# Whether a figure is to be measured.
wanted() { [ ${#figures[@]} -eq 0 ] || [[ " ${figures[*]} " == *" $1 "* ]]; }

needs=(iperf3:iperf3 dnsperf:dnsperf)
if wanted encrypted || wanted engine; then needs+=(ethtool:ethtool ping:iputils-ping); fi
if [ "${PEER:-1}" != 0 ]; then
  needs+=(/usr/sbin/dockerd:docker.io /usr/bin/docker:docker.io iptables:iptables)
  if wanted encrypted; then
    needs+=(wireguard-go:wireguard-go wg:wireguard-tools nebula:nebula nebula-cert:nebula)
  fi
fi
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
if [ "${PEER:-1}" != 0 ] && wanted encrypted && [ ! -x target/peers/bin/boringtun-cli ]; then
  echo "building: boringtun-cli"
  # Without it the figure is measured, and says that it is missing.
  cargo install --quiet --locked --version 0.7.1 --root target/peers boringtun-cli || true
fi

cargo build --release -p weft
# What measures need not be fast, and is built with the tests.
cargo bench --profile dev -p weft-tests --bench figures -- "${figures[@]}" </dev/null
