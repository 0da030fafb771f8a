# Draws the roofline of a device: gnuplot code/tensor/roofline.gp > roofline.svg
set terminal svg size 640,400 font "sans-serif,13" dynamic
set logscale xy
set xrange [0.25:8192]
set yrange [0.5:2000]
set border 3 linecolor "#808080"
set tics nomirror textcolor "#808080"
set xlabel "arithmetic intensity, FLOP/byte" textcolor "#808080"
set ylabel "TFLOP/s" textcolor "#808080"
set key bottom right textcolor "#808080"
W = 3.35        # TB/s
F32 = 67.0      # TFLOP/s
BF16 = 989.0    # TFLOP/s
roof(I, P) = I * W < P ? I * W : P
$marks << END
1.0     "1 token"
42.7    "128³"
237.4   "256 tokens"
1820.4  "4096 tokens"
END
set samples 500
plot roof(x, BF16) with lines lw 2 lc "#d0782a" title "bf16, tensor cores", \
     roof(x, F32) with lines lw 2 lc "#3a86c8" title "f32", \
     $marks using 1:(roof($1, BF16)) with points pt 7 ps 0.8 lc "#d0782a" notitle, \
     $marks using 1:(roof($1, BF16)):2 with labels offset -1,0.9 right \
       textcolor "#808080" notitle
