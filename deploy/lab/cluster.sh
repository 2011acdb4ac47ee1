#!/bin/sh
# A cluster of all VMs, a network over them and a service with a replica on each; then a container on
# every VM asks for the others by name.
. /lab/lab.sh

cluster

if [ "$VM" = 1 ]; then
  say "A cluster of $VMS machines, each with a kernel of its own ($(uname -r))"
  show weft node ls
  say "A network over all of them, and a service on it"
  show weft network create -d overlay --subnet 10.20.0.0/24 shop
  show weft service create --name web --replicas "$VMS" --network shop "$image" sleep 1000000
  show weft service ps web
  tell web
else
  ask 1 web >/dev/null
fi

own=$(container web)
all_answer="for n in $(seq -s ' ' "$VMS"); do ping -c 1 -W 1 web.\$n || exit 1; done"
wait_for 60 weft exec "$own" sh -c "$all_answer" >/dev/null

# One after the other, for the reader.
[ "$VM" = 1 ] || ask $((VM - 1)) shown >/dev/null
say "From the container of web on vm$VM: its address, and a ping of each replica"
show weft exec "$own" sh -c "'ip -4 -o addr show eth0; for n in $(seq -s ' ' "$VMS"); do ping -q -c 2 web.\$n; done'"
tell shown

if [ "$VM" = "$VMS" ]; then
  say "What the kernel of vm$VM knows: the network's VXLAN device, and where the others are"
  show "ip -br link show type vxlan; bridge fdb show | grep dst"
fi
