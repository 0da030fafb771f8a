/* tests/kernels/test_rope.c: from chapters/09-transformer-kernels-3-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

/* compare frequencies */
typedef struct frequency { int pair; double theta; } frequency;

static void expect_frequencies(const dls_rope *rope, int length,
                               const frequency expected[7], double attention)
{
    double all[64], factor;
    cr_assert_leq(rope->dim, 128);
    OK(dls_rope_frequencies(rope, length, all, &factor));
    for (int i = 0; i < 7 && expected[i].theta > 0; i++)
        cr_assert(fabs(all[expected[i].pair] / expected[i].theta - 1) <= 1024 * 0x1p-53,
                  "pair %d: %.17g, expected %.17g", expected[i].pair,
                  all[expected[i].pair], expected[i].theta);
    cr_assert(fabs(factor / attention - 1) <= 4 * 0x1p-53, "%.17g", factor);
}

Test(kernels, rope_frequencies)
{
    dls_rope plain = {.theta = 10000, .dim = 128};
    expect_frequencies(&plain, 1, (frequency[7]){{0, 1}, {1, 0.8659643233600653},
                       {32, 0.01}, {63, 0.00011547819846894582}}, 1);
    dls_rope linear = {.theta = 10000, .dim = 64, .scaling = DLS_ROPE_LINEAR,
                       .factor = 2.5};
    expect_frequencies(&linear, 1, (frequency[7]){{0, 0.4}, {1, 0.29995768373298237},
                       {16, 0.004}, {31, 5.3340857286532955e-05}}, 1);
    dls_rope dynamic = {.theta = 10000, .dim = 64, .scaling = DLS_ROPE_DYNAMIC,
                        .factor = 2, .original = 2048};
    expect_frequencies(&dynamic, 8192, (frequency[7]){{0, 1}, {1, 0.7042693252165533},
                       {16, 0.003662860395123454}, {31, 1.905030617376177e-05}}, 1);
    expect_frequencies(&dynamic, 2048, (frequency[7]){{0, 1}, {1, 0.7498942093324559},
                       {16, 0.01}, {31, 0.0001333521432163324}}, 1);
    expect_frequencies(&dynamic, 100, (frequency[7]){{1, 0.7498942093324559},
                       {31, 0.0001333521432163324}}, 1);
    dls_rope pair = dynamic;
    pair.dim = 2;
    expect_frequencies(&pair, 8192, (frequency[7]){{0, 1}}, 1);
}

Test(kernels, rope_frequencies_of_llama)
{
    dls_rope rope = {.theta = 500000, .dim = 128, .scaling = DLS_ROPE_LLAMA3, .factor = 8,
                     .original = 8192, .low_freq_factor = 1, .high_freq_factor = 4};
    expect_frequencies(&rope, 1, (frequency[7]){{0, 1}, {28, 0.0032114459947525913},
                       {29, 0.002166570763503359}, {31, 0.0008567514129196324},
                       {34, 0.00017850781276799638}, {35, 9.556212353964683e-05},
                       {63, 3.068925988914511e-07}}, 1);
    rope.dim = 64;
    rope.factor = 32;
    expect_frequencies(&rope, 1, (frequency[7]){{0, 1}, {14, 0.0032114459947525913},
                       {15, 0.001290547928209264}, {16, 0.00042955679655936815},
                       {17, 9.70828780262767e-05}, {18, 1.9461638184831125e-05},
                       {31, 9.418306725434911e-08}}, 1);
}

