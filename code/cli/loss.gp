# code/cli/loss.gp: from chapters/01-introduction.md. Edit the chapter, or edit here and run "make untangle".
# The loss curve of a run: gnuplot -e "tour='DIR'; out='FILE.svg'" loss.gp
set terminal svg size 720,340 font "Inter,DejaVu Sans,Helvetica,sans-serif,12"
set output out
set border 3 lc rgb "#5f6b7a"
set tics nomirror
set grid ytics lc rgb "#c3cad3" lt 1
set xlabel "step"
set ylabel "loss (nats per byte)"
set yrange [1.5:*]
plot tour."/loss.tsv" skip 2 using 1:2 with lines lw 1.5 lc rgb "#35699f" \
         title "training", \
     tour."/validation.tsv" skip 2 using 1:2 with linespoints pt 7 ps 0.6 lw 2 \
         lc rgb "#b9482f" title "validation"
