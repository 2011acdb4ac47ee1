#!/bin/sh
# The second VM hears what the first one tells, speaks on both outputs, and fails; the first one waits
# for what is never told.
. /lab/lab.sh
if [ "$VM" = 1 ]; then
  tell word "of vm$VM among $VMS"
  ask 2 nothing
fi
echo "heard $(ask 1 word)"
cat /etc/added >&2
ping -c 1 -W 5 vm1 >/dev/null && echo "vm1 answers"
printf 'no end of line'
exit 7
