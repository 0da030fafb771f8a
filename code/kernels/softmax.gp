# The weight of the better of two keys, and its derivative, over the lead in score
load "code/kernels/axes.gp"
set xrange [0:14]
set logscale y
set yrange [1e-6:2]
set format y "10^{%T}"
set xlabel "lead of one score over the other"
set key bottom left
a(x) = 1 / (1 + exp(-x))
$marks << END
1.414 "scores / √64"
11.31 "scores as they are"
END
plot a(x) with lines lw 2 lc rgb blue title "weight", \
     a(x) * a(-x) with lines lw 2 lc rgb orange title "its derivative", \
     $marks using 1:(a($1) * a(-$1)) with points pt 7 ps 0.8 lc rgb orange notitle, \
     "" using 1:(a($1) * a(-$1)):2 with labels offset 1,0.7 left tc rgb grey notitle
