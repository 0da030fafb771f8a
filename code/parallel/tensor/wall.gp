# Draws activations by ranks: gnuplot code/parallel/tensor/wall.gp > wall.svg
set terminal svg size 640,400 font "sans-serif,13" dynamic
set datafile separator "\t"
set logscale xy 2
set xrange [0.9:36]
set yrange [12:1024]
set border 3 linecolor "#808080"
set tics nomirror textcolor "#808080"
set xlabel "ranks of the tensor axis" textcolor "#808080"
set ylabel "MiB per layer" textcolor "#808080"
set key bottom left textcolor "#808080"
data = "build/activations-wall.tsv"
titles = "'whole rows' 'slices' 'whole rows, selective' 'slices, selective'"
colours = "#d0782a #3a86c8 #a05fb4 #4f9a5b"
plot for [i=1:4] data using 1:i+1 with linespoints lw 2 pt 7 ps 0.6 \
         lc rgb word(colours, i) title word(titles, i)
