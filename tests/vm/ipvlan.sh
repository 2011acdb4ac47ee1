#!/bin/sh
# Ipvlan networks on the card of two machines: members with the card's MAC that reach each other, on one
# segment (l2) or by routes (l3).
. /lab/lab.sh

other=$((3 - VM))

# A network of mode $1 on eth0.
network() { # MODE SUBNET [OPTION...]
  mode=$1 subnet=$2; shift 2
  weft network create -d ipvlan --subnet "$subnet" -o parent=eth0 -o "mode=$mode" "$@" "$mode" >/dev/null
}
member() { # NAME NETWORK ADDRESS
  weft run -d --name "$1" --network "$2" --ip "$3" "$image" sleep 1000000 >/dev/null
}
remove() { weft rm -f "$@" >/dev/null; }
reaches() { wait_for 60 weft exec "$1" ping -c 1 -W 1 "$2" >/dev/null; } # NAME ADDRESS

daemon
network l2 192.168.40.0/24 --ip-range "192.168.40.$((VM * 64))/26"
member a l2 "192.168.40.$((VM * 64 + 5))"
member b l2 "192.168.40.$((VM * 64 + 6))"
mac=$(cat /sys/class/net/eth0/address)
for name in a b; do [ "$(weft exec $name cat /sys/class/net/eth0/address)" = "$mac" ]; done
weft exec a ip route show default | grep -q 'via 192.168.40.1 dev eth0'
reaches a "192.168.40.$((VM * 64 + 6))"
meet l2
reaches a "192.168.40.$((other * 64 + 5))"
reaches b "192.168.40.$((other * 64 + 6))"
meet l2-answered
echo "l2 members share a MAC and reach each other and the other machine"

# A card has members of one mode.
if network l3 192.168.41.0/24 2>/run/refusal; then exit 1; fi
grep 'another ipvlan mode' /run/refusal
remove a b
weft network rm l2 >/dev/null

# The members of l3 networks have no neighbours: each machine routes its subnets.
network l3 "10.40.$VM.0/24"
ip route add "10.40.$other.0/24" via "10.99.0.$other"
member a l3 "10.40.$VM.5"
member b l3 "10.40.$VM.6"
weft exec a ip route show default | grep -q '^default dev eth0'
reaches a "10.40.$VM.6"
meet l3
reaches a "10.40.$other.5"
reaches b "10.99.0.$other"
meet l3-answered
echo "l3 members reach what the routes lead to"
