#!/bin/bash
# Fuzzes the readers of foreign bytes, one target after the other: `make fuzz`, TARGET=name for one of them,
# FUZZ_SECONDS for each (60). It is polite: one process, at the lowest priority.
#
# `deploy/fuzz.sh seeds` makes the inputs that are made of real states anew, `deploy/fuzz.sh list` names the
# targets. docs/testing.md says how to read the results.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${FUZZ_SECONDS:-60}
triple=$(rustc -vV | sed -n 's/^host: //p')
target_dir=${CARGO_TARGET_DIR:-$PWD/target}
# What inputs were found so far, and those that broke something: kept from run to run.
work=$target_dir/fuzzing
seeds=tests/fuzz/corpus

# libFuzzer comes with the crate as source, and is C++.
if ! command -v g++ >/dev/null; then
  echo "installing: g++"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends g++ </dev/null >/dev/null
fi

# Coverage by the compiler's own passes, which a stable one has too. With a triple given they are for the
# target only, and lie in a directory of their own.
flags=(
  -Cpasses=sancov-module
  -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares
  --cfg fuzzing
)
RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR=$target_dir \
  cargo build --quiet --manifest-path tests/fuzz/Cargo.toml --profile fuzz --target "$triple"
fuzzer=$target_dir/$triple/fuzz/weft-fuzz

list() { (cd "$seeds" && printf '%s\n' *); }

run() {
  local name=$1 found=$work/$1/found broken=$work/$1/broken log=$work/$1/log
  mkdir -p "$found" "$broken"
  # A namespace of its own: nothing that a target sends can leave it.
  if FUZZ_TARGET=$name nice -n 19 unshare -n "$fuzzer" "$found" "$seeds/$name" \
    -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -max_len=4096 -print_final_stats=1 \
    -artifact_prefix="$broken/" >"$log" 2>&1; then
    printf '%-14s %12s executions  %s\n' "$name" \
      "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" \
      "$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1)"
  else
    printf '%-14s BROKEN: %s\n' "$name" "$broken"
    grep -aE 'panicked at|ERROR: libFuzzer|SUMMARY' -A 3 "$log" | head -n 12
    return 1
  fi
}

case ${1:-run} in
  list) list ;;
  seeds) FUZZ_SEEDS=$seeds "$fuzzer" ;;
  run)
    failed=0
    for name in ${TARGET:-$(list)}; do run "$name" || failed=1; done
    exit "$failed"
    ;;
  *) echo "error: $1: there are run, list and seeds" >&2; exit 2 ;;
esac
