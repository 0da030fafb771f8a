/* tests/parallel/test_tensor.c: from chapters/06-tensor-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Whole models cut over 1, 2, 3, 4 ranks: losses, gradients, communication. */
#include "tensor_model.h"

/* compare a cut model */
static dls_status compare(int rank, void *arg)
{
    const tensor_case *c = arg;
    tensor_side whole, cut;
    dls_comm *comm;
    (void)rank;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(tensor_open(&whole, c, NULL));
    DLS_TRY(tensor_open(&cut, c, comm));
    for (int pass = 0; pass < 2; pass++) {
        DLS_TRY(tensor_forward(&whole, c));
        DLS_TRY(tensor_forward(&cut, c));
        DLS_TRY(tensor_backward(&whole, c));
        DLS_TRY(tensor_backward(&cut, c));
        DLS_TRY(tensor_compare(&cut, &whole, 1e-10, 1e-12));
    }
    tensor_close(&cut);
    tensor_close(&whole);
    dls_comm_destroy(comm);
    return DLS_OK;
}

static void everywhere(tensor_case c, int from, int to)
{
    int H = c.heads ? c.heads : 6, Hk = c.kv_heads ? c.kv_heads : H;
    c.dtype = DLS_F64;
    for (int t = from; t <= to; t++)
        if (H % t == 0 && (Hk % t == 0 || t % Hk == 0))
            expect_ranks(t, compare, &c);
}

/* test cut models */
#define C(...) (tensor_case){__VA_ARGS__}

Test(tensor_parallel, gpt2) { everywhere(C(0), 1, 6); }
Test(tensor_parallel, gpt2_untied) { everywhere(C(.untied = 1), 2, 3); }
Test(tensor_parallel, four_ranks) { everywhere(C(.heads = 4), 4, 4); }
Test(tensor_parallel, llama) { everywhere(C(.llama = 1), 1, 3); }
Test(tensor_parallel, llama_tied) { everywhere(C(.llama = 1, .untied = 0), 2, 2); }
Test(tensor_parallel, uneven_columns) { everywhere(C(.heads = 4, .hidden = 7), 2, 4); }

Test(tensor_parallel, fewer_keys_and_values)
{
    everywhere(C(.llama = 1, .untied = 1, .kv_heads = 2), 2, 6);
    everywhere(C(.llama = 1, .untied = 1, .kv_heads = 3), 3, 6);
    everywhere(C(.llama = 1, .untied = 1, .heads = 4, .kv_heads = 1), 2, 4);
}

Test(tensor_parallel, dropout)
{
    everywhere(C(.dropout = 0.25), 2, 3);
    everywhere(C(.llama = 1, .kv_heads = 2, .dropout = 0.25), 2, 6);
}

Test(tensor_parallel, recomputation)
{
    everywhere(C(.recompute = DLS_RECOMPUTE_SELECTIVE, .dropout = 0.25), 2, 3);
    everywhere(C(.recompute = DLS_RECOMPUTE_FULL, .dropout = 0.25), 2, 3);
    everywhere(C(.llama = 1, .recompute = DLS_RECOMPUTE_SELECTIVE), 2, 2);
    everywhere(C(.llama = 1, .recompute = DLS_RECOMPUTE_FULL), 2, 2);
}

Test(tensor_parallel, split_backward)
{
    everywhere(C(.split = 1, .dropout = 0.25), 2, 3);
    everywhere(C(.llama = 1, .kv_heads = 2, .split = 1), 2, 6);
    everywhere(C(.split = 1, .recompute = DLS_RECOMPUTE_FULL), 2, 2);
}

Test(tensor_parallel, slices_of_rows)
{
    everywhere(C(.sequence = 1, .dropout = 0.25), 2, 3);
    everywhere(C(.sequence = 1, .untied = 1, .recompute = DLS_RECOMPUTE_SELECTIVE), 2, 3);
    everywhere(C(.sequence = 1, .recompute = DLS_RECOMPUTE_FULL, .dropout = 0.25), 2, 2);
    everywhere(C(.sequence = 1, .split = 1, .dropout = 0.25), 2, 3);
    everywhere(C(.llama = 1, .kv_heads = 2, .sequence = 1, .dropout = 0.25), 2, 6);
}
