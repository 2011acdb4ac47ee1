#!/bin/bash
# Runs all tests, with cargo-nextest where it is installed: it keeps the clusters of the lab from
# running all at once. Plain cargo gets the same by one thread for the lab.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "error: the tests make network namespaces: run them as root" >&2; exit 1; }
profile=default
[ "${WEFT_SOAK:-}" != 1 ] || profile=soak
if cargo nextest --version >/dev/null 2>&1; then
  exec cargo nextest run --workspace --profile "$profile" </dev/null
fi
cargo test --workspace --exclude weft-tests </dev/null
exec cargo test -p weft-tests -- --test-threads 2 </dev/null
