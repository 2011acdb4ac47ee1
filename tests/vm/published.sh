#!/bin/sh
# A container of one machine of a cluster, reached by its published port from the other machine, whose
# address it sees; the kernel's nftables is that of a distribution.
. /lab/lab.sh

cluster
page() { wget -qO- "http://$1:8080/passwd" | grep -q '^root:'; } # HOST
if [ "$VM" = 1 ]; then
  weft run -d --name web --network bridge -p 8080:80 "$image" httpd -f -vv -p 80 -h /etc >/dev/null
  tell web
  ask 2 fetched >/dev/null
  weft logs web 2>&1 | grep -q '10\.99\.0\.2'
  echo "the client's own address arrives"
  page 127.0.0.1
  page 10.99.0.1
  weft exec web wget -qO- http://10.99.0.1:8080/passwd | grep -q '^root:'
  echo "the host and the container itself reach the port"
  crash
  tell down
  ask 2 served >/dev/null
  daemon
  page 10.99.0.1
  weft rm -f web >/dev/null
  tell removed
else
  ask 1 web >/dev/null
  wait_for 60 page 10.99.0.1
  echo "the published port answers"
  tell fetched
  ask 1 down >/dev/null
  page 10.99.0.1
  echo "and without the daemon"
  tell served
  ask 1 removed >/dev/null
  if page 10.99.0.1; then exit 1; fi
  echo "and not without the container"
fi
