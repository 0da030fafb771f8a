#!/bin/sh
# tests/tensor/ladder_table.sh: from chapters/02-gemm-ladder.md. Edit the chapter, or edit here and run "make untangle".
# The counts of the nine steps at M = N = K = 256, one line each:
# step requests sectors ideal_sectors shared_requests wavefronts ideal_wavefronts flops
# dram_cold dram_uncached
work=build/ladder
mkdir -p $work
sed 's/l2_mb:.*/l2_mb: 0.001/' code/vgpu/clusters/dgx-h100.yaml > $work/uncached.yaml
profile() {  # STEP CLUSTER -> the kernel's counters, "name value" in each line
    DLS_CLUSTER=$2 build/bin/dls profile --json $work/profile.json \
        ladder --step "$1" > $work/table.txt 2>&1
    sed -n '/"lines"/q; s/^ *"\([a-z_]*\)": \([0-9]*\),*$/\1 \2/p' $work/profile.json
}
for step in 1 2 3 4 5 6 7 8 9; do
    { profile $step dgx-h100; profile $step $work/uncached.yaml; } |
        awk -v step=$step '{ n[$1]++ ? last[$1] = $2 : first[$1] = $2 }
            END { print step, first["requests"], first["sectors"],
                        first["ideal_sectors"], first["shared_requests"],
                        first["wavefronts"], first["ideal_wavefronts"],
                        first["flops"] + first["tensor_flops"],
                        first["dram_read"] + first["dram_written"],
                        last["dram_read"] + last["dram_written"] }'
done
