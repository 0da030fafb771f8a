# Axes for the pictures of chapter 9: load "code/kernels/axes.gp"
set terminal svg size 640,400 font "sans-serif,13" dynamic
set border 3 linecolor "#808080"
set tics nomirror textcolor "#808080"
set xlabel textcolor "#808080"
set ylabel textcolor "#808080"
set key textcolor "#808080"
set samples 500
orange = "#d0782a"; blue = "#3a86c8"; green = "#4f9a4f"; grey = "#808080"
