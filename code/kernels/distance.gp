# The score of equal query and key over their distance, from build/distance.txt
load "code/kernels/axes.gp"
set logscale x
set xrange [1:16384]
set yrange [-0.1:1.4]
set key bottom left
set xlabel "distance d"
set ylabel "score, relative to plain at d = 0"
set arrow from 4096, -0.1 to 4096, 1.4 nohead dt 3 lc rgb grey
plot 0 with lines dt 3 lc rgb grey notitle, \
     "build/distance.txt" using 1:2 with lines lw 2 lc rgb blue title "plain", \
     "" using 1:3 with lines lw 2 lc rgb green title "linear", \
     "" using 1:4 with lines lw 2 lc rgb orange title "YaRN"
