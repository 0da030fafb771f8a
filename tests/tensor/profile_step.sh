#!/bin/sh
# tests/tensor/profile_step.sh: from chapters/02-gemm-ladder.md. Edit the chapter, or edit here and run "make untangle".
# The hottest lines of a step of the ladder at M = N = K = 256, with their counts:
# profile_step.sh STEP [LINES]
build/bin/dls profile ladder --step "$1" 2>&1 >/dev/null |
    awk -F '  +' -v most="${2:-3}" '
        !on && /^line / { on = 1
                          print " requests sect/req   shared wave/req    FLOPs  source" }
        /^line |^─/ || !on || shown >= most { next }
        { shown++; printf "%9s %8s %8s %8s %8s  %s\n", $2, $3, $5, $6, $8, $10 }'
