#!/bin/bash
# Three hosts on this machine, made of network namespaces on one switch, each with a weft daemon of its
# own; a cluster, a network and services on them. Nothing leaves the namespaces: `down` removes it all.
#
#   demo.sh up      start it (what an earlier one left is removed first) and show it
#   demo.sh shell [n1|n2|n3]   a shell on one of the hosts
#   demo.sh down    remove it
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
weft=${WEFT:-$root/target/debug/weft}
# Below /run: a unix socket's path has 108 bytes only, and a checkout may lie deep. The number keeps
# the demos of two checkouts apart.
tag=weft-demo-${WEFT_DEMO:-$(printf %s "$root" | cksum | cut -d" " -f1)}
dir=/run/$tag
hosts=(n1 n2 n3)
export NO_COLOR=1

# Colours on a terminal only.
bold= blue= plain=
if [ -t 1 ]; then bold=$'\033[1m' blue=$'\033[36m' plain=$'\033[0m'; fi

say() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
fail() { echo "error: $*" >&2; exit 1; }

# Enters a host: its network and mounts, and its cgroup, so that `down` finds all that runs there.
# Not `ip netns exec`: that mounts /sys anew and so hides the cgroups.
enter() { # HOST COMMAND...
  local host=$1 pid; shift
  pid=$(cat "$dir/$host.pid")
  sh -c 'for cgroup in $1; do echo $$ >"$cgroup/cgroup.procs" || :; done 2>/dev/null; shift; exec "$@"' \
    sh "$(sed "s,\$,/$host," "$dir/cgroups" | tr '\n' ' ')" nsenter -t "$pid" -n -m -- "$@"
}

# Runs a command of the user on a host and shows it as typed.
on() { # HOST COMMAND...
  local host=$1; shift
  printf '\n%s%s#%s %s\n' "$blue" "$host" "$plain" "$*"
  WEFT_HOST=unix://$dir/$host/r/weft.sock PATH=$dir/bin:$PATH enter "$host" sh -c "$*"
}

quiet() { # HOST COMMAND...
  local host=$1; shift
  WEFT_HOST=unix://$dir/$host/r/weft.sock PATH=$dir/bin:$PATH enter "$host" sh -c "$*"
}

# Waits at most $1 seconds for the rest of the line to succeed.
until_ok() { # SECONDS WHAT COMMAND...
  local until=$((SECONDS + $1)) what=$2; shift 2
  until "$@" >/dev/null 2>"$dir/last-error"; do
    if [ $SECONDS -ge $until ]; then
      cat "$dir/last-error" >&2
      for host in "${hosts[@]}"; do echo "--- $host"; tail -n 15 "$dir/$host/log"; done >&2
      fail "$what: not within the time; the logs are in $dir/*/log"
    fi
    sleep 0.1
  done
}

holder() { # NAME: a process that holds a network and a mount namespace
  unshare --net --mount --propagation private setsid bash -c \
    'ip link set lo up; echo $$ >"$1"; exec -a "$2" sleep infinity' bash "$dir/$1.pid.new" "$tag-$1" \
    </dev/null >/dev/null 2>&1 &
  until [ -s "$dir/$1.pid.new" ]; do sleep 0.02; done
  mv "$dir/$1.pid.new" "$dir/$1.pid"
}

# The cgroups of this shell in each hierarchy, with one of ours below; cpuset excepted, which a process
# cannot enter before it is set up.
make_cgroups() {
  : >"$dir/cgroups"
  local controllers path point
  while IFS=: read -r _ controllers path; do
    case $controllers in
      cpuset) continue ;;
      '') point=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts) ;;
      *) point=$(awk -v want="${controllers#name=}" \
           '$3 == "cgroup" && $2 ~ "/" want "$" { print $2; exit }' /proc/mounts) ;;
    esac
    [ -n "$point" ] || continue
    mkdir "$point${path%/}/$tag" 2>/dev/null || continue
    local host
    for host in switch "${hosts[@]}"; do mkdir "$point${path%/}/$tag/$host"; done
    echo "$point${path%/}/$tag" >>"$dir/cgroups"
  done </proc/self/cgroup
}

make_hosts() {
  holder switch
  local switch n=0 host
  switch=$(cat "$dir/switch.pid")
  nsenter -t "$switch" -n sh -ec '
    ip link add br0 type bridge; ip link set br0 up; ip addr add 10.99.0.254/24 dev br0'
  for host in "${hosts[@]}"; do
    n=$((n + 1))
    mkdir -p "$dir/$host"
    holder "$host"
    nsenter -t "$switch" -n sh -ec "
      ip link add v$n type veth peer name eth0 netns $(cat "$dir/$host.pid")
      ip link set v$n master br0 up"
    nsenter -t "$(cat "$dir/$host.pid")" -n sh -ec "
      ip addr add 10.99.0.$n/24 dev eth0; ip link set eth0 up
      ip route add default via 10.99.0.254"
  done
}

start_daemons() {
  local host
  for host in "${hosts[@]}"; do
    enter "$host" setsid "$weft" daemon --state-dir "$dir/$host/s" --run-dir "$dir/$host/r" \
      --node-name "$host" --listen-addr 0.0.0.0:2377 --log-level info \
      </dev/null >"$dir/$host/log" 2>&1 &
  done
  for host in "${hosts[@]}"; do
    until_ok 30 "the daemon of $host answers" quiet "$host" weft info
  done
}

