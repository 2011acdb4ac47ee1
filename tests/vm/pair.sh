#!/bin/sh
# Two machines, a task on each, by a wire that really leaves the kernel; each pings the other's by name.
. /lab/lab.sh

cluster
if [ "$VM" = 1 ]; then
  weft network create -d overlay --subnet 10.20.0.0/24 shop
  for n in 1 2; do
    weft service create -d --name "task$n" --constraint "node.hostname==vm$n" --network shop "$image" sleep 1000000
  done
fi
other=$((3 - VM))
own=$(container "task$VM")
wait_for 120 weft exec "$own" ping -c 1 -W 1 "task$other" >/dev/null
# A frame of full size goes through too.
wait_for 120 weft exec "$own" ping -c 1 -W 1 -s 1400 "tasks.task$other"
tell "answered"
ask "$other" "answered" >/dev/null
echo "task$VM pings task$other"
