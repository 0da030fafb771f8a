/* tests/parallel/test_tensor_time.c: from chapters/06-tensor-parallelism-cost.md. Edit the chapter, or edit here and run "make untangle". */
/* The virtual time of a cut block's sums, and that of the rest. */
#include "../cli/program.h"
#include "../comm/world.h"

#include "parallel/tensor/timed_block.h"

/* time the sums of a block */
typedef struct timed_case { const char *cluster; int llama; } timed_case;

static dls_transformer_config timed_model(const timed_case *c, int t, int rank)
{
    dls_transformer_config m = c->llama
        ? dls_transformer_llama(16, 64, 1, 12, 6, 768, 2046)
        : dls_transformer_gpt2(16, 64, 1, 12, 768);
    m.sharding = (dls_sharding){.tensor = t, .tensor_rank = rank};
    return m;
}

static dls_status time_case(int rank, void *arg)
{
    const timed_case *c = arg;
    dls_gpu_options timed = {.cluster_file = c->cluster, .kernels = DLS_KERNELS_TIMED};
    dls_comm_options ring = {.algorithm = "all_reduce:ring"};
    dls_block_pass pass[2];
    dls_comm *comm;
    dls_ctx ctx;
    DLS_TRY(dls_gpu_init(&timed));
    DLS_TRY(dls_comm_create(&comm, &ring));
    int t = dls_comm_size(comm);
    dls_transformer_config m = timed_model(c, t, rank);
    double bytes = 2.0 * 2 * 64 * 768, step = TEST_ALPHA + bytes / t * TEST_BETA;
    DLS_TRY(dls_ctx_create(&ctx, 0, DLS_BF16));
    DLS_TRY(dls_time_block(&ctx, &m, 2, 64, comm, 0, &pass[0], &pass[1]));
    for (int i = 0; i < 2; i++) {
        EXPECT(pass[i].operations == 2, "%d sums", (int)pass[i].operations);
        EXPECT(fabs(pass[i].sums - 2 * 2 * (t - 1) * step) < 1e-12, "pass %d: sums of "
               "%.9g s instead of %.9g", i, pass[i].sums, 4 * (t - 1) * step);
        EXPECT(pass[i].sums < pass[i].seconds, "more than all of it");
        EXPECT(pass[i].bytes == 2 * 2 * (uint64_t)(t - 1) * (uint64_t)bytes / (uint64_t)t,
               "%d bytes", (int)pass[i].bytes);
    }
    dls_ctx_destroy(&ctx);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(tensor_parallel, sums_take_the_time_of_their_law)
{
    timed_case c = {test_cluster(1, 8), 0};
    for (int t = 2; t <= 6; t += t == 4 ? 2 : 1) {
        c.llama = t == 3;
        expect_ranks(t, time_case, &c);
    }
}

/* refuse a bad block */
static dls_status refuse(int rank, void *arg)
{
    dls_block_pass pass;
    dls_gpu_memory before, after;
    dls_comm *comm;
    dls_ctx ctx;
    (void)arg;
    DLS_TRY(test_world(NULL, &comm));
    dls_transformer_config m = timed_model(&(timed_case){0}, 8, rank);
    DLS_TRY(dls_ctx_create(&ctx, 0, DLS_BF16));
    DLS_TRY(dls_gpu_memory_stats(0, &before));
    EXPECT(dls_time_block(&ctx, &m, 1, 64, comm, 0, &pass, &pass) == DLS_ERR_INPUT
           && strcmp(dls_status_message(), "model.heads: expected a multiple of the 8 "
                     "tensor ranks, got 12; the nearest is 16") == 0, "%s",
           dls_status_message());
    DLS_TRY(dls_gpu_memory_stats(0, &after));
    EXPECT(after.total == before.total, "%zu bytes taken", after.total - before.total);
    dls_ctx_destroy(&ctx);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(tensor_parallel, a_block_that_can_not_be_cut_is_refused)
{
    expect_ranks(1, refuse, NULL);
}

/* say what is wrong with the options */
static void expect_words(int ranks, const char *options, int exit_code, const char *words)
{
    char command[64];
    snprintf(command, sizeof command, "build/bin/dls run -n %d -- block", ranks);
    program_says(command, options, exit_code, words);
}

Test(tensor_parallel, the_block_command_names_what_is_wrong)
{
    expect_words(1, "--family bert", 2, "--family: expected gpt2 or llama, got \"bert\"");
    expect_words(1, "--head-size 100", 2, "--head-size: expected a divisor of the 4096");
    expect_words(1, "--tokens 0", 2, "--tokens: expected 1 to 1048576, got 0");
    expect_words(3, "", 2, "model.heads: expected a multiple of the 3 tensor ranks, got "
                           "32; the nearest is 33");
    expect_words(4, "--family llama --channels 512 --kv-heads 2 --sequence", 0,
                 "    4       512  forward");
}
