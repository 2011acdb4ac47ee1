# For the scripts that run in VMs: `. /lab/lab.sh`. VM is the number of this VM, VMS how many there are;
# vm1, vm2, ... are their names, 10.99.0.N their addresses on eth0.
set -eu

# Containers' root directory: busybox and nothing else.
image=rootfs:/srv/busybox

say() { printf '\n== %s\n' "$*"; }

# Shows a command and runs it.
show() { printf '\n# %s\n' "$*"; sh -c "$*"; }

# Waits at most $1 seconds until the rest of the line succeeds; then says what it said last.
wait_for() { # SECONDS COMMAND...
  limit=$(($(cut -d. -f1 /proc/uptime) + $1)); shift
  until "$@" >/run/last 2>&1; do
    if [ "$(cut -d. -f1 /proc/uptime)" -ge $limit ]; then
      echo "not within the time: $*" >&2
      cat /run/last >&2
      return 1
    fi
    sleep 0.2
  done
  cat /run/last
}

# Makes one line known to all other VMs, not through the network between them.
tell() { echo "tell $1 ${2:-}" >&3; } # KEY [VALUE]

# What VM $1 has told, or will tell, as $2.
ask() { wait_for 120 cat "/run/told/$1.$2"; } # VM KEY

# Waits until every VM has come here.
meet() { # KEY
  local other
  tell "$1"
  for other in $(seq "$VMS"); do
    [ "$other" = "$VM" ] || ask "$other" "$1" >/dev/null
  done
}

# Starts the daemon and waits until it answers.
daemon() { # [OPTION...]
  weft daemon --log-level info "$@" </dev/null >>/var/log/weft.log 2>&1 3<&- 4>&- &
  daemon_pid=$!
  wait_for 120 weft info >/dev/null
}

# Kills this machine's daemon as a crash would; `daemon` starts it again.
crash() { kill -9 "$daemon_pid"; wait "$daemon_pid" || true; }

# Makes all VMs one cluster: the first one its manager.
cluster() { # [OPTION OF THE DAEMON...]
  daemon "$@"
  if [ "$VM" = 1 ]; then
    weft cluster init --advertise-addr 10.99.0.1
    tell token "$(weft cluster join-token -q worker)"
    wait_for 120 nodes_ready >/dev/null
  else
    weft cluster join --token "$(ask 1 token)" 10.99.0.1:2377
  fi
  meet cluster
}

nodes_ready() { [ "$(weft node ls --format '{{.Status}}' | grep -ci ready)" = "$VMS" ]; }

# The ID of the only container of a service on this VM; waits until it runs.
container() { wait_for 120 only_container "$1"; } # SERVICE

only_container() {
  set -- $(weft ps -q --no-trunc --filter "service=$1" --filter status=running)
  [ $# = 1 ] && echo "$1"
}

# Starts Open vSwitch, of a lab that was started with --ovs.
open_vswitch() {
  mkdir -p /etc/openvswitch /var/run/openvswitch /var/log/openvswitch
  ovsdb-tool create /etc/openvswitch/conf.db /usr/share/openvswitch/vswitch.ovsschema
  ovsdb-server --remote=punix:/var/run/openvswitch/db.sock --pidfile --detach --log-file -vconsole:emer 3<&- 4>&-
  ovs-vsctl --no-wait init
  ovs-vswitchd --pidfile --detach --log-file -vconsole:emer 3<&- 4>&-
  wait_for 120 ovs-vsctl get Open_vSwitch . datapath_types >/dev/null
}
