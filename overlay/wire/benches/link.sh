#!/usr/bin/env bash
# One TCP flow between two containers on two nodes, through the engine and through plain VXLAN, by
# turns. All of it is in namespaces that end with this script.
#
# usage: link.sh ENGINE [ROUNDS] [SECONDS]
# ENGINE is the example: cargo build --release -p weft-wire --example engine
set -euo pipefail
engine=$(realpath "$1") rounds=${2:-5} seconds=${3:-5}
dir=$(mktemp -d)
declare -A pid

finish() {
  for node in a b; do "$engine" stop "$dir/$node" 2>/dev/null || true; done
  kill "${pid[@]}" 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT

# within SPACE COMMAND: runs it in a namespace, in real time: other work of the machine takes nothing from it.
within() { local space=$1; shift; chrt -r 1 nsenter --net="/proc/${pid[$space]}/ns/net" -- "$@"; }

space() { unshare -n sleep infinity & pid[$1]=$!; }

# world engine|vxlan: nodes a and b, joined by a cable, a container behind each.
world() {
  local node
  for node in a b; do space "$1-$node"; space "$1-in-$node"; done
  sleep 0.3
  within "$1-a" ip link add u0 type veth peer name u0 netns "${pid[$1-b]}"
  for node in a b; do node "$1" "$node"; done
}

node() {
  local world=$1 node=$2 number=1 other=2
  [ "$node" = a ] || { number=2; other=1; }
  within "$world-$node" ip address add "10.99.0.$number/24" dev u0
  within "$world-$node" ip link set u0 up
  within "$world-$node" ip link add br0 type bridge
  within "$world-$node" ip link set br0 up
  within "$world-$node" ip link add v0 type veth peer name eth0 netns "${pid[$world-in-$node]}"
  within "$world-$node" ip link set v0 master br0 up
  within "$world-in-$node" ip link set eth0 address "02:42:0a:00:00:0$((number + 1))" mtu 1390
  within "$world-in-$node" ip address add "10.0.0.$((number + 1))/24" dev eth0
  within "$world-in-$node" ip link set eth0 up
  if [ "$world" = vxlan ]; then
    within "$world-$node" ip link add p0 type vxlan id 7 dstport 4789 local "10.99.0.$number" \
      remote "10.99.0.$other" dev u0
    within "$world-$node" ip link set p0 master br0 mtu 1390 up
    return
  fi
  within "$world-$node" ip tuntap add dev wt010000 mode tap multi_queue vnet_hdr
  within "$world-$node" ip link set wt010000 master br0 mtu 1390 up
  mkdir "$dir/$node"
  within "$world-$node" "$engine" run "$dir/$node" &
  until "$engine" set "$dir/$node" "$node" 1 2>/dev/null; do sleep 0.1; done
}

# Gbit/s that arrived.
flow() {
  within "$1-in-b" iperf3 -s -1 >/dev/null &
  sleep 0.3
  within "$1-in-a" iperf3 -c 10.0.0.3 -t "$seconds" -J |
    python3 -c 'import json,sys; print("%.2f" % (json.load(sys.stdin)["end"]["sum_received"]["bits_per_second"] / 1e9))'
}

world engine
world vxlan
until within engine-in-a ping -c1 -W1 10.0.0.3 >/dev/null && within vxlan-in-a ping -c1 -W1 10.0.0.3 >/dev/null; do :; done
for _ in $(seq "$rounds"); do
  plain=$(flow vxlan) ours=$(flow engine)
  echo "vxlan $plain Gbit/s, engine $ours Gbit/s, ratio $(python3 -c "print('%.2f' % ($ours / $plain))")"
done
