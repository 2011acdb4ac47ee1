#!/bin/sh
# The data plane's own tests of encrypted networks on a kernel that has WireGuard: hosts are namespaces of one
# machine, over the kernel's WireGuard, over the engine in user space, and mixed. The binary of the tests is
# added as /lab/kernel:
#   cargo test -p weft-overlay --test kernel --no-run
#   deploy/lab/vm run --vms 1 --memory 1024 --timeout 900 \
#     --add target/debug/deps/kernel-HASH:/lab/kernel tests/vm/wireguard-overlay.sh
. /lab/lab.sh

export WEFT_WIREGUARD=required
/lab/kernel --test-threads 1 --nocapture encrypted
