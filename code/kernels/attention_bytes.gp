# Bytes of a head over its length, from build/attention/bytes.txt
load "code/kernels/axes.gp"
set logscale xy 2
set logscale y 10
set xrange [48:20000]
set yrange [3e4:2e11]
set format y "10^{%T}"
set xlabel "queries and keys of one head, D = 64"
set ylabel "bytes moved, forward"
set key top left
D = 64; R = 64; M = 58000
naive(T) = 4 * (4 * T * D + 4 * T * T)
flash(T) = 4 * (2 * T * D + 2 * T * D * T / R + T)
least(T) = 4 * 4 * T * D
full(T) = 4 * (2 * T * D + 8 * T * T * D * D / M)
bound(T) = full(T) > least(T) ? full(T) : least(T)
plot naive(x) with lines lw 2 lc rgb orange title "the square written and read", \
     flash(x) with lines lw 2 lc rgb blue title "flash, tiles of 64", \
     bound(x) with lines lw 2 dt 2 lc rgb green title "flash, all of shared memory", \
     least(x) with lines lw 1 lc rgb grey title "inputs and output", \
     "build/attention/bytes.txt" using 1:2 with points pt 7 ps 0.8 lc rgb orange \
       title "naive, counted", \
     "" using 1:3 with points pt 7 ps 0.8 lc rgb blue title "flash, counted"
