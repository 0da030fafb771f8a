/* code/parallel/data/laws.h: from chapters/04-data-parallelism-zero-plan.md. Edit the chapter, or edit here and run "make untangle". */
/* Memory and messages of data parallelism in closed form. Sizes in bytes per parameter,
 * results in bytes per parameter, or in elements per parameter for messages. */
#ifndef DLS_PARALLEL_DATA_LAWS_H
#define DLS_PARALLEL_DATA_LAWS_H

#ifdef __cplusplus
extern "C" {
#endif

/* What a parameter takes: itself, its gradient, the optimizer's state. */
typedef struct dls_parameter_bytes { double value, grad, state; } dls_parameter_bytes;

/* 2, 2, 12: bf16 with f32 masters, as the paper counts. */
dls_parameter_bytes dls_bytes_mixed(void);

/* stage 0 to 3 over n ranks. Rajbhandari and others 2020, section 5. */
double dls_law_memory(dls_parameter_bytes b, int stage, double n);

/* Elements that a rank sends per step: 2 or 3, times (n-1)/n. Section 7. */
double dls_law_sent(int stage, double n);

/* DeepSpeed's estimator, stages 2 and 3: 4 + 16/n, and 18/n with `largest` parameters of
 * the largest layer whole. In bytes, of `parameters`. */
double dls_law_deepspeed(int stage, double parameters, double largest, double n);

#ifdef __cplusplus
}
#endif
#endif
