#!/bin/bash
# Runs the benchmarks of the crates. Each prints its own figures.
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo bench --workspace --benches </dev/null
