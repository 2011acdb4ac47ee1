#!/bin/sh
# What the kernel of the lab can do, each shown by use.
. /lab/lab.sh

fact() { name=$1; shift; "$@" >/dev/null; echo "$name"; } # NAME COMMAND...

fact 802.1Q ip link add link eth0 name v50 type vlan id 50
fact macvlan ip link add link v50 name mv0 type macvlan mode bridge
ip link del mv0
fact ipvlan ip link add link v50 name iv0 type ipvlan mode l2
fact bridge ip link add br1 type bridge vlan_filtering 1
fact veth ip link add va type veth peer name vb
fact vxlan ip link add vx0 type vxlan id 42 dstport 4789 nolearning
fact wireguard ip link add wg0 type wireguard
fact tap ip tuntap add tap0 mode tap
fact netem tc qdisc add dev va root netem delay 50ms
fact conntrack nft 'table inet a { chain c { type filter hook input priority 0; ct state invalid drop; }; }'
fact nat nft 'table inet b { chain c { type nat hook postrouting priority 100; ip daddr 192.0.2.1 masquerade; }; }'
fact redirect nft 'table inet c { chain c { type nat hook prerouting priority -100; tcp dport 80 redirect to :8080; }; }'
fact fib nft 'table inet d { chain c { type filter hook prerouting priority -300; fib daddr type local accept; }; }'
fact bridge-nft nft 'table bridge e { chain c { type filter hook forward priority 0; ether type arp accept; }; }'
mkdir -p /tmp/o/lower /tmp/o/upper /tmp/o/work /tmp/o/all
fact overlay mount -t overlay overlay -o lowerdir=/tmp/o/lower,upperdir=/tmp/o/upper,workdir=/tmp/o/work /tmp/o/all

open_vswitch
ovs-vsctl add-br br0
ovs-vsctl add-port br0 vb tag=50
in_kernel() { ovs-appctl dpctl/show | grep -w vb; }
fact openvswitch wait_for 30 in_kernel
