#!/bin/sh
# Networks on Open vSwitch with its kernel module: on an administrator's bridge, which stays his, and on one
# of ours, which comes and goes with its network; what a hand takes away comes back.
. /lab/lab.sh

member() { # NAME NETWORK IP
  weft run -d --name "$1" --network "$2" --ip "$3" "$image" sleep 1000000 >/dev/null
}
reaches() { wait_for 60 weft exec "$1" ping -c 1 -W 1 "$2" >/dev/null; } # NAME ADDRESS
ports() { ovs-vsctl list-ports "$1" | wc -l; }
has_ports() { [ "$(ports "$1")" = "$2" ]; } # BRIDGE COUNT

daemon
weft network create -d ovs -o bridge=ovs0 --subnet 192.168.70.0/24 --gateway 192.168.70.1 theirs >/dev/null
if weft run -d --name early --network theirs "$image" sleep 1000 2>/tmp/why; then exit 1; fi
grep -q 'Open vSwitch is not running: apt-get install openvswitch-switch' /tmp/why
weft rm -f early >/dev/null 2>&1 || true
echo "a switch that is not there has its name"

open_vswitch
ovs-vsctl add-br ovs0
ip link set ovs0 up
ip address add 192.168.70.1/24 dev ovs0
member a theirs 192.168.70.10
member b theirs 192.168.70.11
reaches a 192.168.70.11
reaches a 192.168.70.1
has_ports ovs0 2
echo "containers reach each other over an administrator's bridge"

for port in $(ovs-vsctl list-ports ovs0); do ovs-vsctl get port "$port" external_ids | grep -q weft; done
state() { ovs-vsctl --columns=_uuid,name list port; cat /sys/class/net/wv*/ifindex; }
before=$(state)
crash
daemon
reaches a 192.168.70.11
[ "$(state)" = "$before" ]
echo "a daemon that starts again knows its ports and changes nothing"

ovs-vsctl del-port "$(ovs-vsctl list-ports ovs0 | head -n 1)"
wait_for 60 has_ports ovs0 2
reaches a 192.168.70.11
echo "a port that a hand has taken away comes back"

weft rm -f a b >/dev/null
weft network rm theirs >/dev/null
wait_for 60 has_ports ovs0 0
ip address show ovs0 | grep -q 192.168.70.1/24
echo "the administrator's bridge stays"

weft network create -d ovs --subnet 192.168.71.0/24 ours >/dev/null
member c ours 192.168.71.10
member d ours 192.168.71.11
reaches c 192.168.71.11
reaches c 192.168.71.1
weft exec c sh -c 'echo served | nc -l -p 80' &
wait_for 60 sh -c 'weft exec d nc -w 2 192.168.71.10 80 | grep -q served'
weft rm -f c d >/dev/null
weft network rm ours >/dev/null
wait_for 60 sh -c '[ "$(ovs-vsctl list-br)" = ovs0 ]'
echo "a bridge of ours comes and goes with its network"
