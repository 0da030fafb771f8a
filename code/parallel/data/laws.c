/* code/parallel/data/laws.c: from chapters/04-data-parallelism-zero-plan.md. Edit the chapter, or edit here and run "make untangle". */
/* The laws in closed form. */
#include "parallel/data/laws.h"

dls_parameter_bytes dls_bytes_mixed(void)
{
    return (dls_parameter_bytes){2, 2, 12};
}

double dls_law_memory(dls_parameter_bytes b, int stage, double n)
{
    return b.value / (stage >= 3 ? n : 1) + b.grad / (stage >= 2 ? n : 1)
        + b.state / (stage >= 1 ? n : 1);
}

double dls_law_sent(int stage, double n)
{
    return (stage >= 3 ? 3 : 2) * (n - 1) / n;
}

double dls_law_deepspeed(int stage, double parameters, double largest, double n)
{
    return stage == 3 ? 4 * largest + 18 * parameters / n
                      : 4 * parameters + 16 * parameters / n;
}
