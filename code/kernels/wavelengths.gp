# Wavelength over the pair under each scaling, from build/wavelengths.txt
load "code/kernels/axes.gp"
set logscale y
set xrange [0:63]
set yrange [5:1e6]
set format y "10^{%T}"
set xlabel "pair p"
set ylabel "positions for one turn"
set key top left
plot 4096 with lines dt 3 lc rgb grey notitle, \
     16384 with lines dt 3 lc rgb grey notitle, \
     "build/wavelengths.txt" using 1:3 with lines lw 2 lc rgb green title "linear", \
     "" using 1:4 with lines lw 2 dt 2 lc rgb orange title "dynamic", \
     "" using 1:5 with lines lw 2 lc rgb orange title "YaRN", \
     "" using 1:6 with lines lw 2 dt 2 lc rgb blue title "Llama 3.1", \
     "" using 1:2 with lines lw 2 lc rgb blue title "plain"
