/* code/kernels/dropout.cu: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* Dropout on the device. */
#include "kernels/dropout.h"

/* check the probability */
extern "C" dls_status dls_dropout_check(double p)
{
    if (!(p >= 0 && p <= 1))
        return DLS_FAIL(DLS_ERR_INPUT, "dropout %g; it is a probability, from 0 to 1", p);
    return DLS_OK;
}
