#!/bin/sh
# One daemon: a cluster of one, a network, a service of two tasks whose names resolve.
. /lab/lab.sh

cluster
weft network create -d overlay --subnet 10.20.0.0/24 shop
weft service create --name web --replicas 2 --network shop "$image" sleep 1000000
first=$(weft ps -q --filter service=web | head -n 1)
both() { [ "$(weft exec "$first" nslookup -type=a tasks.web | grep -c '^Address: 10\.20\.0\.')" = 2 ]; }
wait_for 120 both
wait_for 120 weft exec "$first" sh -c 'ping -c 1 -W 1 web.1 && ping -c 1 -W 1 web.2' >/dev/null
echo "both tasks have names and answer"
# What does not exist has no name.
if weft exec "$first" nslookup -type=a web.3; then exit 1; fi
