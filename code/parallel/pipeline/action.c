/* code/parallel/pipeline/action.c: from chapters/05-pipeline-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Actions as text and back, and lists of them. */
#include "parallel/pipeline/schedule.h"

#include <stdlib.h>
#include <string.h>

static const char *const kind_names[DLS_DO_KINDS] = {
    "F", "I", "W", "B", "SEND_F", "RECV_F", "SEND_B", "RECV_B",
    "UNSHARD", "RESHARD", "REDUCE_GRAD", "STEP"};

int dls_action_computes(const dls_action *a)
{
    return a->kind <= DLS_DO_B;
}

/* write an action */
static int put_number(char *out, int32_t value)
{
    char digits[12];
    int n = 0, length = 0;
    do
        digits[n++] = (char)('0' + value % 10);
    while (value /= 10);
    while (n)
        out[length++] = digits[--n];
    return length;
}

/* write a whole action */
int dls_action_text(const dls_action *a, char out[DLS_ACTION_TEXT])
{
    int n = put_number(out, a->stage);
    const char *name = kind_names[a->kind];
    while (*name)
        out[n++] = *name++;
    if (a->microbatch >= 0)
        n += put_number(out + n, a->microbatch);
    out[n] = 0;
    return n;
}

/* read an action */
/* Digits from text[*at] on, at most `most`; 0 when there are none or too many. */
static int get_number(const char *text, size_t n, size_t *at, int32_t most,
                      int32_t *value)
{
    size_t start = *at;
    int64_t v = 0;
    while (*at < n && text[*at] >= '0' && text[*at] <= '9' && v <= most)
        v = v * 10 + (text[(*at)++] - '0');
    *value = (int32_t)v;
    return *at > start && v <= most;
}

/* read a whole action */
int dls_action_parse(const char *text, size_t n, dls_action *out)
{
    size_t at = 0, name, length;
    int32_t stage, microbatch = -1;
    int kind = 0;
    if (!get_number(text, n, &at, INT16_MAX, &stage))
        return 0;
    for (name = at; at < n && (text[at] == '_' || (text[at] >= 'A' && text[at] <= 'Z'));)
        at++;
    length = at - name;
    while (kind < DLS_DO_KINDS && (strlen(kind_names[kind]) != length ||
                                   memcmp(kind_names[kind], text + name, length)))
        kind++;
    if (kind == DLS_DO_KINDS)
        return 0;
    if (kind < DLS_DO_UNSHARD && !get_number(text, n, &at, INT32_MAX - 1, &microbatch))
        return 0;
    *out = (dls_action){(uint8_t)kind, 0, (int16_t)stage, microbatch};
    return at == n;
}

/* grow a list of actions */
dls_status dls_actions_add(dls_actions *a, dls_action_kind kind, int stage,
                           int microbatch)
{
    if (a->n == a->room) {
        size_t room = a->room ? 2 * a->room : 64;
        dls_action *list = realloc(a->list, room * sizeof *list);
        if (!list)
            return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %zu actions", room);
        a->list = list;
        a->room = room;
    }
    a->list[a->n++] = (dls_action){(uint8_t)kind, 0, (int16_t)stage, microbatch};
    return DLS_OK;
}

/* pair and free actions */
void dls_actions_pair(dls_actions *a)
{
    a->list[a->n - 1].paired = 1;
}

void dls_actions_free(dls_actions *a)
{
    free(a->list);
    *a = (dls_actions){0};
}
