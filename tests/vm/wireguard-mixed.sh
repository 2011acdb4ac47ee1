#!/bin/sh
# One machine with the kernel's WireGuard, one that was told to use the engine in user space; then a wire
# that delays, loses, reorders and doubles packets.
. /lab/lab.sh
. /lab/wireguard.sh

if [ "$VM" = 1 ]; then cluster --wireguard kernel; else cluster --wireguard userspace; fi
witness
encrypted_pair
engines_are kernel userspace
both_ways
echo "the two engines speak with each other"

slowly
meet begun
tc qdisc add dev eth0 root netem delay 100ms loss 5% reorder 20% duplicate 1%
kill -0 "$fetching"
fetched
meet fetched-slowly
tc -s qdisc show dev eth0 | grep 'dropped [1-9]'
tc qdisc del dev eth0 root
only_wireguard_left
echo "no flow breaks on a bad wire, and nothing is in the clear"
