# Three ways over the tokens of a rank, from build/dispatch/ways.txt
load "code/kernels/axes.gp"
set logscale xy
set xrange [0.8:1300]
set yrange [150:1500]
set xlabel "tokens of a rank"
set ylabel "µs there and back"
set key left top
file = "build/dispatch/ways.txt"
only(w) = sprintf("< awk '$2 == \"%s\" { print $1, $3 + $4 }' %s", w, file)
plot only("flat") with linespoints pt 7 lc rgb orange title "flat", \
     only("nodes") with linespoints pt 7 lc rgb blue title "over nodes", \
     only("one-sided") with linespoints pt 7 lc rgb green title "one-sided"
