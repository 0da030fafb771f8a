/* tests/model/test_safetensors.c: from chapters/09-transformer-checkpoints-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Safetensors: what is read, what is written, and the many ways to be refused. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/expect.h"
#include "../base/folder.h"
#include "base/file.h"
#include "base/rng.h"
#include "model/safetensors.h"

/* write a file by hand */
static void put_bytes(const char *bytes, size_t n)
{
    FILE *out = fopen("m", "wb");
    cr_assert(out && fwrite(bytes, 1, n, out) == n && fclose(out) == 0);
}

/* `length` as the file claims it, the header as it is, then `bytes` bytes of data. */
static void put_file(uint64_t length, const char *header, size_t header_size,
                     size_t bytes)
{
    char file[4096];
    size_t n = 8 + header_size;
    for (int i = 0; i < 8; i++)
        file[i] = (char)(length >> 8 * i);
    memcpy(file + 8, header, header_size);
    for (size_t i = 0; i < bytes; i++)
        file[n++] = (char)i;
    put_bytes(file, n);
}

/* test a good file */
Test(safetensors, reads_what_is_there, .init = enter, .fini = leave)
{
    const char *h = "{\"__metadata__\":{\"a\":\"b\"},"
        "\"w\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[12,24]},"
        "\"x\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[24,25]},"
        "\"e\":{\"dtype\":\"I64\",\"shape\":[0,7],\"data_offsets\":[12,12]},"
        "\"b\":{\"shape\":[3],\"dtype\":\"F32\",\"data_offsets\":[0,12]}}  ";
    dls_safetensors f;
    put_file(strlen(h), h, strlen(h), 25);
    EXPECT_OK(dls_safetensors_open("m", &f));
    cr_assert_eq(f.n, 4);
    const dls_stored_tensor *w = dls_safetensors_find(&f, "w");
    const dls_stored_tensor *x = dls_safetensors_find(&f, "x");
    cr_assert(w && x && !dls_safetensors_find(&f, "__metadata__"));
    cr_assert(w->type == DLS_STORED_F16 && w->ndim == 2 && w->shape[1] == 3);
    cr_assert(w->count == 6 && w->bytes == 12 && ((const char *)w->data)[0] == 12);
    cr_assert(x->ndim == 0 && x->count == 1 && ((const char *)x->data)[0] == 24);
    cr_assert_str_eq(f.tensors[1].name, "e");
    dls_safetensors_close(&f);
}

/* list bad headers */
#define T(name, dtype, shape, offsets)                                  \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape              \
    ",\"data_offsets\":" offsets "}"
#define B T("b", "F32", "[3]", "[0,12]")

