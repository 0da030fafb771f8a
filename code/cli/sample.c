/* code/cli/sample.c: from chapters/01-introduction.md. Edit the chapter, or edit here and run "make untangle". */
/* dls sample: text from a checkpoint. */
#include <stdio.h>

#include "base/args.h"
#include "cli/command.h"
#include "train/sample.h"

/* print a token */
static dls_status print_token(void *self, int token)
{
    (void)self;
    if (putchar(token) == EOF)
        return DLS_FAIL(DLS_ERR_IO, "standard output: can not be written");
    fflush(stdout);
    return DLS_OK;
}

/* sample from a checkpoint */
dls_status command_sample(int argc, char **argv, int *exit_code)
{
    (void)exit_code;
    const char *checkpoint = NULL, *prompt = "";
    int64_t tokens = 200, top_k = 0, seed = 1;
    double temperature = 0.8;
    const dls_arg args[] = {
        {"--checkpoint", DLS_ARG_STRING, &checkpoint, "PATH", "a file, or a directory"},
        {"--prompt", DLS_ARG_STRING, &prompt, "TEXT", "what to continue"},
        {"--tokens", DLS_ARG_INT, &tokens, "N", "how many to draw (200)"},
        {"--temperature", DLS_ARG_REAL, &temperature, "T", "0 takes the likeliest (0.8)"},
        {"--top-k", DLS_ARG_INT, &top_k, "K", "draw among the K likeliest (0: all)"},
        {"--seed", DLS_ARG_INT, &seed, "N", "the same seed, the same text (1)"},
    };
    const dls_args spec = {"dls sample", "Lets a trained model write.",
                           "dls sample --checkpoint build/tour --prompt '## The '", args,
                           sizeof args / sizeof args[0]};
    int helped;
    DLS_TRY(dls_args_parse(&spec, argc, argv, &helped));
    if (helped)
        return DLS_OK;
    if (!checkpoint)
        return DLS_FAIL(DLS_ERR_INPUT, "--checkpoint: expected a path, got nothing");
    if (tokens < 0 || tokens > 1000000)
        return DLS_FAIL(DLS_ERR_INPUT, "--tokens: expected 0 to 1000000, got %lld",
                        (long long)tokens);
    if (top_k < 0 || top_k > 1000000)
        return DLS_FAIL(DLS_ERR_INPUT, "--top-k: expected 0 to 1000000, got %lld",
                        (long long)top_k);
    fputs(prompt, stdout);
    const dls_sample_options options = {checkpoint, prompt, (int)tokens, temperature,
                                        (int)top_k, (uint64_t)seed, print_token, NULL};
    DLS_TRY(dls_sample_run(&options));
    putchar('\n');
    return DLS_OK;
}
