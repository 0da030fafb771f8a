# Virtual time of an attention over its length, from build/attention/time.txt
load "code/kernels/axes.gp"
set logscale xy 2
set logscale y 10
set xrange [50:5000]
set xlabel "queries and keys; 8 heads, D = 64, causal, f32"
set ylabel "µs on a virtual H100"
set key top left
naive = "< grep ^naive build/attention/time.txt"
flash = "< grep ^flash build/attention/time.txt"
plot naive using 2:3 with linespoints pt 7 ps 0.7 lw 2 lc rgb orange \
       title "naive forward", \
     naive using 2:4 with linespoints pt 6 ps 0.7 lw 2 dt 2 lc rgb orange \
       title "naive backward", \
     flash using 2:3 with linespoints pt 7 ps 0.7 lw 2 lc rgb blue \
       title "flash forward", \
     flash using 2:4 with linespoints pt 6 ps 0.7 lw 2 dt 2 lc rgb blue \
       title "flash backward"
