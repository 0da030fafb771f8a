#!/usr/bin/env bash
# Run the test binary and close with one line: "N passed, N failed".
set -uo pipefail
tests=$1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Tests run side by side, so threads that wait for each other should give up their cores.
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-1000}
"$tests" -j"$(nproc)" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
# What the walks over a whole grid have counted (DLS_GRID=full).
awk '/^grid: .* proven, / { proven += $3; refused += $5 }
     END { if (proven) printf "grid: %d combinations, %d proven, %d refused\n",
                              proven + refused, proven, refused }' "$log"
plain=$(sed 's/\x1b\[[0-9;]*m//g' "$log")
line=$(grep -E 'Synthesis: Tested:' <<<"$plain" | tail -n 1)
if [ -z "$line" ]; then
  echo "0 passed, 1 failed"
  exit 1
fi
number() { grep -oE "$1: [0-9]+" <<<"$line" | grep -oE '[0-9]+'; }
passed=$(number Passing)
failed=$(($(number Failing) + $(number Crashing)))
# What failed is said once more at the end, where whoever reads only that finds it.
grep -E '^\[(----|FAIL|ERR )' <<<"$plain" | tail -n 40
echo "$passed passed, $failed failed"
[ "$status" -eq 0 ] && [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
