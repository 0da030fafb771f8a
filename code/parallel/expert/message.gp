# A message and an all-to-all over the tokens of a rank, from build/dispatch/message.txt
load "code/kernels/axes.gp"
set logscale xy
set xrange [0.8:6000]
set yrange [2:500]
set xlabel "tokens of a rank"
set ylabel "µs"
set key left top
alpha = 3.4; rate = 378e3       # µs, bytes per µs
row = 2048 * 2
file = "build/dispatch/message.txt"
plot alpha + x * row / rate lw 1 lc rgb blue notitle, \
     7 * (alpha + x * row / rate) lw 1 lc rgb orange notitle, \
     file using 1:2 with points pt 7 lc rgb blue title "a message to the next stage", \
     file using 1:3 with points pt 7 lc rgb orange title "a dispatch to the experts"