# A root directory with nothing but busybox: it is all the image that the demo needs.
make_image() {
  mkdir -p "$dir"/rootfs/{bin,etc,tmp,proc,sys,dev,root,www}
  cp /bin/busybox "$dir/rootfs/bin/busybox"
  local name
  for name in $(/bin/busybox --list); do
    [ "$name" = busybox ] || ln -s busybox "$dir/rootfs/bin/$name"
  done
  echo root:x:0:0:root:/root:/bin/sh >"$dir/rootfs/etc/passwd"
  # What the web service runs: a page that says who answered.
  cat >"$dir/rootfs/bin/web" <<'WEB'
#!/bin/sh
echo "answered by $(hostname)" >/www/index.html
exec httpd -f -p 80 -h /www
WEB
  chmod 0755 "$dir/rootfs/bin/web"
}

up() {
  [ "$(id -u)" = 0 ] || fail "the demo makes network namespaces: run it as root"
  [ -x "$weft" ] || fail "$weft is missing: run \`make build\`"
  down quietly
  mkdir -p -m 0700 "$dir/bin"
  ln -s "$weft" "$dir/bin/weft"
  trap 'echo "the demo failed; \`make demo-down\` removes what is left of it" >&2' ERR
  make_cgroups
  make_image

  say "Three hosts (network namespaces n1, n2, n3 on one switch), a weft daemon on each"
  make_hosts
  start_daemons

  say "A cluster"
  on n1 weft cluster init --advertise-addr 10.99.0.1
  local token host
  token=$(quiet n1 weft cluster join-token -q worker)
  for host in n2 n3; do on "$host" weft cluster join --token "$token" 10.99.0.1:2377; done
  until_ok 30 "all nodes are ready" quiet n1 '[ "$(weft node ls --format {{.Status}} | grep -ci ready)" = 3 ]'
  on n1 weft node ls

  say "A network over all hosts, and services on it"
  on n1 weft network create -d overlay --subnet 10.20.0.0/24 shop
  on n1 weft service create --name web --replicas 3 --network shop "rootfs:$dir/rootfs" web
  on n1 weft service create --name client --mode global --network shop "rootfs:$dir/rootfs" sleep 1000000
  show
  cat <<END

${bold}It runs.$plain Play in it:  make demo-shell          (a shell on n1; HOST=n2 for another)
              make demo-down           (removes it)
END
}

show() {
  say "What there is"
  on n1 weft network ls
  on n1 weft service ls
  on n1 weft service ps web

  say "From a container on each host: the name looked up, pinged and asked"
  local host id
  for host in "${hosts[@]}"; do
    until_ok 30 "$host has its client" quiet "$host" '[ -n "$(weft ps -q --filter service=client)" ]'
    id=$(quiet "$host" weft ps -q --filter service=client | head -n 1)
    until_ok 30 "the name is there on $host" quiet "$host" "weft exec $id ping -c1 -W1 web"
    on "$host" "weft exec $id nslookup -type=a tasks.web"
    on "$host" "weft exec $id ping -c 2 web"
  done

  say "One address for all tasks of the service: each asks in turn"
  id=$(quiet n2 weft ps -q --filter service=client | head -n 1)
  on n2 "weft exec $id sh -c 'for i in 1 2 3 4 5 6; do wget -qO- http://web; done'"
}

shell() {
  local host=${1:-n1}
  [ -e "$dir/$host.pid" ] || fail "there is no demo with a host $host: run \`make demo\`"
  echo "on $host; try: weft node ls, weft service ps web, weft ps, weft exec ID sh. Leave with exit."
  WEFT_HOST=unix://$dir/$host/r/weft.sock PATH=$dir/bin:$PATH PS1="$host# " \
    enter "$host" bash --norc -i
}

# Every process of the demo: in its cgroups, or with its name on the command line.
# The brackets keep the search from finding itself.
processes() {
  {
    if [ -s "$dir/cgroups" ]; then
      while read -r cgroup; do find "$cgroup" -name cgroup.procs -exec cat {} + 2>/dev/null; done <"$dir/cgroups"
    fi
    grep -lsa "[w]${tag#w}" /proc/[0-9]*/cmdline | cut -d/ -f3
  } | sort -un | grep -vxF -e "$$" -e "$BASHPID" || true
}

down() {
  [ -e "$dir" ] || { [ "${1:-}" = quietly ] || echo "there is no demo"; return 0; }
  local pids cgroup below round
  for round in $(seq 200); do
    pids=$(processes)
    [ -n "$pids" ] || break
    # shellcheck disable=SC2086 # one argument for each process
    kill -9 $pids 2>/dev/null || true
    sleep 0.05
  done
  [ -z "$(processes)" ] || fail "these processes do not end: $(processes | tr '\n' ' ')"
  while read -r cgroup; do
    for round in $(seq 100); do
      find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
      [ -e "$cgroup" ] || break
      sleep 0.05
    done
  done <"$dir/cgroups"
  rm -rf "$dir"
  [ "${1:-}" = quietly ] || echo "the demo is gone"
}

case ${1:-} in
  up) up ;;
  show) show ;;
  shell) shell "${2:-n1}" ;;
  down) down ;;
  *) echo "usage: $0 up | show | shell [HOST] | down" >&2; exit 2 ;;
esac
