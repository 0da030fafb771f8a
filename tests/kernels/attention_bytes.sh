#!/bin/sh
# tests/kernels/attention_bytes.sh: from chapters/10-flash-attention-measured.md. Edit the chapter, or edit here and run "make untangle".
# Bytes that one head moves, forward, full, D = 64, f32, counted: T, naive, flash.
work=build/attention
mkdir -p $work
bytes() {  # WAY T -> 32 times the sectors of all kernels
    DLS_KERNELS=simt build/bin/dls profile --json $work/profile.json \
        attention --way "$1" --t "$2" --d 64 --full --forward > $work/output.txt 2>&1 ||
        cat $work/output.txt >&2
    awk '/"lines"/ { exit }
         /"sectors"/ { gsub(/[^0-9]/, ""); n += $0 }
         END { print 32 * n }' $work/profile.json
}
for T in 64 128 256 512; do
    echo "$T $(bytes naive $T) $(bytes flash $T)"
done
