# The steps of the ladder under the roofline of an H100, from build/ladder.tsv. A step's
# intensity is that of the sectors it asks for; its height is the least of three limits:
# arithmetic, device memory, and one wavefront of shared memory per clock.
set terminal svg size 640,420 font "sans-serif,13" dynamic
set logscale xy
set xrange [0.03:1000]
set yrange [0.1:2000]
set border 3 linecolor "#808080"
set tics nomirror textcolor "#808080"
set xlabel "FLOPs per byte of the sectors asked for" textcolor "#808080"
set ylabel "TFLOP/s at most" textcolor "#808080"
set key top left textcolor "#808080"
W = 3.35        # TB/s
F32 = 67.0      # TFLOP/s
BF16 = 989.0
w = 256.0 * 256 * 256 / 32
d = "build/ladder.tsv"
least(a, b) = a < b ? a : b
roof(I, P) = least(I * W, P)
intensity(flops, sectors) = flops / (32 * sectors)
peak(step) = step == 9 ? BF16 : F32
perclock(step) = step == 9 ? 64.0 : 4.0   # multiply-adds of warps per clock
shared(step, waves) = waves > 0 ? peak(step) * w / (perclock(step) * waves) : peak(step)
height(step, I, waves) = least(roof(I, peak(step)), shared(step, waves))
name(step) = step == 6 ? "6, 7, 8" : step == 7 || step == 8 ? "" : sprintf("%d", step)
set samples 500
plot roof(x, BF16) with lines lw 2 lc "#d0782a" title "bf16, tensor cores", \
     roof(x, F32) with lines lw 2 lc "#3a86c8" title "f32", \
     d using (intensity($8, $3)):(height($1, intensity($8, $3), $6)) with points pt 7 \
       ps 0.9 lc "#4f9a4f" title "the steps", \
     d using (intensity($8, $3)):(height($1, intensity($8, $3), $6)):(name($1)) \
       with labels offset 1.0,-0.6 textcolor "#808080" notitle
