# The counts of the ladder's steps as bars, from build/ladder.tsv
set terminal svg size 640,520 font "sans-serif,12" dynamic
set border 3 linecolor "#808080"
set tics nomirror textcolor "#808080"
set xrange [0.4:9.6]
set xtics 1, 1, 9
set boxwidth 0.7
set style fill solid 0.9 noborder
set key top right textcolor "#808080" samplen 1
d = "build/ladder.tsv"
set multiplot layout 2,2
set title "sectors per request" textcolor "#808080"
set yrange [0:24]
plot d using 1:($3 / $2) with boxes lc "#d0782a" title "wasted", \
     d using 1:($4 / $2) with boxes lc "#3a86c8" title "needed"
set title "wavefronts per shared request" textcolor "#808080"
set yrange [0:6]
plot d using 1:($5 > 0 ? $6 / $5 : 0) with boxes lc "#d0782a" title "conflicts", \
     d using 1:($5 > 0 ? $7 / $5 : 0) with boxes lc "#3a86c8" title "needed"
set title "MB from and to DRAM" textcolor "#808080"
set logscale y
set yrange [0.1:2000]
plot d using ($1 - 0.18):($10 / 1e6):(0.34) with boxes lc "#d0782a" title "no cache", \
     d using ($1 + 0.18):($9 / 1e6):(0.34) with boxes lc "#3a86c8" \
       title "cold 50 MB cache"
set title "FLOPs per byte of sectors, of wavefronts" textcolor "#808080"
set yrange [0.01:10000]
set key top left
plot d using ($1 - 0.18):($8 / (32 * $3)):(0.34) with boxes lc "#d0782a" \
       title "device memory", \
     d using ($1 + 0.18):($5 > 0 ? $8 / (128 * $6) : NaN):(0.34) with boxes \
       lc "#3a86c8" title "shared memory"
unset multiplot
