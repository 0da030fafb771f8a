# GELU and ReLU with their derivatives
load "code/kernels/axes.gp"
set xrange [-4:4]
set yrange [-0.5:2]
set zeroaxis lc rgb grey
set xlabel "x"
set key top left
u(x) = 0.7978845608 * (x + 0.044715 * x**3)
s(x) = 1 / (1 + exp(-2 * u(x)))
slope(x) = s(x) + 2 * x * 0.7978845608 * (1 + 0.134145 * x**2) * s(x) * (1 - s(x))
plot x * s(x) with lines lw 2 lc rgb orange title "GELU", \
     slope(x) with lines lw 2 lc rgb orange dt 2 title "its slope", \
     x < 0 ? 0 : x with lines lw 2 lc rgb blue title "ReLU", \
     x < 0 ? 0 : 1 with lines lw 2 lc rgb blue dt 2 title "its slope"
