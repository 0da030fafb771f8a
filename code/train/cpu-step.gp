# Where a step's time goes, before and after, from figures/transformers/cpu-step.tsv
load "code/kernels/axes.gp"
set terminal svg size 640,340 font "sans-serif,13" dynamic
data = "figures/transformers/cpu-step.tsv"
set style data histograms
set style histogram rowstacked
set style fill solid 0.9 border lc rgb grey
set boxwidth 0.6
set xrange [-0.6:3.6]
set yrange [0:1200]
set xtics ("f32, before" 0, "f32, after" 1, "bf16, before" 2, "bf16, after" 3)
set ylabel "ms per step"
set key outside right center vertical Left reverse invert samplen 1.5
plot data using 2 every ::1 lc rgb blue title "products", \
     data using 3 every ::1 lc rgb orange title "AdamW", \
     data using 4 every ::1 lc rgb green title "norm", \
     data using 5 every ::1 lc rgb "#b03a5b" title "clearing", \
     data using 6 every ::1 lc rgb "#7a5fb0" title "attention", \
     data using 7 every ::1 lc rgb grey title "the rest"