static const struct bad {
    const char *header;
    size_t bytes;
    const char *message;
} bad[] = {
    {"", 0, "m: header: expected a JSON object"},
    {" {}", 0, "m: header: expected a JSON object"},
    {"[1]", 0, "m: header: expected a JSON object"},
    {"{\"b\":1}", 0, "m: tensor \"b\": expected dtype, shape and data_offsets"},
    {"{" B "," B "}", 12, "m: header, byte 58: duplicate object key near '\"b\"'"},
    {"{" B, 12, "m: header, byte 54: '}' expected near end of file"},
    {"{" B "} x", 12, "m: header, byte 57: end of file expected near 'x'"},
    {"{\"\xff\":1}", 0, "m: header, byte 2: unable to decode byte 0xff near '\"'"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "m: __metadata__: expected strings by name"},
    {"{\"__metadata__\":[]}", 0, "m: __metadata__: expected strings by name"},
    /* list bad entries */
    {"{" T("b", "F33", "[3]", "[0,12]") "}", 12,
     "m: tensor \"b\": dtype: \"F33\" is not one of the format's types"},
    {"{\"b\":{\"dtype\":7,\"shape\":[3],\"data_offsets\":[0,12]}}", 12,
     "m: tensor \"b\": dtype: \"\" is not one of the format's types"},
    {"{\"b\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12],\"scale\":2}}", 12,
     "m: tensor \"b\": expected dtype, shape and data_offsets"},
    {"{" T("b", "F32", "[-3]", "[0,12]") "}", 12,
     "m: tensor \"b\": shape: expected whole numbers from 0 on"},
    {"{" T("b", "F32", "[3.0]", "[0,12]") "}", 12,
     "m: tensor \"b\": shape: expected whole numbers from 0 on"},
    {"{" T("b", "F32", "3", "[0,12]") "}", 12,
     "m: tensor \"b\": shape: expected an array of at most 8 numbers"},
    {"{" T("b", "F32", "[1,1,1,1,1,1,1,1,3]", "[0,12]") "}", 12,
     "m: tensor \"b\": shape: expected an array of at most 8 numbers"},
    {"{" T("b", "F32", "[4294967296,4294967296]", "[0,0]") "}", 0,
     "m: tensor \"b\": shape: the product of 2 numbers does not fit in 64 bits"},
    {"{" T("b", "F32", "[576460752303423489]", "[0,4]") "}", 4,
     "m: tensor \"b\": shape: the product of 1 numbers does not fit in 64 bits"},
    {"{" T("b", "F32", "[4611686018427387904,4,0]", "[0,0]") "}", 0,
     "m: tensor \"b\": shape: the product of 3 numbers does not fit in 64 bits"},
    {"{" T("b", "F32", "[99999999999999999999]", "[0,4]") "}", 4,
     "m: header, byte 49: too big integer near '99999999999999999999'"},
    {"{" T("b", "F4", "[3]", "[0,1]") "}", 1,
     "m: tensor \"b\": 12 bits of F4 are not whole bytes"},
    /* list bad places */
    {"{" T("b", "F32", "[3]", "[0,12,3]") "}", 12,
     "m: tensor \"b\": data_offsets: expected two numbers"},
    {"{" T("b", "F32", "[3]", "[-4,8]") "}", 12,
     "m: tensor \"b\": data_offsets: expected whole numbers from 0 on"},
    {"{" T("b", "F32", "[3]", "[12,0]") "}", 12,
     "m: tensor \"b\": begins at 12, behind its end at 0"},
    {"{" T("b", "F32", "[3]", "[0,12]") "}", 11,
     "m: tensor \"b\": ends at 12, the file has 11 bytes of data"},
    {"{" T("b", "F32", "[3]", "[0,9223372036854775807]") "}", 12,
     "m: tensor \"b\": ends at 9223372036854775807, the file has 12 bytes of data"},
    {"{" T("b", "F64", "[3]", "[0,12]") "}", 12,
     "m: tensor \"b\": 12 bytes of data, 3 elements of F64 are 24"},
    {"{" B "," T("c", "U8", "[6]", "[8,14]") "}", 14,
     "m: tensor \"c\": begins at 8, inside the one that ends at 12"},
    {"{" B "," T("c", "F32", "[3]", "[0,12]") "}", 12,
     "m: tensor \"c\": begins at 0, inside the one that ends at 12"},
    {"{" B "," T("c", "U8", "[6]", "[14,20]") "}", 20,
     "m: tensor \"c\": begins at 14, behind a hole that begins at 12"},
    {"{" T("c", "U8", "[6]", "[1,7]") "}", 7,
     "m: tensor \"c\": begins at 1, behind a hole that begins at 0"},
    {"{" B "}", 13, "m: 1 bytes behind the last tensor"},
    {"{}", 1, "m: 1 bytes behind the last tensor"},
};

/* test bad headers */
Test(safetensors, refuses_bad_headers, .init = enter, .fini = leave)
{
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        dls_safetensors f;
        size_t n = strlen(bad[i].header);
        put_file(n, bad[i].header, n, bad[i].bytes);
        EXPECT_ERROR(dls_safetensors_open("m", &f), DLS_ERR_INPUT, bad[i].message);
        cr_expect(!f.map && !f.tensors && !f.path);
    }
}

/* test claimed lengths */
Test(safetensors, claimed_lengths_are_not_believed, .init = enter, .fini = leave)
{
    const struct rlimit limit = {1 << 29, 1 << 29};
    dls_safetensors f;
    cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
    put_file(UINT64_MAX - 7, "{}", 2, 0);
    EXPECT_ERROR(dls_safetensors_open("m", &f), DLS_ERR_INPUT, "m: a header of "
                 "18446744073709551608 bytes: the format allows 100000000");
    put_file(100000001, "{}", 2, 0);
    EXPECT_ERROR(dls_safetensors_open("m", &f), DLS_ERR_INPUT,
                 "m: a header of 100000001 bytes: the format allows 100000000");
    put_file(100000000, "{}", 2, 0);
    EXPECT_ERROR(dls_safetensors_open("m", &f), DLS_ERR_INPUT,
                 "m: cut short: a header of 100000000 bytes in a file of 10");
    put_file(3, "{}", 2, 0);
    EXPECT_ERROR(dls_safetensors_open("m", &f), DLS_ERR_INPUT,
                 "m: cut short: a header of 3 bytes in a file of 10");
    const char *huge = "{" T("b", "F64", "[1152921504606846975]", "[0,16]") "}";
    put_file(strlen(huge), huge, strlen(huge), 16);
    EXPECT_ERROR(dls_safetensors_open("m", &f), DLS_ERR_INPUT, "m: tensor \"b\": shape: "
                 "the product of 1 numbers does not fit in 64 bits");
}

