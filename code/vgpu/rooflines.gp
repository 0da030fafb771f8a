# Draws rooflines from "name TFLOP/s GB/s": gnuplot code/vgpu/rooflines.gp > out.svg
data = "build/run/rooflines/bf16.txt"
cell(i, k) = real(system(sprintf("awk 'NR==%d{print $%d}' %s", i, k, data)))
set terminal svg size 640,400 font "sans-serif,13" dynamic
set logscale xy
set xrange [1:2000]
set yrange [0.1:3000]
set border 3 linecolor "#808080"
set tics nomirror textcolor "#808080"
set xlabel "FLOP per byte" textcolor "#808080"
set ylabel "TFLOP/s" textcolor "#808080"
set key bottom right textcolor "#808080"
min(a, b) = a < b ? a : b
array peak[5]; array rate[5]; array name[5]
do for [i=1:5] {
    peak[i] = cell(i, 2); rate[i] = cell(i, 3)
    name[i] = system(sprintf("awk 'NR==%d{print $1}' %s", i, data))
}
array ink[5] = ["#808080", "#8a6a12", "#35699f", "#6a5a8c", "#b9482f"]
plot for [i=1:5] min(peak[i], x * rate[i] / 1000) title name[i] lw 2 \
    lc rgb ink[i]
