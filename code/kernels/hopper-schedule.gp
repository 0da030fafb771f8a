# Gantt chart of hopper-schedule.awk: -e "data='FILE'"
load "code/kernels/axes.gp"
set terminal svg size 680,360 font "sans-serif,11" dynamic
set border 1
unset ytics
set xlabel "clocks"
set style fill solid 0.35 border
set key top right horizontal
set yrange [-0.8:12]
of(what, op) = "< grep '^".what." . ".op." ' ".data
set label "lockstep" at graph 0.0, first 10.9 tc rgb grey
set label "turns" at graph 0.0, first 6.9 tc rgb grey
set label "turns and overlap" at graph 0.0, first 2.9 tc rgb grey
names = "lockstep turns overlap"
y(n) = 10 - 4 * (n - 1) - column(2)
plot for [n=1:3] of(word(names, n), "S") using \
         (($5+$6)/2):(y(n)+0.25):(($6-$5)/2):(0.22) \
         with boxxyerror lc rgb blue title n == 1 ? "scores" : "", \
     for [n=1:3] of(word(names, n), "V") using \
         (($5+$6)/2):(y(n)+0.25):(($6-$5)/2):(0.22) \
         with boxxyerror lc rgb green title n == 1 ? "values" : "", \
     for [n=1:3] of(word(names, n), "exp") using \
         (($5+$6)/2):(y(n)+0.7):(($6-$5)/2):(0.2) \
         with boxxyerror lc rgb orange title n == 1 ? "softmax" : ""
