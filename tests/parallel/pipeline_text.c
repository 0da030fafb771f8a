/* tests/parallel/pipeline_text.c: from chapters/05-pipeline-evaluate-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Schedules for tests, written as CSV. */
#include "pipeline_text.h"

#include <criterion/criterion.h>
#include <string.h>

#include "parallel/pipeline/csv.h"

dls_schedule schedule_of(const char *csv)
{
    dls_schedule s;
    cr_assert_eq(dls_schedule_from_csv("test", csv, strlen(csv), &s), DLS_OK, "%s",
                 dls_status_message());
    return s;
}

char *text_of(const dls_schedule *s)
{
    char *text;
    size_t size;
    cr_assert_eq(dls_schedule_to_csv(s, &text, &size), DLS_OK);
    cr_assert_eq(strlen(text), size);
    return text;
}
