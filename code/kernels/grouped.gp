# Virtual time of 4096 rows over the number of experts, from build/grouped/time.txt
load "code/kernels/axes.gp"
set logscale xy 2
set logscale y 10
set xrange [0.9:600]
set xlabel "experts that 4096 rows are divided among"
set ylabel "µs on a virtual H100"
set key top left
of(way) = "< grep ^" . way . " build/grouped/time.txt"
plot of("padded1") using 2:3 with linespoints pt 6 ps 0.7 lw 2 dt 2 lc rgb orange \
       title "padded, uneven", \
     of("tiles1") using 2:3 with linespoints pt 7 ps 0.7 lw 2 lc rgb blue \
       title "tiles, uneven", \
     of("calls1") using 2:3 with linespoints pt 7 ps 0.7 lw 2 lc rgb green \
       title "calls, uneven", \
     of("tiles0") using 2:3 with linespoints pt 6 ps 0.7 lw 1 dt 2 lc rgb blue \
       title "tiles, even"
