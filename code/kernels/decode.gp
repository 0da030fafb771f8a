# Time of a decoding over the number of parts: -e "data='FILE'"
load "code/kernels/axes.gp"
set logscale xy 2
set xrange [0.8:80]
set yrange [16:2048]
set xlabel "parts"
set ylabel "µs on the virtual clock"
set key top right
of(B) = "< grep -v chosen ".data." | grep '^".B." '"
plot of(1) using 2:3 with linespoints lw 2 pt 7 ps 0.6 lc rgb blue title "1 sequence", \
     of(4) using 2:3 with linespoints lw 2 pt 7 ps 0.6 lc rgb orange title "4", \
     of(16) using 2:3 with linespoints lw 2 pt 7 ps 0.6 lc rgb green title "16", \
     "< grep chosen ".data using 2:3 with points pt 6 ps 2 lc rgb grey title "chosen"
