# Draws all-reduce algorithms: gnuplot code/comm/collectives.gp > collectives.svg
set terminal svg size 640,400 font "sans-serif,13" dynamic
set logscale xy
set xrange [50:25e6]
set yrange [8:200]
set xtics ("100 B" 1e2, "1 kB" 1e3, "10 kB" 1e4, "100 kB" 1e5, "1 MB" 1e6, "10 MB" 1e7)
set border 3 linecolor "#808080"
set tics nomirror textcolor "#808080"
set xlabel "bytes" textcolor "#808080"
set ylabel "µs" textcolor "#808080"
set key top left textcolor "#808080"
data = "build/collectives.tsv"
names = "ring halving doubling tree"
colours = "#d0782a #3a86c8 #4f9a5b #a05fb4"
pick(i, k) = strcol(1) eq word(names, i) ? column(k) : NaN
plot for [i=1:4] data using (pick(i, 2)):(pick(i, 4)) with lines lw 2 \
         lc rgb word(colours, i) title word(names, i), \
     for [i=1:4] data using (pick(i, 2)):(pick(i, 3)) with points pt 7 ps 0.6 \
         lc rgb word(colours, i) notitle