Test(kernels, rope_frequencies_of_yarn)
{
    dls_rope qwen = {.theta = 1e6, .dim = 128, .scaling = DLS_ROPE_YARN, .factor = 4,
                     .original = 32768};
    expect_frequencies(&qwen, 1, (frequency[7]){{23, 0.006978305848598663},
                       {24, 0.005375321490790102}, {30, 0.0010643609812470017},
                       {36, 0.00017984115587395423}, {39, 6.490394320837029e-05},
                       {40, 4.445698525097307e-05}, {63, 3.102344401879299e-07}},
                       1.138629436111989);
    dls_rope deepseek = {.theta = 10000, .dim = 64, .scaling = DLS_ROPE_YARN,
                         .factor = 40, .original = 4096, .beta_fast = 32, .beta_slow = 1,
                         .mscale = 1, .mscale_all_dim = 0.8};
    expect_frequencies(&deepseek, 1, (frequency[7]){{0, 1}, {10, 0.056234132519034905},
                       {11, 0.03900692656714386}, {16, 0.0055},
                       {22, 0.0001778279410038922}, {23, 3.33380358040831e-05},
                       {31, 3.33380358040831e-06}}, 1.0569662567531275);
    dls_rope gpt_oss = {.theta = 150000, .dim = 64, .scaling = DLS_ROPE_YARN,
                        .factor = 32, .original = 4096, .untruncated = 1};
    expect_frequencies(&gpt_oss, 1, (frequency[7]){{0, 1}, {8, 0.050813274815461475},
                       {9, 0.03170569618466377}, {12, 0.006794959489732219},
                       {17, 0.00012931870124506317}, {18, 3.8308812373753384e-05},
                       {31, 3.0235114281192144e-07}}, 1.3465735902799727);
    dls_rope given = {.theta = 10000, .dim = 64, .scaling = DLS_ROPE_YARN, .factor = 2,
                      .original = 4096, .attention_factor = 1.25, .beta_fast = 16,
                      .beta_slow = 2};
    expect_frequencies(&given, 1, (frequency[7]){{0, 1}, {12, 0.03162277660168379},
                       {16, 0.0077777777777777776}, {31, 6.66760716081662e-05}}, 1.25);
}

Test(kernels, rope_frequencies_of_yarn_at_the_ends)
{
    dls_rope rope = {.theta = 10000, .dim = 64, .scaling = DLS_ROPE_YARN, .factor = 8,
                     .original = 131072};
    expect_frequencies(&rope, 1, (frequency[7]){{0, 1}, {18, 0.005623413251903491},
                       {19, 0.004216965034285823}, {25, 0.0005984732632172482},
                       {30, 8.207443430948874e-05}, {31, 5.257151799874643e-05}},
                       1.2079441541679836);
    rope.original = 128;
    expect_frequencies(&rope, 1, (frequency[7]){{0, 1}, {1, 0.6902435335901014},
                       {5, 0.14282137090916788}, {10, 0.011502436197075323},
                       {11, 0.005271206292857278}, {31, 1.666901790204155e-05}},
                       1.2079441541679836);
}

/* refer to the rotation */
static int position_of(const dls_rope_shape *s, const int *positions, int n)
{
    return positions ? positions[n] : s->start + (s->T ? n % s->T : n);
}

/* x (N, row) becomes what is expected, bound its bounds; NaN outside of the table. */
static void refer_to_rotation(const kcase *k, const dls_rope_shape *s, double theta,
                              double sign, const int *positions, double *x,
                              double *bound)
{
    for (int i = 0; i < s->N * s->heads * (s->R / 2); i++) {
        int p = i % (s->R / 2), n = i / (s->R / 2) / s->heads;
        int m = position_of(s, positions, n);
        double *a = x + n * s->row + i / (s->R / 2) % s->heads * s->D + p;
        long double angle = sign * m * powl(theta, -2.0L * p / s->R);
        double c = (double)cosl(angle), d = (double)sinl(angle);
        double low = a[0], high = a[s->R / 2], size = fabs(low) + fabs(high);
        double e = rounding(k, 4) + fabs((double)angle) * 0x1p-51 + k->stored;
        if (m < 0 || m >= s->length)
            c = NAN;
        a[0] = low * c - high * d;
        a[s->R / 2] = high * c + low * d;
        bound[a - x] = bound[a - x + s->R / 2] = e * size;
    }
}

static void check_rotation(kcase *k, dls_rope_shape s, const int *positions)
{
    size_t n = s.N * s.row;
    dls_rope rope = {.theta = 777, .dim = s.R};
    double *x = kcase_random(k, n, 1, -1, 1), *bound = kcase_zeros(k, n);
    void *table = kcase_space_acc(k, (size_t)s.length * s.R), *dev = kcase_put(k, x, n);
    OK(dls_rope_table(&k->ctx, table, &rope, s.length));
    s.positions = positions ? kcase_put_ints(k, positions, s.N) : NULL;
    OK(dls_rope_forward(&k->ctx, dev, table, &s));
    refer_to_rotation(k, &s, 777, 1, positions, x, bound);
    expect_near(kcase_get(k, dev, n), x, bound, n, "turned");
    x = kcase_random(k, n, 1, -1, 1);
    dev = kcase_put(k, x, n);
    OK(dls_rope_backward(&k->ctx, dev, table, &s));
    refer_to_rotation(k, &s, 777, -1, positions, x, bound);
    expect_near(kcase_get(k, dev, n), x, bound, n, "turned back");
    kcase_release(k, 0, 0);
}

