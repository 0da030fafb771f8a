/* code/parallel/pipeline/text.c: from chapters/05-pipeline-pictures.md. Edit the chapter, or edit here and run "make untangle". */
/* A text that grows. See text.h. */
#include "parallel/pipeline/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* make room in the text */
/* Room for n more bytes and the zero; 0 when there is none. */
static int make_room(dls_text *t, size_t n)
{
    if (t->room - t->size > n)
        return 1;
    size_t room = t->room + t->room + n + 256;
    char *data = realloc(t->data, room);
    if (data == NULL) {
        t->lost = 1;
        return 0;
    }
    t->data = data;
    t->room = room;
    return 1;
}

/* add to the text */
void dls_text_add(dls_text *t, const char *format, ...)
{
    for (size_t need = 64; !t->lost && make_room(t, need);) {
        va_list arguments;
        va_start(arguments, format);
        int n = vsnprintf(t->data + t->size, t->room - t->size, format, arguments);
        va_end(arguments);
        if (n >= 0 && (size_t)n < t->room - t->size) {
            t->size += (size_t)n;
            return;
        }
        t->lost |= n < 0;
        need = n < 0 ? 0 : (size_t)n;
    }
}

/* add a ratio */
void dls_text_ratio(dls_text *t, int64_t n, int64_t d)
{
    int64_t size = n < 0 ? -n : n, whole = size / d, part = size % d;
    while (d > INT64_MAX / 128) { // two decimals do not need the lowest bits
        d >>= 1;
        part >>= 1;
    }
    int h = (int)(part * 100 / d);
    char digits[] = {(char)('0' + h / 10), (char)(h % 10 ? '0' + h % 10 : 0), 0};
    dls_text_add(t, "%s%lld%s%s", n < 0 ? "-" : "", (long long)whole, h ? "." : "",
                 h ? digits : "");
}

/* add text for xml */
void dls_text_xml(dls_text *t, const char *text)
{
    for (; *text; text++)
        switch (*text) {
        case '<': dls_text_add(t, "&lt;"); break;
        case '>': dls_text_add(t, "&gt;"); break;
        case '&': dls_text_add(t, "&amp;"); break;
        case '"': dls_text_add(t, "&quot;"); break;
        default: dls_text_add(t, "%c", (unsigned char)*text < 32 ? ' ' : *text);
        }
}

/* say whether the text is whole */
dls_status dls_text_status(const dls_text *t)
{
    return t->lost ? DLS_FAIL(DLS_ERR_MEMORY, "no memory for %zu bytes of text", t->room)
                   : DLS_OK;
}

void dls_text_free(dls_text *t)
{
    free(t->data);
    *t = (dls_text){0};
}
