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
# The first machine has a sub-interface of its administrator on VLAN 70, the second one makes its own.
if [ "$VM" = 1 ]; then
  ip link add link eth0 name eth0.70 type vlan id 70
  ip link set eth0.70 up
fi
for vlan in 50 60 70; do trunk $vlan; done
gone eth0.50
for vlan in 50 60 70; do member a$vlan $vlan "$own_first"; done
ip -d link show eth0.50 | grep -q 'vlan protocol 802.1Q id 50'
alias_of eth0.50 | grep -q '^weft'
meet members
for vlan in 50 60 70; do reaches a$vlan "192.168.$vlan.$other_first"; done
echo "a VLAN reaches over two machines"

# Broadcast frames tell: one on another VLAN is not heard, one on the same VLAN is, also of another network.
weft network create -d macvlan --subnet 192.168.55.0/24 -o parent=eth0.50 beside >/dev/null
weft run -d --name a55 --network beside --ip "192.168.55.$own_first" "$image" sleep 1000000 >/dev/null
asks() { weft exec "$1" arping -f -c 3 -w 3 -I eth0 "$2" >/dev/null; } # NAME ADDRESS
asks a60 "192.168.60.$other_first"
for to in $own_first $other_first; do
  asks a55 "192.168.50.$to"
  if asks a60 "192.168.50.$to"; then echo "VLAN 60 is heard on VLAN 50" >&2; exit 1; fi
done
meet asked
echo "two VLANs are apart"

# A daemon that starts again knows which are its own.
before=$(cat /sys/class/net/eth0.*/ifindex)
crash
daemon
remove a50 a60 a70
wait_for 30 gone eth0.60
[ "$(cat /sys/class/net/eth0.50/ifindex)" = "$(echo "$before" | head -n 1)" ]
remove a55
wait_for 30 gone eth0.50
echo "the last user takes its sub-interface along"
if [ "$VM" = 1 ]; then
  [ -z "$(alias_of eth0.70)" ]
  ip link show eth0.70 | grep -qw UP
else
  wait_for 30 gone eth0.70
fi
weft network rm trunk50 trunk60 trunk70 beside >/dev/null
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
