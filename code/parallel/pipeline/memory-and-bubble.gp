# The bubble over the memory, from build/bubble-*.txt: stages, rate in percent
set terminal svg size 640,400 font "sans-serif,13" dynamic
set xrange [3:16.5]
set yrange [0:20]
set xlabel "stage activations that a rank holds"
set ylabel "bubble, in % of the span"
set grid
plot "build/bubble-v.txt" with linespoints pointtype 7 title "V schedules", \
     "build/bubble-auto.txt" with linespoints pointtype 5 title "one chunk, automatic", \
     "build/bubble-named.txt" with points pointtype 2 pointsize 1.5 notitle, \
     "" using 1:2:3 with labels offset 0,1 notitle
