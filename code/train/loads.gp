# The fullest expert over steps, from build/router/*.txt
load "code/kernels/axes.gp"
set xrange [0:240]
set yrange [0:3.2]
set xlabel "step"
set ylabel "MaxVio"
set key at graph 0.44, 0.3 right top
plot "build/router/none.txt" with lines lw 1.5 lc rgb grey title "alone", \
     "build/router/loss.txt" with lines lw 1.5 lc rgb blue title "auxiliary loss", \
     "build/router/bias.txt" with lines lw 1.5 lc rgb orange title "bias of the choice"