/* test strange files */
Test(safetensors, refuses_strange_files, .init = enter, .fini = leave, .timeout = 10)
{
    static char deep[3000];
    dls_safetensors f;
    deep[0] = '{';
    memcpy(deep + 1, "\"a\":", 4);
    memset(deep + 5, '[', sizeof deep - 5);
    put_file(sizeof deep, deep, sizeof deep, 0);
    EXPECT_ERROR(dls_safetensors_open("m", &f), DLS_ERR_INPUT,
                 "m: header, byte 2053: maximum parsing depth reached near '['");
    EXPECT_OK(dls_file_write("m", "1234567", 7));
    EXPECT_ERROR(dls_safetensors_open("m", &f), DLS_ERR_INPUT,
                 "m: cut short: 7 bytes, the length of the header alone has 8");
    cr_assert_eq(mkfifo("pipe", 0600), 0);
    EXPECT_ERROR(dls_safetensors_open("pipe", &f), DLS_ERR_INPUT,
                 "pipe: expected a regular file");
    EXPECT_ERROR(dls_safetensors_open(".", &f), DLS_ERR_INPUT,
                 ".: expected a regular file");
    EXPECT_ERROR(dls_safetensors_open("none", &f), DLS_ERR_IO,
                 "none: cannot open: No such file or directory");
}

/* test damage */
static unsigned touch(const dls_safetensors *f)
{
    unsigned sum = 0;
    for (size_t i = 0; i < f->n; i++)
        for (size_t k = 0; k < f->tensors[i].bytes; k++)
            sum += ((const unsigned char *)f->tensors[i].data)[k];
    return sum;
}

static void open_damaged(const char *file, size_t n)
{
    dls_safetensors f;
    put_bytes(file, n);
    dls_status s = dls_safetensors_open("m", &f);
    cr_assert(s == DLS_OK || s == DLS_ERR_INPUT, "%s", dls_status_message());
    if (s == DLS_OK)
        cr_assert_leq(touch(&f), 255 * n);
    dls_safetensors_close(&f);
}

Test(safetensors, survives_damage, .init = enter, .fini = leave)
{
    const char *h = "{" B "," T("w", "F16", "[2,3]", "[12,24]") "}";
    char *good, bytes[512];
    size_t n;
    put_file(strlen(h), h, strlen(h), 24);
    EXPECT_OK(dls_file_read("m", &good, &n));
    for (unsigned i = 0; i < 4000; i++) {
        memcpy(bytes, good, n);
        for (unsigned k = 0; k <= i % 4; k++)
            bytes[dls_rng_u32(1, i, 2 * k) % n] = (char)dls_rng_u32(1, i, 2 * k + 1);
        open_damaged(bytes, n);
    }
    for (size_t k = 0; k < n; k++) {
        open_damaged(good, k);
        dls_safetensors f;
        cr_assert_eq(dls_safetensors_open("m", &f), DLS_ERR_INPUT, "cut at %zu", k);
    }
    free(good);
}

/* test a large file */
Test(safetensors, opening_reads_the_header_alone, .init = enter, .fini = leave)
{
    const char *h = "{" T("b", "F32", "[2147483648]", "[0,8589934592]") "}";
    struct rusage before, after;
    dls_safetensors f;
    put_file(strlen(h), h, strlen(h), 0);
    cr_assert_eq(truncate("m", (off_t)(8 + strlen(h) + (1ull << 33))), 0);
    getrusage(RUSAGE_SELF, &before);
    EXPECT_OK(dls_safetensors_open("m", &f));
    cr_assert_eq(f.tensors[0].bytes, 1ull << 33);
    dls_safetensors_close(&f);
    getrusage(RUSAGE_SELF, &after);
    cr_assert_lt(after.ru_maxrss - before.ru_maxrss, 1024);
}

