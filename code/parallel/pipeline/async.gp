# code/parallel/pipeline/async.gp: from chapters/05-pipeline-runtime-versions.md. Edit the chapter, or edit here and run "make untangle".
# Draws the losses of asynchronous schedules: gnuplot code/parallel/pipeline/async.gp
set terminal svg size 720,360 font "sans-serif,12" background "white"
set xlabel "rows seen / 32"
set ylabel "training loss"
set grid lc rgb "#dddddd"
plot for [s in "1f1b pipedream pipedream-vertical pipedream-2bw"] \
  "build/async/".s.".txt" using 1:2 with lines lw 2 title s
