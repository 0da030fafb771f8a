# A decode step over the number of sequences, from build/decode-batch.txt
load "code/kernels/axes.gp"
set logscale xy
set xrange [1:1024]
set yrange [0.2:20000]
set xtics 4
set xlabel "sequences decoded together"
set ylabel "µs per step (virtual)"
set key top left Left reverse
data = "build/decode-batch.txt"
plot data using 1:2 with linespoints lw 2 pt 7 ps 0.6 lc rgb orange title "measured", \
     data using 1:3 with lines lw 2 lc rgb blue title "bytes / bandwidth", \
     data using 1:4 with lines lw 2 lc rgb green title "operations / peak", \
     data using 1:($2/$1) with lines dashtype 2 lw 2 lc rgb grey \
         title "measured, per token"
