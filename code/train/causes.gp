# Milliseconds by cause as stacked bars, from build/causes.txt: a layout a line
set terminal svg size 760,420 font "sans-serif,13" dynamic
set style data histograms
set style histogram rowstacked
set style fill solid 0.8 border -1
set boxwidth 0.7
set ylabel "s a step"
set key outside right
set xtics rotate by -20
set grid ytics
plot for [i=2:9] "build/causes.txt" using (column(i) / 1e3):xtic(1) title columnheader(i)
