# The operations of a transformer on the roofline of an H100, from build/operations.txt
load "code/kernels/axes.gp"
set logscale xy
set xrange [0.05:1000]
set yrange [0.1:200]
set xlabel "arithmetic intensity, FLOP/byte"
set ylabel "TFLOP/s in f32"
roof(x) = x * 3.35 < 67 ? x * 3.35 : 67
same = "layer norm, cross-entropy"  # one point, one label
name(s) = s eq "layer norm" ? same : s eq "cross-entropy" ? "" : s
plot roof(x) with lines lw 2 lc rgb blue notitle, \
     "build/operations.txt" using 5:(roof($5)) with points pt 7 ps 0.8 \
       lc rgb orange notitle, \
     "" using 5:(roof($5)):(name(strcol(1))) with labels rotate by -35 \
       offset 1,-0.6 left tc rgb grey notitle
