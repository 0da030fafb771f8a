# Predicted against measured seconds, from build/predictions.txt
load "code/kernels/axes.gp"
set logscale xy
set xlabel "executed, ms a step"
set ylabel "predicted, ms a step"
set grid
set key top left
plot [0.3:15][0.3:15] x with lines dashtype 2 linecolor rgb grey title "equal", \
     "build/predictions.txt" using 3:4 with points pointtype 7 pointsize 0.7 \
         linecolor rgb blue \
         title "50 random layouts"
