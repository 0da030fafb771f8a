/* code/kernels/rope_host.c: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* Rotary embedding in plain C. The two halves of a head make two plain vectors. */
#include <math.h>
#include <stddef.h>

#include "kernels/parallel.h"
#include "kernels/real.h"
#include "kernels/rope.h"

#include "kernels/rope_host.h"

/* turn rows on the host */
static void turn_head(real *restrict a, real *restrict b, const acc *restrict cosines,
                      const acc *restrict sines, acc sign, int half)
{
    #pragma omp simd
    for (int p = 0; p < half; p++) {
        acc c = cosines[p], d = sign * sines[p];
        acc low = widen(a[p]), high = widen(b[p]);
        a[p] = narrow(low * c - high * d);
        b[p] = narrow(high * c + low * d);
    }
}

static void forget_head(real *a, int R)
{
    for (int p = 0; p < R; p++)
        a[p] = narrow((acc)NAN);
}

void DLS_HOST_NAME(dls_rope_turn)(real *x, const acc *table, dls_rope_shape s, acc sign)
{
    int half = s.R / 2;
    DLS_PARALLEL((size_t)s.N * s.heads * s.D)
    for (size_t n = 0; n < (size_t)s.N; n++) {
        int at = s.start + (int)(s.T > 0 ? n % s.T : n);
        if (s.positions != NULL)
            at = s.positions[n];
        const acc *angles = table + (size_t)at * s.R;
        for (int h = 0; h < s.heads; h++) {
            real *head = x + n * s.row + (size_t)h * s.D;
            if (at < 0 || at >= s.length)
                forget_head(head, s.R);
            else
                turn_head(head, head + half, angles, angles + half, sign, half);
        }
    }
}
