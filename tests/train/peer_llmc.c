/* tests/train/peer_llmc.c: from chapters/09-transformer-cpu.md. Edit the chapter, or edit here and run "make untangle". */
/* llm.c's CPU trainer as a process that takes a step whenever a line arrives and prints
 * its seconds and loss. Compiled by "make bench-cpu PEER=folder", with llm.c's own flags;
 * nothing of llm.c is part of this book. */
#define TESTING // leaves out its main
#include "train_gpt2.c"

int main(int argc, char **argv)
{
    GPT2 model;
    int data[2 * 4 * 64], step = 0;
    char line[64];
    FILE *out = fdopen(dup(1), "w");
    dup2(2, 1); // what llm.c prints is not for us
    while (argc > 1 && fgets(line, sizeof line, stdin)) {
        struct timespec start, end;
        if (step == 0) {
            FILE *f = fopen(argv[1], "rb");
            fseek(f, -(long)sizeof data, SEEK_END);
            if (fread(data, sizeof data, 1, f) != 1)
                return 1;
            fclose(f);
            gpt2_build_from_checkpoint(&model, argv[1]);
        }
        clock_gettime(CLOCK_MONOTONIC, &start);
        gpt2_forward(&model, data, data + 4 * 64, 4, 64);
        gpt2_zero_grad(&model);
        gpt2_backward(&model);
        gpt2_update(&model, 1e-4f, 0.9f, 0.999f, 1e-8f, 0.0f, ++step);
        clock_gettime(CLOCK_MONOTONIC, &end);
        fprintf(out, "%.6f %.6f\n", (double)(end.tv_sec - start.tv_sec) +
                1e-9 * (double)(end.tv_nsec - start.tv_nsec), model.mean_loss);
        fflush(out);
    }
    return 0;
}
