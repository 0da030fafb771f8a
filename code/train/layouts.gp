# Megabytes of a rank by purpose as stacked bars, from build/layouts.txt: a layout a line
load "code/kernels/axes.gp"
set terminal svg size 760,400 font "sans-serif,13" dynamic
set style data histograms
set style histogram rowstacked
set style fill solid 0.8 border rgb "#ffffff"
set linetype 1 linecolor rgb "#3a86c8"
set linetype 2 linecolor rgb "#4f9a4f"
set linetype 3 linecolor rgb "#8fbf6a"
set linetype 4 linecolor rgb "#d0782a"
set linetype 5 linecolor rgb "#a0559f"
set boxwidth 0.7
set ylabel "MB of a rank at its peak"
set yrange [0:50]
set key outside right
set xtics rotate by -25
set grid ytics
plot for [i=2:6] "build/layouts.txt" using i:xtic(1) title columnheader(i)
