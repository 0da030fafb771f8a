/* code/model/stored.c: from chapters/09-transformer-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/* One table of types, and two loops: every stored weight is exactly a double, and a
 * double is rounded once. Same type in and out: the bytes themselves. */
#include "model/stored.h"

#include <stdint.h>
#include <string.h>

#include "vgpu/shadow/vgpu_float.h"

/* tabulate the stored types */
static const struct stored_type {
    const char *name;
    unsigned bits;
} types[DLS_STORED_TYPES] = {
    {"BOOL", 8}, {"F4", 4}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8}, {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16}, {"U16", 16}, {"F16", 16}, {"BF16", 16},
    {"I32", 32}, {"U32", 32}, {"F32", 32}, {"C64", 64}, {"F64", 64}, {"I64", 64},
    {"U64", 64}};

static const dls_format half = {5, 10, 0x7bff}, bfloat = {8, 7, 0x7f7f};

/* look up a stored type */
const char *dls_stored_type_name(dls_stored_type type)
{
    return (unsigned)type < DLS_STORED_TYPES ? types[type].name : "?";
}

unsigned dls_stored_type_bits(dls_stored_type type)
{
    return (unsigned)type < DLS_STORED_TYPES ? types[type].bits : 0;
}

int dls_stored_type_parse(const char *word, dls_stored_type *out)
{
    for (int i = 0; i < DLS_STORED_TYPES; i++)
        if (strcmp(word, types[i].name) == 0) {
            *out = (dls_stored_type)i;
            return 1;
        }
    return 0;
}

/* widen stored elements */
#define WIDEN(T, expression)                                          \
    for (size_t i = 0; i < n; i++) {                                  \
        T x;                                                          \
        memcpy(&x, from + i * sizeof x, sizeof x);                    \
        to[i] = (expression);                                         \
    }                                                                 \
    break

static void widen(dls_stored_type type, const char *from, size_t n, double *to)
{
    switch (type) {
    case DLS_STORED_F64: WIDEN(double, x);
    case DLS_STORED_F32: WIDEN(float, x);
    case DLS_STORED_F16: WIDEN(uint16_t, dls_decode(x, half));
    default: WIDEN(uint16_t, dls_decode(x, bfloat)); // BF16, as the caller checked
    }
}

/* narrow to the model type */
static void narrow(dls_dtype dtype, const double *from, size_t n, void *to)
{
    switch (dtype) {
    case DLS_F64:
        memcpy(to, from, n * sizeof *from);
        break;
    case DLS_F32:
        for (size_t i = 0; i < n; i++)
            ((float *)to)[i] = (float)from[i];
        break;
    default:
        for (size_t i = 0; i < n; i++)
            ((uint16_t *)to)[i] = (uint16_t)dls_encode(from[i], bfloat,
                                                       DLS_ROUND_NEAREST);
    }
}

/* convert stored elements */
int dls_stored_converts(dls_stored_type type)
{
    return type == DLS_STORED_F64 || type == DLS_STORED_F32 || type == DLS_STORED_F16
        || type == DLS_STORED_BF16;
}

dls_stored_type dls_stored_type_of(dls_dtype dtype)
{
    return dtype == DLS_F64 ? DLS_STORED_F64
         : dtype == DLS_F32 ? DLS_STORED_F32 : DLS_STORED_BF16;
}

void dls_stored_read(dls_stored_type type, const void *data, size_t n, dls_dtype dtype,
                     void *out)
{
    double block[512];
    size_t wide = types[type].bits / 8, size = dls_dtype_size(dtype);
    if (type == dls_stored_type_of(dtype)) {
        memcpy(out, data, n * size);
        return;
    }
    for (size_t i = 0, m; i < n; i += m) {
        m = n - i < 512 ? n - i : 512;
        widen(type, (const char *)data + i * wide, m, block);
        narrow(dtype, block, m, (char *)out + i * size);
    }
}