/* test rotated rows */
KERNEL_TEST(rope_sizes)
{
    dls_rope_shape shapes[] = {
        {.N = 1, .heads = 1, .D = 2, .R = 2, .row = 2, .length = 1},
        {.N = 5, .heads = 3, .D = 6, .R = 4, .row = 31, .length = 7, .start = 2},
        {.N = 7, .heads = 5, .D = 64, .R = 64, .row = 7 * 64, .length = 7},
        {.N = 11, .heads = 2, .D = 7, .R = 6, .row = 14, .length = 1000, .start = 989},
        {.N = 13, .heads = 1, .D = 34, .R = 34, .row = 40, .length = 9, .T = 4,
         .start = 5},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check_rotation(k, shapes[i], NULL);
    int packed[] = {0, 1, 2, 0, 0, 1, 6, 3, 5, 5, 4};
    dls_rope_shape s = {.N = 11, .heads = 3, .D = 10, .R = 8, .row = 33, .length = 7};
    check_rotation(k, s, packed);
    int outside[] = {0, -1, 2, 7, 6, 1 << 30, -(1 << 30), 3, 5, 5, 4};
    check_rotation(k, s, outside);
}

KERNEL_TEST(rope_example)
{
    double x[] = {1, 2, 3, 4}, y[] = {-1.984111, 1.959901, 2.462378, 4.019800};
    dls_rope rope = {.theta = 10000, .dim = 4};
    dls_rope_shape s = {.N = 1, .heads = 1, .D = 4, .R = 4, .row = 4, .length = 2,
                        .start = 1};
    void *dev = kcase_put(k, x, 4), *table = kcase_space_acc(k, 8);
    OK(dls_rope_table(&k->ctx, table, &rope, 2));
    OK(dls_rope_forward(&k->ctx, dev, table, &s));
    expect_stored_within(k, kcase_get(k, dev, 4), y, 3e-6, 4, "turned by (1, 0.01)");
}

KERNEL_TEST(rope_scores_depend_on_the_distance)
{
    enum { R = 64, AT = 4 };
    int positions[AT] = {3, 10, 40, 47};
    dls_rope rope = {.theta = 10000, .dim = R, .scaling = DLS_ROPE_YARN, .factor = 4,
                     .original = 16};
    dls_rope_shape s = {.N = AT, .heads = 1, .D = R, .R = R, .row = R, .length = 64};
    double *x = kcase_random(k, AT * R, 1, -1, 1), near = 0, far = 0, size = 0;
    double before = 0, after = 0, longer = 0.1 * log(4) + 1;
    memcpy(x + 2 * R, x, 2 * R * sizeof *x);
    void *table = kcase_space_acc(k, 64 * R), *dev = kcase_put(k, x, AT * R);
    s.positions = kcase_put_ints(k, positions, AT);
    OK(dls_rope_table(&k->ctx, table, &rope, 64));
    OK(dls_rope_forward(&k->ctx, dev, table, &s));
    double *y = kcase_get(k, dev, AT * R);
    for (int c = 0; c < R; c++) {
        near += y[c] * y[R + c];
        far += y[2 * R + c] * y[3 * R + c];
        size += 4 * 1.3 * (fabs(x[c]) + fabs(x[(c + R / 2) % R]));
        before += x[c] * x[c];
        after += y[c] * y[c];
    }
    double e = rounding(k, 10) + 2 * k->stored;
    cr_assert(fabs(near - far) <= size * e, "%g %g", near, far);
    cr_assert(fabs(after / before / longer / longer - 1) <= 2 * e, "%g %g", after,
              before);
}

static double rotation_of_input(kcase *k, void *env, const double *x, double *size)
{
    int devices = k->devices, hosts = k->hosts;
    dls_rope rope = {.theta = 10000, .dim = 6, .scaling = DLS_ROPE_YARN, .factor = 2,
                     .original = 8};
    dls_rope_shape s = {.N = 2, .heads = 2, .D = 8, .R = 6, .row = 17, .length = 9,
                        .start = 7};
    void *table = kcase_space_acc(k, 54), *dev = kcase_put(k, x, 34);
    OK(dls_rope_table(&k->ctx, table, &rope, 9));
    OK((env ? dls_rope_forward : dls_rope_backward)(&k->ctx, dev, table, &s));
    double sum = weigh(k, dev, env ? env : x, 34, size);
    if (env == NULL)  // the gradient itself is wanted
        memcpy((double *)x, kcase_get(k, dev, 34), 34 * sizeof *x);
    kcase_release(k, devices, hosts);
    return sum;
}

KERNEL_TEST(rope_differences)
{
    double *x = kcase_random(k, 34, 1, -1, 1), *dout = kcase_random(k, 34, 2, -1, 1);
    double *gradient = kcase_random(k, 34, 2, -1, 1), size;
    rotation_of_input(k, NULL, gradient, &size);
    expect_gradient(k, rotation_of_input, dout, x, 34, gradient, 40, "rope");
}

/* test refused rotations */
static void expect_bad_rope(dls_rope rope, const char *field)
{
    double frequencies[64], factor;
    cr_assert_eq(dls_rope_frequencies(&rope, 8, frequencies, &factor), DLS_ERR_INPUT,
                 "%s", field);
    cr_assert(strstr(dls_status_message(), field) != NULL, "%s", dls_status_message());
}

#define EXPECT_BAD_ROPE(field, value)       \
    do {                                    \
        dls_rope bad = good;                \
        bad.field = value;                  \
        expect_bad_rope(bad, #field);       \
    } while (0)

Test(kernels, rope_refuses_bad_angles)
{
    dls_rope good = {.theta = 10000, .dim = 8, .factor = 2, .original = 8,
                     .low_freq_factor = 1, .high_freq_factor = 4};
    int dims[] = {0, -2, 7};
    double thetas[] = {1, 0, -10, NAN, INFINITY}, factors[] = {0.5, 0, NAN, INFINITY};
    for (int i = 0; i < 3; i++)
        EXPECT_BAD_ROPE(dim, dims[i]);
    for (int i = 0; i < 5; i++)
        EXPECT_BAD_ROPE(theta, thetas[i]);
    for (int s = DLS_ROPE_LINEAR; s <= DLS_ROPE_LLAMA3; s++) {
        good.scaling = s;
        for (int i = 0; i < 4; i++)
            EXPECT_BAD_ROPE(factor, factors[i]);
        if (s != DLS_ROPE_LINEAR)
            EXPECT_BAD_ROPE(original, 0);
    }
    EXPECT_BAD_ROPE(low_freq_factor, 4);
    EXPECT_BAD_ROPE(low_freq_factor, 0);
}

KERNEL_TEST(rope_refuses_bad_shapes)
{
    dls_rope_shape good = {.N = 4, .heads = 2, .D = 4, .R = 4, .row = 8, .length = 4};
    dls_rope_shape bad[8];
    void *x = kcase_put(k, kcase_zeros(k, 32), 32);
    void *table = kcase_put_acc(k, kcase_zeros(k, 16), 16);
    for (int i = 0; i < 8; i++)
        bad[i] = good;
    bad[0].R = 3;
    bad[1].R = 6;
    bad[2].row = 7;
    bad[3].start = 1;
    bad[4].start = -1;
    bad[5].length = 3;
    bad[6].N = -1;
    bad[7].length = 0;
    for (int i = 0; i < 8; i++)
        cr_assert_eq(dls_rope_forward(&k->ctx, x, table, &bad[i]), DLS_ERR_INPUT, "%d",
                     i);
    good.T = 2;  // two sequences of two: positions 0 and 1 only
    good.start = 2;
    OK(dls_rope_backward(&k->ctx, x, table, &good));
    good.N = 0;
    OK(dls_rope_forward(&k->ctx, NULL, NULL, &good));
    dls_rope rope = {.theta = 10000, .dim = 4};
    OK(dls_rope_table(&k->ctx, NULL, &rope, 0));
    cr_assert_eq(dls_rope_table(&k->ctx, table, &rope, -1), DLS_ERR_INPUT);
    rope.dim = 3;
    cr_assert_eq(dls_rope_table(&k->ctx, table, &rope, 1), DLS_ERR_INPUT);
}
