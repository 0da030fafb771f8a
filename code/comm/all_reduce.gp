# Draws all-reduce times: gnuplot code/comm/all_reduce.gp > all-reduce.svg
set terminal svg size 640,400 font "sans-serif,13" dynamic
set datafile separator "\t"
set logscale xy
set xrange [700:150e6]
set yrange [4:6000]
set xtics ("1 kB" 1e3, "10 kB" 1e4, "100 kB" 1e5, "1 MB" 1e6, "10 MB" 1e7, "100 MB" 1e8)
set border 3 linecolor "#808080"
set tics nomirror textcolor "#808080"
set xlabel "bytes" textcolor "#808080"
set ylabel "µs" textcolor "#808080"
set key top left textcolor "#808080"
data = "build/all-reduce.tsv"
colours = "#d0782a #3a86c8 #4f9a5b #a05fb4"
pick(n, k) = column(1) == n ? column(k) : NaN
plot for [i=1:4] data using (pick(2**i, 2)):(pick(2**i, 3)) with lines lw 2 \
         lc rgb word(colours, i) title sprintf("%d ranks", 2**i), \
     for [i=1:4] data using (pick(2**i, 2)):(pick(2**i, 4)) with points pt 7 ps 0.7 \
         lc rgb word(colours, i) notitle
