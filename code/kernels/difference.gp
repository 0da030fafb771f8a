# The error of a difference quotient over its step, from build/difference.txt
load "code/kernels/axes.gp"
set logscale xy
set format "10^{%T}"
set xrange [1e-11:0.5]
set yrange [1e-13:1]
set xlabel "step h"
set ylabel "relative error"
set key bottom left
plot "build/difference.txt" using 1:2 with lines lw 2 lc rgb orange title "float", \
     "" using 1:3 with lines lw 2 lc rgb blue title "double"
