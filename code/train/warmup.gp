# Losses with and without warm-up and clipping, and the schedule, from build/warmup-*.txt
load "code/kernels/axes.gp"
set terminal svg size 640,520 font "sans-serif,13" dynamic
set multiplot
set lmargin 9
set origin 0,0.32
set size 1,0.68
set xrange [0:200]
set yrange [2.7:4.2]
set ylabel "loss, mean of 10 steps" textcolor "#808080"
set format x ""
file(v, seed) = "build/warmup-".v."-".seed.".txt"
plot for [i = 1:2] file("none", i) using 1:2 with lines lw 1.5 lc rgb green \
       title i == 1 ? "no clipping" : "", \
     for [i = 1:2] file("jump", i) using 1:2 with lines lw 1.5 lc rgb blue \
       title i == 1 ? "no warm-up" : "", \
     for [i = 1:2] file("both", i) using 1:2 with lines lw 1.5 lc rgb orange \
       title i == 1 ? "both" : ""
set origin 0,0
set size 1,0.34
set format x "%g"
set yrange [0:3]
set ytics 1
set xlabel "step"
set ylabel "1000 times the rate" textcolor "#808080"
plot file("jump", 1) using 1:($3*1000) with lines lw 2 lc rgb blue notitle, \
     file("both", 1) using 1:($3*1000) with lines lw 2 lc rgb orange notitle
