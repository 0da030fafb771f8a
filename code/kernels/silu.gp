# The silu and GELU with their derivatives
load "code/kernels/axes.gp"
set xrange [-6:6]
set yrange [-0.5:2]
set zeroaxis lc rgb grey
set xlabel "x"
set key top left
s(x) = 1 / (1 + exp(-x))
silu(x) = s(x) * (1 + x * (1 - s(x)))
u(x) = 0.7978845608 * (x + 0.044715 * x**3)
t(x) = 1 / (1 + exp(-2 * u(x)))
gelu(x) = t(x) + 2 * x * 0.7978845608 * (1 + 0.134145 * x**2) * t(x) * (1 - t(x))
plot x * s(x) with lines lw 2 lc rgb orange title "silu", \
     silu(x) with lines lw 2 lc rgb orange dt 2 title "its slope", \
     x * t(x) with lines lw 2 lc rgb blue title "GELU", \
     gelu(x) with lines lw 2 lc rgb blue dt 2 title "its slope"
