# Megabytes of a rank by purpose as stacked bars, from build/layouts.txt: a layout a line
set terminal svg size 760,400 font "sans-serif,13" dynamic
set style data histograms
set style histogram rowstacked
set style fill solid 0.8 border -1
set boxwidth 0.7
set ylabel "MB of a rank at its peak"
set yrange [0:50]
set key outside right
set xtics rotate by -25
set grid ytics
plot for [i=2:6] "build/layouts.txt" using i:xtic(1) title columnheader(i)
