# The largest error of both exponentials per unit of x, from build/exp-error.txt
load "code/kernels/axes.gp"
set logscale y
set xrange [-87:89]
set yrange [0.3:100]
set xlabel "x"
set ylabel "error, ulp"
set key bottom right
plot "build/exp-error.txt" using 1:3 with steps lw 2 lc rgb orange title "one part", \
     "" using 1:2 with steps lw 2 lc rgb blue title "two parts"
