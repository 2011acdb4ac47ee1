#!/bin/sh
# Two machines whose kernels have WireGuard: an encrypted network, names, files both ways, another key, a
# daemon that dies.
. /lab/lab.sh
. /lab/wireguard.sh

cluster
witness
encrypted_pair
engines_are kernel kernel
both_ways
echo "names and files over the kernel's WireGuard"

slowly
if [ "$VM" = 1 ]; then
  weft node update --rotate-key vm2 >/dev/null
  rotated() { [ "$(tunnel vm2 Generation) $(tunnel vm2 Rotation)" = "2 idle" ]; }
  wait_for 120 rotated
fi
fetched
meet rotated
echo "another key while a file is on its way"

devices() { cat /sys/class/net/w*/ifindex; }
before=$(devices)
crash
daemon
wait_for 120 weft exec "$own" ping -c 1 -W 1 "task$other" >/dev/null
[ "$(devices)" = "$before" ]
meet again
only_wireguard_left
echo "a daemon that starts again changes nothing, and nothing is in the clear"
