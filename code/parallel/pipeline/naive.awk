# awk -v p=4 -v v=3 -v m=5 -v g=4 -f naive.awk: interleaved 1F1B with a small last group
function pass(k, kind,   group, size, within, chunk) {
    group = int(k / (g * v))
    size = m - group * g < g ? m - group * g : g
    within = k - group * g * v
    chunk = int(within / size)
    return (kind == "F" ? chunk : v - 1 - chunk) * p + r kind group * g + within % size
}
BEGIN {
    for (r = 0; r < p; r++) {
        w = 2 * (p - 1 - r) + (v - 1) * g
        line = ""
        for (k = 0; k < m * v + w; k++) {
            if (k < m * v) line = line "," pass(k, "F")
            if (k >= w && k - w < m * v) line = line "," pass(k - w, "B")
        }
        print substr(line, 2)
    }
}
