# Loss by step in f32 and bf16, from build/bf16-FAMILY-TYPE.txt
load "code/kernels/axes.gp"
set terminal svg size 640,400 font "sans-serif,13" dynamic
set xrange [0:200]
set yrange [2.6:4.2]
set xlabel "step"
set ylabel "loss, mean of 10 steps" textcolor "#808080"
file(family, type) = "build/bf16-".family."-".type.".txt"
plot file("gpt2", "f32") using 1:2 with lines lw 4 lc rgb orange title "GPT-2, f32", \
     file("gpt2", "bf16") using 1:2 with lines lw 1 lc rgb "black" title "GPT-2, bf16", \
     file("llama", "f32") using 1:2 with lines lw 4 lc rgb blue title "Llama, f32", \
     file("llama", "bf16") using 1:2 with lines lw 1 lc rgb "red" title "Llama, bf16"