/* test the writer */
Test(safetensors, writes_these_bytes, .init = enter, .fini = leave)
{
    const dls_stored_tensor list[2] = {
        {.name = "b\"\\\xc3\xa4", .type = DLS_STORED_F32, .ndim = 1, .shape = {3}},
        {.name = "w", .type = DLS_STORED_F32, .ndim = 2, .shape = {2, 1}}};
    const char *h = "{\"__metadata__\":{\"format\":\"pt\"},"
        T("b\\\"\\\\\xc3\xa4", "F32", "[3]", "[0,12]") ","
        T("w", "F32", "[2,1]", "[12,20]") "}   ";
    dls_safetensors_writer *w;
    char *got, data[20];
    size_t n, head = strlen(h);
    for (int i = 0; i < 20; i++)
        data[i] = (char)i;
    EXPECT_OK(dls_safetensors_begin("m", list, 2, &w));
    EXPECT_OK(dls_safetensors_append(w, data, 5));
    EXPECT_OK(dls_safetensors_append(w, data + 5, 15));
    cr_assert_eq(dls_safetensors_append(w, data, 1), DLS_ERR_STATE, "too much");
    EXPECT_OK(dls_safetensors_commit(w));
    EXPECT_OK(dls_file_read("m", &got, &n));
    cr_assert_eq(head % 8, 0);
    cr_assert_eq(n, 8 + head + 20);
    cr_assert_eq((unsigned char)got[0] + 256 * got[1], head);
    cr_assert_arr_eq(got + 8, h, head);
    cr_assert_arr_eq(got + 8 + head, data, 20);
    free(got);
}

Test(safetensors, half_a_file_is_not_put_in_place, .init = enter, .fini = leave)
{
    const dls_stored_tensor one = {.name = "b", .type = DLS_STORED_F64, .ndim = 0};
    dls_safetensors_writer *w;
    EXPECT_OK(dls_safetensors_begin("m", &one, 1, &w));
    EXPECT_OK(dls_safetensors_append(w, "1234567", 7));
    EXPECT_ERROR(dls_safetensors_commit(w), DLS_ERR_STATE,
                 "m: 1 bytes less than its header says");
    cr_assert(access("m", F_OK) != 0 && access("m.part", F_OK) != 0);
}

/* test stored conversions */
static uint16_t bf16_of(double x)
{
    char at[9];
    uint16_t out;
    memcpy(at + 1, &x, 8);
    dls_stored_read(DLS_STORED_F64, at + 1, 1, DLS_BF16, &out);
    return out;
}

Test(safetensors, conversions_round_once)
{
    cr_assert_eq(bf16_of(1.00390625), 0x3f80, "a midpoint goes to even");
    cr_assert_eq(bf16_of(1.01171875), 0x3f82, "and up when that is even");
    cr_assert_eq(bf16_of(1.00390625 + 0x1p-50), 0x3f81, "not through f32");
    cr_assert_eq(bf16_of(3.4e38), 0x7f80, "above the midpoint of the last: infinity");
    cr_assert_eq(bf16_of(-0.0), 0x8000);
    cr_assert_eq(bf16_of(0x1p-133), 0x0001, "the smallest subnormal");
    cr_assert_eq(bf16_of(0x1p-134), 0x0000, "half of it: a tie, to even");
    const uint16_t halves[6] = {0x3c00, 0x0001, 0x7bff, 0xfc00, 0x7e00, 0x8000};
    char shifted[13];
    float out[6];
    memcpy(shifted + 1, halves, 12);
    dls_stored_read(DLS_STORED_F16, shifted + 1, 6, DLS_F32, out);
    cr_assert(out[0] == 1 && out[1] == 0x1p-24f && out[2] == 65504);
    cr_assert(out[3] == -INFINITY && isnan(out[4]) && out[5] == 0 && signbit(out[5]));
}

Test(safetensors, every_bfloat_survives)
{
    static uint16_t all[65536], back[65536];
    static double wide[65536];
    static float single[65536];
    for (int i = 0; i < 65536; i++)
        all[i] = (uint16_t)i;
    dls_stored_read(DLS_STORED_BF16, all, 65536, DLS_BF16, back);
    cr_assert_arr_eq(back, all, sizeof all);
    dls_stored_read(DLS_STORED_BF16, all, 65535, DLS_F64, wide);
    dls_stored_read(DLS_STORED_BF16, all, 65535, DLS_F32, single);
    dls_stored_read(DLS_STORED_F32, single, 65535, DLS_BF16, back);
    for (int i = 0; i < 65535; i++)
        cr_assert(isnan(wide[i]) ? isnan(single[i]) && (back[i] & 0x7fff) > 0x7f80
                                 : wide[i] == single[i] && back[i] == all[i], "%04x", i);
}
