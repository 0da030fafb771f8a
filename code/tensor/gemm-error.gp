# Errors of inner products over their length, from build/gemm-error.txt
set terminal svg size 640,400 font "sans-serif,13" dynamic
set logscale xy
set xrange [2:16384]
set yrange [0.5:20000]
set border 3 linecolor "#808080"
set tics nomirror textcolor "#808080"
set xlabel "terms K" textcolor "#808080"
set ylabel "error / u Σ|a||b|" textcolor "#808080"
set key top left textcolor "#808080"
data = "build/gemm-error.txt"
plot x with lines lw 2 lc "#808080" title "bound, K", \
     data using 1:2 with linespoints pt 7 ps 0.6 lw 2 lc "#d0782a" title "positive", \
     data using 1:4 with linespoints pt 7 ps 0.6 lw 2 lc "#3a86c8" title "both signs", \
     data using 1:3 with linespoints pt 7 ps 0.6 lw 2 lc "#4f9a4f" title "in pairs"
