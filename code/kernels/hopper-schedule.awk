# Two groups on one tensor core and one exponential unit: lines of "schedule group
# operation tile begin end". -v tiles=N -v exps=CLOCKS
function later(a, b) { return a > b ? a : b }
function run(op, g, j, ready, unit, clocks) {
    begin = later(ready, free[unit])
    free[unit] = begin + clocks
    print name, g, op, j, begin, begin + clocks
    return begin + clocks
}
function scores(g, j, ready) { scored[g] = run("S", g, j, ready, "tensor", 512) }
function softmax(g, j, ready) { weights[g] = run("exp", g, j, ready, "exp", exps) }
function values(g, j) { done[g] = run("V", g, j, weights[g], "tensor", 512) }

function lockstep(j,   g, all) {  # every step of both groups at the same time
    all = later(done[1], done[2])
    for (g = 1; g <= 2; g++) scores(g, j, all)
    all = later(scored[1], scored[2])
    for (g = 1; g <= 2; g++) softmax(g, j, all)
    weights[1] = weights[2] = later(weights[1], weights[2])
    for (g = 1; g <= 2; g++) values(g, j)
}
function turn(j, g) {     # the values of a tile, then the scores of the next
    if (j > 1) values(g, j - 1)
    if (j <= tiles) { scores(g, j, done[g]); softmax(g, j, scored[g]) }
}
function overlap(j, g) {  # the scores of a tile, then the values of the one before
    if (j <= tiles) scores(g, j, weights[g])
    if (j > 1) values(g, j - 1)
    if (j <= tiles) softmax(g, j, scored[g])
}

function clear() {
    free["tensor"] = free["exp"] = 0
    split("0 0", done); split("0 0", weights)
}
BEGIN {
    clear(); name = "lockstep"
    for (j = 1; j <= tiles; j++) lockstep(j)
    print name, free["tensor"] > "/dev/stderr"
    clear(); name = "turns"
    for (n = 0; n < 2 * tiles + 2; n++) turn(int(n / 2) + 1, n % 2 + 1)
    print name, free["tensor"] > "/dev/stderr"
    clear(); name = "overlap"
    for (n = 0; n < 2 * tiles + 2; n++) overlap(int(n / 2) + 1, n % 2 + 1)
    print name, free["tensor"] > "/dev/stderr"
}
