# An MLP in three ways over the tokens, from build/summa/sweep.txt:
# "ranks tokens cut ms ..." a line
load "code/kernels/axes.gp"
set terminal svg size 760,330 font "sans-serif,12" dynamic
set multiplot layout 1,3
set logscale x 2
set xrange [1600:21000]
set xtics ("2k" 2048, "4k" 4096, "8k" 8192, "16k" 16384)
set yrange [0:0.2]
set xlabel "tokens"
set key top right
data = "build/summa/sweep.txt"
ranks = "4 8 9"; grids = "2x2x1 2x2x2 3x3x1"
pick(n, name) = $1 == n && strcol(3) eq name ? $4 / $2 * 1000 : NaN
do for [i=1:3] {
    n = int(word(ranks, i))
    set title word(ranks, i) . " GPUs" textcolor "#808080"
    set ylabel i == 1 ? "ms per thousand tokens (virtual)" : " "
    way(n, name) = sprintf("< awk '$1 == %d && $3 == \"%s\" {print $2, 1000 * $4 / $2}' \
%s", n, name, data)
    plot way(n, "1-D-" . n) with linespoints lw 2 pt 7 ps 0.6 lc rgb orange title "1-D", \
         way(n, word(grids, i) . "-turned") with linespoints lw 2 pt 7 ps 0.6 \
             lc rgb blue title word(grids, i), \
         way(n, "1x1x" . n) with linespoints lw 2 pt 7 ps 0.6 lc rgb green title "data"
}
unset multiplot
