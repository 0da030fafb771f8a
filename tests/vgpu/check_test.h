/* tests/vgpu/check_test.h: from chapters/A-virtual-gpu-check-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Shared by the tests of the checker: marks, expectations, small arrays. */
#ifndef DLS_TESTS_CHECK_TEST_H
#define DLS_TESTS_CHECK_TEST_H

#include "simt_test.h"

#include "vgpu/check.h"

/* find a mark */
/* The line of this chapter that ends in "// mark"; 0: none. */
[[maybe_unused]] static int line_of(const char *mark)
{
    char text[512], wanted[80];
    int found = 0;
    FILE *f = fopen(__FILE__, "r");
    cr_assert(f, "%s can not be read", __FILE__);
    snprintf(wanted, sizeof wanted, "// %s\n", mark);
    for (int line = 1; fgets(text, sizeof text, f); line++) {
        size_t n = strlen(text), m = strlen(wanted);
        if (n >= m && !strcmp(text + n - m, wanted))
            found = line;
    }
    fclose(f);
    return found;
}
/* expect a report */
[[maybe_unused]] static const dls_check_report *
only_report(dls_check_class kind, const char *name)
{
    const dls_check_report *found = NULL;
    unsigned others = 0;
    for (unsigned i = 0; i < dls_check_count(); i++) {
        const dls_check_report *r = dls_check_report_number(i);
        if (r->kind == kind && !found)
            found = r;
        else
            others += r->severity != DLS_CHECK_NOTE;
    }
    if (!found || others)
        dls_check_print(stderr);
    cr_assert(found, "%s: no report of class %s", name, dls_check_name(kind));
    cr_assert_eq(others, 0, "%s: %u reports too many", name, others);
    return found;
}

/* Exactly one report: of this class, at the lines marked NAME and NAME-other (where there
 * is such a mark), with these words about the memory. */
[[maybe_unused]] static void expect(dls_check_class kind, const char *name,
                                    const char *words)
{
    char other[80];
    const dls_check_report *r = only_report(kind, name);
    snprintf(other, sizeof other, "%s-other", name);
    int a = line_of(name), b = line_of(other);
    int same = r->here.line == a && r->there.line == b;
    int swapped = r->here.line == b && r->there.line == a;
    int good = a && (b ? same || swapped : r->here.line == a);
    good = good && r->here.file && !strcmp(r->here.file, __FILE__);
    good = good && (strstr(r->memory, words) || strstr(r->title, words) ||
                    strstr(r->here.what, words));
    if (!good)
        dls_check_print(stderr);
    cr_assert(good, "%s: expected lines %d and %d, and '%s'", name, a, b, words);
}
/* allocate for a test */
template <class T> static T *device(size_t n, int zeroed = 1)
{
    T *p = NULL;
    OK(cudaMalloc((void **)&p, n * sizeof(T)));
    if (zeroed)
        OK(cudaMemset(p, 0, n * sizeof(T)));
    return p;
}

/* Runs the body under fifty orders, each with a clean sheet. */
#define CHECKED(seed)                                                             \
    cr_assert_eq(dls_check_start(), 0);                                           \
    FOR_SEEDS(seed)                                                               \
        if (dls_check_forget(), 1)

#define FAULT(name, kind, words, ...)                                             \
    Test(check_faults, name)                                                      \
    {                                                                             \
        CHECKED(seed)                                                             \
        {                                                                         \
            __VA_ARGS__;                                                          \
            cudaDeviceSynchronize();                                              \
            expect(kind, #name, words);                                           \
        }                                                                         \
    }

#endif
