# Lanes (numbers) and registers (colours) of the elements of A and C: -e "data='FILE'"
load "code/kernels/axes.gp"
set terminal svg size 640,340 font "sans-serif,11" dynamic
set multiplot
set yrange [15.5:-0.5]
set ylabel "row"
set tics scale 0
set palette defined (0 blue, 1 orange, 2 green, 3 "#a06ab4")
set cbrange [0:3]
unset colorbox
unset key
set style fill solid 0.25 noborder
set origin 0, 0; set size 0.62, 1
set xrange [-0.5:15.5]
set xlabel "column of A, the left operand"
plot "< grep ^A ".data using 3:2:(0.48):(0.48):5 with boxxyerror lc palette, \
     "" using 3:2:4 with labels tc rgb grey
set origin 0.62, 0; set size 0.38, 1
set xrange [-0.5:7.5]
set xlabel "column of C, the result"
plot "< grep ^C ".data using 3:2:(0.48):(0.48):5 with boxxyerror lc palette, \
     "" using 3:2:4 with labels tc rgb grey
