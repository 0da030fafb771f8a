# Bytes from rank to rank, from build/dispatch/random.txt and one.txt
set terminal svg size 640,300 font "sans-serif,13" dynamic
set multiplot layout 1,2
set border 0
set tics scale 0 textcolor "#808080"
set xlabel "to rank" textcolor "#808080"
set ylabel "from rank" textcolor "#808080"
set title textcolor "#808080"
set xrange [-0.5:7.5]
set yrange [7.5:-0.5]
set size ratio 1
set palette defined (0 "#e8e4dc", 4 "#d0782a", 34 "#7a3c0c")
unset colorbox
set cbrange [0:34]              # MB
do for [pattern in "random one"] {
    set title pattern
    plot "build/dispatch/".pattern.".txt" matrix using 1:2:($3 / 1e6) with image pixels \
        notitle
}
