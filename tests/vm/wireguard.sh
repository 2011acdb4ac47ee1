# For the scripts with encrypted networks, beside lab.sh: `. /lab/wireguard.sh`.

# A task on each of two machines, on an encrypted network: $own is this machine's container, task$other
# the name of the other's. Comes back when they reach each other.
encrypted_pair() {
  other=$((3 - VM))
  if [ "$VM" = 1 ]; then
    weft network create -d overlay --subnet 10.20.0.0/24 -o encrypted shop >/dev/null
    for n in 1 2; do
      weft service create -d --name "task$n" --constraint "node.hostname==vm$n" --network shop \
        "$image" sleep 1000000 >/dev/null
    done
  fi
  own=$(container "task$VM")
  wait_for 120 weft exec "$own" ping -c 1 -W 1 "task$other" >/dev/null
}

# What vm1, the manager, knows of a machine's end of the links.
tunnel() { weft node inspect --format "{{.Tunnel.$2}}" "$1"; } # VM FIELD

# The engines that the machines are to have, in their order.
engines_are() { # ENGINE ENGINE
  if [ "$VM" = 1 ]; then
    [ "$(tunnel vm1 Engine) $(tunnel vm2 Engine)" = "$1 $2" ]
    show weft node inspect --pretty vm2
  fi
}

# Counts what leaves by the card: WireGuard, and what should not be there. Neighbours and the managers'
# port are nobody's secret.
witness() {
  nft -f - <<-RULES
	table netdev witness {
	  counter wireguard { }
	  counter other { }
	  chain out {
	    type filter hook egress device eth0 priority 0; policy accept;
	    ether type arp accept
	    meta l4proto 58 accept comment "ICMPv6"
	    tcp dport 2377 accept
	    tcp sport 2377 accept
	    udp dport 51820-51851 counter name wireguard accept
	    counter name other
	  }
	}
	RULES
}

packets() { nft list counter netdev witness "$1" | sed -n 's/.*packets \([0-9]*\).*/\1/p'; } # COUNTER

only_wireguard_left() {
  [ "$(packets wireguard)" -gt 0 ]
  if [ "$(packets other)" != 0 ]; then nft list table netdev witness >&2; return 1; fi
}

sum() { weft exec "$own" md5sum "$1" | cut -d ' ' -f 1; } # FILE

# Each machine serves a file of 4 MiB and fetches the other's.
both_ways() {
  weft exec "$own" sh -c 'dd if=/dev/urandom of=/www/file bs=64k count=64 2>/dev/null; httpd -p 80 -h /www'
  tell file "$(sum /www/file)"
  theirs=$(ask "$other" file)
  weft exec "$own" timeout 120 wget -qO /tmp/file "http://task$other/file"
  [ "$(sum /tmp/file)" = "$theirs" ]
  meet fetched
}

# Serves 40 pieces of 16 KiB, two a second, and begins to fetch the other's, which takes 20 seconds.
slowly() {
  weft exec "$own" sh -c '
    mkdir -p /www/cgi-bin
    head -c 16384 /www/file >/www/piece
    cat >/www/cgi-bin/slow <<-SLOW
	#!/bin/sh
	printf "Content-Type: application/octet-stream\r\n\r\n"
	for n in \$(seq 40); do cat /www/piece; sleep 0.5; done
	SLOW
    chmod +x /www/cgi-bin/slow
    for n in $(seq 40); do cat /www/piece; done >/www/whole'
  tell whole "$(sum /www/whole)"
  theirs=$(ask "$other" whole)
  weft exec "$own" timeout 200 wget -qO /tmp/slow "http://task$other/cgi-bin/slow" &
  fetching=$!
  wait_for 60 weft exec "$own" test -s /tmp/slow
}

# The end of what `slowly` began.
fetched() {
  wait "$fetching"
  [ "$(sum /tmp/slow)" = "$theirs" ]
}
