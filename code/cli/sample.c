/* code/cli/sample.c: from chapters/01-introduction.md. Edit the chapter, or edit here and run "make untangle". */
/* dls sample: text from a checkpoint or a Hugging Face directory. */
#include <stdio.h>

#include "base/args.h"
#include "cli/command.h"
#include "train/sample.h"

/* print a token */
static dls_status print_token(void *self, int token)
{
    const int *ids = self;
    if ((*ids ? printf(" %d", token) : putchar(token)) < 0)
        return DLS_FAIL(DLS_ERR_IO, "standard output: can not be written");
    fflush(stdout);
    return DLS_OK;
}

/* sample from a checkpoint */
/* check what to sample */
static dls_status check_sample(const dls_sample_options *o, int64_t tokens, int64_t top_k)
{
    if (!o->checkpoint == !o->model)
        return DLS_FAIL(DLS_ERR_INPUT, "--checkpoint or --model: expected one of them, "
                        "got %s", o->model ? "both" : "neither");
    if (tokens < 0 || tokens > 1000000)
        return DLS_FAIL(DLS_ERR_INPUT, "--tokens: expected 0 to 1000000, got %lld",
                        (long long)tokens);
    if (top_k < 0 || top_k > 1 << 20)
        return DLS_FAIL(DLS_ERR_INPUT, "--top-k: expected 0 to 1048576, got %lld",
                        (long long)top_k);
    return DLS_OK;
}

dls_status command_sample(int argc, char **argv, int *exit_code)
{
    (void)exit_code;
    dls_sample_options o = {.prompt = "", .draw = {0.8, 0, 1, 1}};
    int64_t tokens = 200, top_k = 0, seed = 1;
    const char *dtype = "f32";
    const dls_arg args[] = {
        /* list the sample options */
        {"--checkpoint", DLS_ARG_STRING, &o.checkpoint, "PATH", "a file, or a directory"},
        {"--model", DLS_ARG_STRING, &o.model, "DIR", "a Hugging Face directory instead"},
        {"--dtype", DLS_ARG_STRING, &dtype, "TYPE", "to compute it in: f32, f64 or bf16 (f32)"},
        {"--prompt", DLS_ARG_STRING, &o.prompt, "TEXT", "what to continue"},
        {"--ids", DLS_ARG_FLAG, &o.ids, NULL, "the prompt and the text are token numbers"},
        {"--tokens", DLS_ARG_INT, &tokens, "N", "how many to draw (200)"},
        {"--temperature", DLS_ARG_REAL, &o.draw.temperature, "T",
         "0 takes the likeliest (0.8)"},
        {"--top-k", DLS_ARG_INT, &top_k, "K", "draw among the K likeliest (0: all)"},
        {"--top-p", DLS_ARG_REAL, &o.draw.top_p, "P",
         "draw among the likeliest that make up P (1: all)"},
        {"--repetition-penalty", DLS_ARG_REAL, &o.draw.repetition_penalty, "R",
         "above 1: what occurred is less likely (1)"},
        {"--seed", DLS_ARG_INT, &seed, "N", "the same seed, the same text (1)"},
    };
    const dls_args spec = {"dls sample", "Lets a trained model write.",
                           "dls sample --checkpoint build/tour --prompt '## The '", args,
                           sizeof args / sizeof args[0]};
    int helped;
    DLS_TRY(dls_args_parse(&spec, argc, argv, &helped));
    if (helped)
        return DLS_OK;
    DLS_TRY(check_sample(&o, tokens, top_k));
    DLS_TRY(dls_dtype_parse(dtype, &o.dtype));
    o.tokens = (int)tokens;
    o.draw.top_k = (int)top_k;
    o.seed = (uint64_t)seed;
    o.emit = print_token;
    o.self = &o.ids;
    fputs(o.prompt, stdout);
    DLS_TRY(dls_sample_run(&o));
    putchar('\n');
    return DLS_OK;
}
