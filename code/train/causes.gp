# Milliseconds by cause as stacked bars, from build/causes.txt: a layout a line
load "code/kernels/axes.gp"
set terminal svg size 760,420 font "sans-serif,13" dynamic
set style data histograms
set style histogram rowstacked
set style fill solid 0.8 border rgb "#ffffff"
set linetype 1 linecolor rgb "#3a86c8"
set linetype 2 linecolor rgb "#4f9a4f"
set linetype 3 linecolor rgb "#8fbf6a"
set linetype 4 linecolor rgb "#d0782a"
set linetype 5 linecolor rgb "#a0559f"
set linetype 6 linecolor rgb "#c8423a"
set linetype 7 linecolor rgb "#c9a227"
set linetype 8 linecolor rgb "#808080"
set boxwidth 0.7
set ylabel "s a step"
set key outside right
set xtics rotate by -20
set grid ytics
plot for [i=2:9] "build/causes.txt" using (column(i) / 1e3):xtic(1) title columnheader(i)
