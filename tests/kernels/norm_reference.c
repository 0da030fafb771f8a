/* tests/kernels/norm_reference.c: from chapters/09-transformer-kernels-3-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* See norm_reference.h. */
#include "norm_reference.h"

static void refer_to_statistics(const kcase *k, norm_row *r, double *shift)
{
    double var = 0, most = 0;
    r->mean = 0;
    for (int c = 0; c < r->C; c++) {
        r->mean += r->centred ? r->h[c] / r->C : 0;
        most = fmax(most, fabs(r->h[c]));
    }
    for (int c = 0; c < r->C; c++)
        var += (r->h[c] - r->mean) * (r->h[c] - r->mean) / r->C;
    r->rstd = 1 / sqrt(var + r->epsilon);
    *shift = r->centred ? rounding(k, r->C + 8) * most * r->rstd : 0;
    r->rstd_e = rounding(k, r->C + 8) + 2 * *shift + *shift * *shift;
}

/* refer to a norm */
void refer_to_norm(const kcase *k, norm_row *r, int rows)
{
    double shift, g = 0, gx = 0, g_abs = 0, gx_abs = 0, rho, e = rounding(k, r->C + 8);
    refer_to_statistics(k, r, &shift);
    rho = r->rstd;
    for (int c = 0; c < r->C; c++) {
        double term = r->dout[c] * r->w[c], xhat = (r->h[c] - r->mean) * rho;
        g += r->centred ? term / r->C : 0;
        gx += term * xhat / r->C;
        g_abs += r->centred ? fabs(term) / r->C : 0;
        gx_abs += fabs(term) * (fabs(xhat) + shift) / r->C;
    }
    for (int c = 0; c < r->C; c++) {
        double xhat = (r->h[c] - r->mean) * rho, d = r->dout[c], w = r->w[c];
        double xhat_e = shift + (r->rstd_e + e) * (fabs(xhat) + shift);
        double b = r->b ? r->b[c] : 0;
        r->out[c] = xhat * w + b;
        r->out_e[c] = fabs(w) * xhat_e + e * (fabs(w * xhat) + fabs(b));
        /* refer to the gradients of a norm */
        r->dh[c] = rho * (d * w - g - xhat * gx);
        double product_e = (2 * e + r->rstd_e) * gx_abs + shift * g_abs;
        r->dh_e[c] = rho * (e * (fabs(d * w) + 2 * g_abs) + xhat_e * (gx_abs + product_e)
                            + (fabs(xhat) + xhat_e) * product_e + e * fabs(xhat) * gx_abs)
                   + (r->rstd_e + e) * rho * (fabs(d * w) + g_abs + fabs(xhat) * gx_abs);
        r->dw[c] += d * xhat;
        r->dw_e[c] += fabs(d) * (xhat_e + rounding(k, rows + 3) * (fabs(xhat) + xhat_e));
    }
}
