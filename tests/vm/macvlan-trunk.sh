#!/bin/sh
# Macvlan networks on 802.1Q sub-interfaces of one card, on two machines: members on one VLAN reach each
# other, VLANs do not; sub-interfaces of ours come and go with their users, the administrator's stay.
. /lab/lab.sh

other=$((3 - VM))
# The last byte of this machine's first address in each subnet, and of the other's: each gives out its own.
own_first=$((VM * 64 + 5)) other_first=$((other * 64 + 5))

# A network on VLAN $1.
trunk() { # VLAN [OPTION...]
  vlan=$1; shift
  weft network create -d macvlan --subnet "192.168.$vlan.0/24" --gateway "192.168.$vlan.1" \
    --ip-range "192.168.$vlan.$((VM * 64))/26" -o "parent=eth0.$vlan" "$@" "trunk$vlan" >/dev/null
}
# A container on VLAN $2 whose address ends with $3.
member() { # NAME VLAN HOST
  weft run -d --name "$1" --network "trunk$2" --ip "192.168.$2.$3" "$image" sleep 1000000 >/dev/null
}
remove() { weft rm -f "$@" >/dev/null; }
reaches() { wait_for 60 weft exec "$1" ping -c 1 -W 1 "$2" >/dev/null; } # NAME ADDRESS
reaches_not() { # NAME ADDRESS
  if weft exec "$1" ping -c 2 -W 1 "$2" >/dev/null; then echo "$1 reaches $2" >&2; return 1; fi
}
alias_of() { cat "/sys/class/net/$1/ifalias"; }
gone() { [ ! -e "/sys/class/net/$1" ]; }

daemon
trunk 50
trunk 60
gone eth0.50
member a50 50 "$own_first"
member a60 60 "$own_first"
ip -d link show eth0.50 | grep -q 'vlan protocol 802.1Q id 50'
alias_of eth0.50 | grep -q '^weft'
meet trunks
reaches a50 "192.168.50.$other_first"
reaches a60 "192.168.60.$other_first"
echo "a VLAN reaches over two machines"

# Broadcast frames tell: one on another VLAN is not heard, one on the same VLAN is, also of another network.
weft network create -d macvlan --subnet 192.168.55.0/24 -o parent=eth0.50 beside >/dev/null
weft run -d --name a55 --network beside --ip "192.168.55.$own_first" "$image" sleep 1000000 >/dev/null
asks() { weft exec "$1" arping -f -c 3 -w 3 -I eth0 "$2" >/dev/null; } # NAME ADDRESS
for to in $own_first $other_first; do
  asks a55 "192.168.50.$to"
  if asks a60 "192.168.50.$to"; then echo "VLAN 60 is heard on VLAN 50" >&2; exit 1; fi
done
asks a60 "192.168.60.$other_first"
meet apart
remove a55
weft network rm beside >/dev/null
[ -e /sys/class/net/eth0.50 ]
echo "two VLANs are apart"

# A daemon that starts again knows its sub-interface and takes it away when the last user goes.
before=$(cat /sys/class/net/eth0.50/ifindex)
crash
daemon
reaches a50 "192.168.50.$other_first"
[ "$(cat /sys/class/net/eth0.50/ifindex)" = "$before" ]
meet again
member b50 50 $((own_first + 1))
reaches b50 "192.168.50.$own_first"
remove a50
reaches b50 "192.168.50.$((other_first + 1))"
meet second
remove b50
wait_for 30 gone eth0.50
weft network rm trunk50 >/dev/null
remove a60
weft network rm trunk60 >/dev/null
wait_for 30 gone eth0.60
echo "the last user takes its sub-interface along"

# The first machine has a sub-interface of its administrator, the second one makes its own.
if [ "$VM" = 1 ]; then
  ip link add link eth0 name eth0.70 type vlan id 70
  ip link set eth0.70 up
fi
trunk 70
member a70 70 "$own_first"
meet seventy
reaches a70 "192.168.70.$other_first"
meet answered
remove a70
weft network rm trunk70 >/dev/null
if [ "$VM" = 1 ]; then
  crash
  daemon
  [ -z "$(alias_of eth0.70)" ]
  ip link show eth0.70 | grep -qw UP
else
  wait_for 30 gone eth0.70
fi
echo "the administrator's sub-interface stays"

# Members of a private network reach what is outside and not each other.
trunk 80 -o mode=private
member a80 80 "$own_first"
member b80 80 $((own_first + 1))
meet private
reaches a80 "192.168.80.$other_first"
reaches b80 "192.168.80.$other_first"
reaches_not a80 "192.168.80.$((own_first + 1))"
meet private-answered
echo "private members are apart"

# A passthru network has one member.
trunk 90 -o mode=passthru
member a90 90 "$own_first"
meet passthru
reaches a90 "192.168.90.$other_first"
if member b90 90 $((own_first + 1)) 2>/run/refusal; then exit 1; fi
cat /run/refusal
grep -q 'eth0.90 is in use' /run/refusal
meet passthru-answered
remove a90
wait_for 30 gone eth0.90
echo "passthru has one member"
