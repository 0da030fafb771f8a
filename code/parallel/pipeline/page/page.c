/* code/parallel/pipeline/page/page.c: from chapters/05-pipeline-pictures-page.md. Edit the chapter, or edit here and run "make untangle". */
/* What the page calls. One request at a time: everything a request allocates is thrown
 * away when the next one begins, so nothing here is ever freed.
 *
 *   place = page_words(n)     room for n bytes: "zb-h1 --stages 4 ...", and behind a
 *                             newline the CSV of a schedule of the reader's own
 *   page_show(n, width)       0, or 1 with a message
 *   page_text(what), page_size(what)     the answers
 */
#include "parallel/pipeline/page/page.h"

#include <stdlib.h>
#include <string.h>

#include "parallel/pipeline/check.h"
#include "parallel/pipeline/csv.h"
#include "parallel/pipeline/draw.h"
#include "parallel/pipeline/report_json.h"
#include "parallel/pipeline/request.h"

/* keep the answers */
enum { PAGE_PASSES = 1 << 16 }; // the slowest planner takes some seconds for these

static char *words;
static dls_text texts[PAGE_TEXTS];

void page_forget_memory(void); // of our small libc: begins its memory anew

char *page_words(int n)
{
    memset(texts, 0, sizeof texts);
    page_forget_memory();
    words = malloc((size_t)n + 1);
    return words;
}

/* split the words */
enum { WORDS = 64 };

/* The words of the first line into argv; what follows the line, or NULL. */
static char *split(char *line, int *argc, char **argv)
{
    char *rest = strchr(line, '\n');
    if (rest)
        *rest++ = 0;
    argv[0] = "dls schedule";
    for (*argc = 1; *line && *argc < WORDS - 1;) {
        size_t n = strcspn(line, " ");
        if (n)
            argv[(*argc)++] = line;
        line += n;
        if (*line)
            *line++ = 0;
    }
    argv[*argc] = NULL;
    return rest;
}

/* load what the page asks for */
static dls_status load_own(dls_request *q, const char *csv, dls_schedule *out)
{
    DLS_TRY(dls_schedule_from_csv("line", csv, strlen(csv), out));
    return dls_request_price(q, out);
}

static dls_status load_checked(dls_request *q, const char *csv, dls_schedule *s,
                               dls_evaluation *e)
{
    int rank;
    if (!q->name)
        return DLS_FAIL(DLS_ERR_INPUT, "expected a schedule's name");
    DLS_TRY(csv ? load_own(q, csv, s) : dls_request_make(q, q->name, s));
    if ((int64_t)s->stages * s->options.microbatches > PAGE_PASSES)
        return DLS_FAIL(DLS_ERR_INPUT, "expected at most %d stages times micro-batches "
                        "in a page; `dls schedule` takes more", PAGE_PASSES);
    DLS_TRY(dls_schedule_check(s, &rank));
    return dls_evaluate(s, e);
}

/* answer the page */
static dls_status draw(const dls_request *q, const dls_schedule *s,
                       const dls_evaluation *e, int width)
{
    dls_drawing d;
    dls_text title = {0};
    DLS_TRY(dls_draw_schedule(s, e, &d));
    dls_draw_title(q->name, s, &title);
    DLS_TRY(dls_text_status(&title));
    d.title = title.data;
    d.unit = q->units.time;
    d.one = q->units.memory;
    d.width = width;
    return dls_draw_svg(&d, &texts[PAGE_SVG]);
}

static dls_status answer(char *line, int width)
{
    static dls_request q;
    char *argv[WORDS];
    int argc, helped;
    dls_schedule s;
    dls_evaluation e;
    const char *csv = split(line, &argc, argv);
    memset(&q, 0, sizeof q);
    DLS_TRY(dls_request_read(&q, argc, argv, &helped));
    DLS_TRY(load_checked(&q, csv, &s, &e));
    DLS_TRY(draw(&q, &s, &e, width));
    dls_text *orders = &texts[PAGE_CSV];
    DLS_TRY(dls_schedule_to_csv(&s, &orders->data, &orders->size));
    return dls_report_json(q.name, &s, &e, q.units, &texts[PAGE_JSON]);
}

int page_show(int n, int width)
{
    dls_text *m = &texts[PAGE_MESSAGE];
    words[n] = 0;
    dls_status status = answer(words, width);
    if (status == DLS_OK)
        return 0;
    memset(texts, 0, sizeof texts);
    dls_text_add(m, "%s", dls_status_message());
    return 1;
}

/* list the schedules for the page */
static void list_schedules(dls_text *out)
{
    const dls_schedule_entry *e;
    for (int i = 0; (e = dls_schedule_at(i)) != NULL; i++)
        dls_text_add(out, "%s{\"name\":\"%s\",\"summary\":\"%s\",\"chunks\":%d}",
                     i ? "," : "[", e->name, e->summary, e->chunks);
    dls_text_add(out, "]");
}

/* hand over texts */
const char *page_text(int what)
{
    if (what == PAGE_LIST && !texts[PAGE_LIST].data)
        list_schedules(&texts[PAGE_LIST]);
    return texts[what].data ? texts[what].data : "";
}

int page_size(int what)
{
    return (int)(*page_text(what) ? texts[what].size : 0);
}
