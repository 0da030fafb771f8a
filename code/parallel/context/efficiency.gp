# Efficiency of orders of tokens over the ranks, from build/context/efficiency.txt
load "code/kernels/axes.gp"
set xrange [1.5:8.5]
set yrange [0.4:1.05]
set xlabel "ranks"
set ylabel "efficiency"
set key at graph 0.98, 0.86 right top
law(n) = n / (2 * n - 1)
of(order) = sprintf("< grep %s build/context/efficiency.txt", order)
plot 1 lw 1 lc rgb grey notitle, law(x) lw 1 lc rgb grey title "n / (2 n - 1), and 1", \
     of("zigzag") using 1:3 with points pt 7 lc rgb blue title "zig-zag forward", \
     of("zigzag") using 1:4 with points pt 6 lc rgb blue title "zig-zag backward", \
     of("contiguous") using 1:3 with points pt 7 lc rgb orange \
       title "contiguous forward", \
     of("contiguous") using 1:4 with points pt 6 lc rgb orange \
       title "contiguous backward", \
     of("striped") using 1:3 with points pt 5 ps 0.6 lc rgb green title "striped forward"
