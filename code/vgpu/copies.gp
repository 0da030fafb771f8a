# Draws what copies take by their size: gnuplot code/vgpu/copies.gp > copies.svg
field(name) = real(system(sprintf("awk '$1==\"%s:\" && $2+0{print $2; exit}' %s", name, \
    "code/vgpu/clusters/dgx-h100.yaml")))
memory = 1e3 * field("memory_gb_s") * field("memory_efficiency")  # bytes per us
host = 1e3 * field("host_gb_s")
link = 1e3 * field("gb_s") * field("efficiency")
set terminal svg size 640,380 font "sans-serif,13" dynamic
set logscale xy
set xrange [1:1e9]
set yrange [1:3e4]
set format x "10^{%L}"
set border 3 linecolor "#808080"
set tics nomirror textcolor "#808080"
set xlabel "bytes" textcolor "#808080"
set ylabel "time, µs" textcolor "#808080"
set key left top textcolor "#808080"
max(a, b) = a > b ? a : b
plot field("host_latency_us") + x / host title "host and device (PCIe)" \
         lw 2 lc rgb "#8a6a12", \
     field("alpha_us") + x / link title "another device (NVLink)" lw 2 lc rgb "#b9482f", \
     max(field("least_kernel_us"), 2 * x / memory) title "within the device" \
         lw 2 lc rgb "#35699f", \
     field("launch_us") title "the host's time for the call" dt 2 lc rgb "#808080"
