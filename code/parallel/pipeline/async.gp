# Draws the losses of asynchronous schedules: gnuplot code/parallel/pipeline/async.gp
set terminal svg size 720,360 font "sans-serif,12" background "white"
set xlabel "batches of 32 rows seen"
set ylabel "training loss"
set grid lc rgb "#dddddd"
plot for [s in "one-rank pipedream vertical-sync 2bw 1f1b"] \
  "build/async/".s.".txt" using 1:2 with lines lw 2 title s
