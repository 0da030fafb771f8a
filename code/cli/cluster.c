/* code/cli/cluster.c: from chapters/01-introduction.md. Edit the chapter, or edit here and run "make untangle". */
/* dls cluster: the roofline of a cluster's device, a path between ranks, a picture. */
#include <math.h>
#include <stdio.h>

#include "base/args.h"
#include "base/table.h"
#include "cli/command.h"
#include "vgpu/cluster.h"

/* print the roofline of a device */
static dls_status print_roofline(const dls_device_spec *d, int json)
{
    static const dls_column columns[] = {
        {"work", NULL}, {"peak TFLOP/s", "%.1f"}, {"reached TFLOP/s", "%.1f"},
        {"reached GB/s", "%.1f"}, {"FLOP/byte at the ridge", "%.1f"},
    };
    dls_table *table;
    DLS_TRY(dls_table_create(&table, columns, 5));
    for (int w = 0; w <= DLS_WORK_COPY; w++) {
        double peak = dls_cluster_peak(d, (dls_work)w), flops = peak * d->share[w].flops;
        double bytes = d->memory_bandwidth * d->share[w].memory;
        if ((w == DLS_WORK_GEMM_FP8 && d->fp8 == 0) ||
            (w == DLS_WORK_GEMM_FP4 && d->fp4 == 0) ||
            (w == DLS_WORK_GEMM_INT8 && d->int8 == 0))
            continue;
        dls_table_add_text(table, dls_work_name((dls_work)w));
        dls_table_add_real(table, peak * 1e-12);
        dls_table_add_real(table, flops * 1e-12);
        dls_table_add_real(table, bytes * 1e-9);
        dls_table_add_real(table, flops / bytes);
    }
    dls_status status = dls_table_print(table, stdout, json);
    dls_table_free(table);
    return status;
}

/* print the path between ranks */
static void add_hop(dls_table *table, const char *from, const char *to, double alpha,
                    double beta, double seconds)
{
    dls_table_add_text(table, from);
    dls_table_add_text(table, to);
    dls_table_add_real(table, alpha * 1e6);
    dls_table_add_real(table, 1e-9 / beta);
    dls_table_add_real(table, seconds * 1e6);
}

static dls_status print_path(const dls_cluster *c, int from, int to, double bytes,
                             int json)
{
    static const dls_column columns[] = {
        {"from", NULL}, {"to", NULL}, {"alpha us", "%.4g"}, {"GB/s", "%.4g"},
        {"us", "%.4g"},
    };
    dls_hop hops[DLS_HOPS];
    dls_table *table;
    char a[32], b[32];
    double alpha, beta;
    int count;
    DLS_TRY(dls_cluster_path(c, from, to, hops, &count));
    DLS_TRY(dls_cluster_link(c, from, to, &alpha, &beta));
    DLS_TRY(dls_table_create(&table, columns, 5));
    for (int i = 0; i < count; i++) {
        dls_hop_end(&hops[i], hops[i].from, a, sizeof a);
        dls_hop_end(&hops[i], hops[i].to, b, sizeof b);
        add_hop(table, a, b, hops[i].alpha, hops[i].beta, NAN);
    }
    snprintf(a, sizeof a, "GPU %d", from);
    snprintf(b, sizeof b, "GPU %d", to);
    add_hop(table, a, b, alpha, beta, alpha + beta * bytes);
    dls_status status = dls_table_print(table, stdout, json);
    dls_table_free(table);
    return status;
}

/* answer about a cluster */
dls_status command_cluster(int argc, char **argv, int *exit_code)
{
    (void)exit_code;
    const char *name = NULL, *picture = NULL;
    int64_t from = -1, to = -1;
    double bytes = 0;
    int json = 0, helped;
    const dls_arg args[] = {
        {"NAME", DLS_ARG_STRING, &name, NULL, "a cluster, or its file"},
        {"--from", DLS_ARG_INT, &from, "RANK", "the path from this rank ..."},
        {"--to", DLS_ARG_INT, &to, "RANK", "... to this one"},
        {"--bytes", DLS_ARG_REAL, &bytes, "N", "of a message on the path"},
        {"--draw", DLS_ARG_STRING, &picture, "FILE", "draw the cluster as SVG"},
        {"--json", DLS_ARG_FLAG, &json, NULL, "print JSON"},
    };
    const dls_args spec = {"dls cluster", "Prints what the virtual clock knows of a "
                           "cluster.", "dls cluster dgx-a100 --from 0 --to 7 --bytes 1e6",
                           args, sizeof args / sizeof args[0]};
    dls_cluster c;
    DLS_TRY(dls_args_parse(&spec, argc, argv, &helped));
    if (helped)
        return DLS_OK;
    DLS_TRY(dls_cluster_load(name, &c));
    if ((from < 0) != (to < 0))
        return DLS_FAIL(DLS_ERR_INPUT, "expected both --from and --to");
    if (picture)
        return dls_cluster_draw(&c, picture);
    return from < 0 ? print_roofline(&c.device, json)
                    : print_path(&c, (int)from, (int)to, bytes, json);
}
