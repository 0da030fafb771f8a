/* tests/comm/test_flight.c: from chapters/04-data-parallelism-faults-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Where ranks part: every kind of finding, from lists; files whole, torn and hostile. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "comm/flight.h"

/* make a flight from words */
static void add_word(dls_flight_rank *rank, const char *word, uint64_t *numbers)
{
    dls_record r = {.kind = DLS_RECORD_COLLECTIVE, .count = 10, .peer = -1};
    int sequence = 0, end = (int)strlen(word) - 1;
    strcpy(r.name, *word == 'B' ? "broadcast" : *word == 's' ? "send"
                   : *word == 'r' ? "recv" : "all-reduce");
    strcpy(r.type, "f32");
    r.peer = *word == 'B' ? 0 : -1;
    r.count += *word == 'C';
    if (*word == 's' || *word == 'r') {
        r.kind = DLS_RECORD_MESSAGE;
        r.receives = *word == 'r';
        r.peer = word[1] - '0';
        sequence = 1 + 2 * r.peer + r.receives;
    }
    r.number = numbers[sequence]++;
    r.ticket = ++rank->calls;
    r.called = 1 + 0.1 * (double)r.ticket;
    r.began = word[end] == '.' || word[end] == '+' ? r.called : 0;
    r.ended = word[end] == '+' ? r.called : 0;
    snprintf(r.site, sizeof r.site, "a.c:%d", *word);
    rank->records[rank->n++] = r;
}

/* One text per rank, words separated by spaces. */
static dls_flight flight_of(int world, const char *const texts[])
{
    dls_flight f = {world, calloc((size_t)world, sizeof *f.ranks)};
    for (int r = 0; r < world; r++) {
        uint64_t numbers[32] = {0};
        char copy[200];
        f.ranks[r] = (dls_flight_rank){.known = 1, .taken = 10, .seen = 9.9, .moved = 5};
        f.ranks[r].records = calloc(64, sizeof *f.ranks[r].records);
        snprintf(copy, sizeof copy, "%s", texts[r]);
        for (char *w = strtok(copy, " "); w; w = strtok(NULL, " "))
            add_word(&f.ranks[r], w, numbers);
    }
    return f;
}

static dls_finding find(int world, const char *const texts[])
{
    dls_flight f = flight_of(world, texts);
    dls_finding found;
    dls_flight_find(&f, &found);
    dls_flight_free(&f);
    return found;
}

#define FIND(...) find((int)(sizeof(const char *[]){__VA_ARGS__} / sizeof(char *)), \
                       (const char *[]){__VA_ARGS__})

/* test the kinds of findings */
static void expect(dls_finding f, dls_finding_kind kind, int rank, uint64_t number)
{
    cr_assert_eq(f.kind, kind, "kind %d: %s", f.kind, f.text);
    cr_assert_eq(f.rank, rank, "rank %d: %s", f.rank, f.text);
    cr_assert_eq(f.record.number, number, "number %d: %s", (int)f.record.number, f.text);
}

Test(comm, the_first_difference_is_found)
{
    expect(FIND("A+ A+", "A+ A+", "A+ A+"), DLS_FINDING_NONE, -1, 0);
    expect(FIND("A+ A+ A.", "A+ A+", "A+ A+ A."), DLS_FINDING_MISSING, 1, 2);
    expect(FIND("A+ A+ B+", "A+ A+", "A+ A+ B+"), DLS_FINDING_MISSING, 1, 2);
    expect(FIND("A+ A.", "A+ A.", "A+ A"), DLS_FINDING_STALLED, 0, 1);
    expect(FIND("A+ A. A", "A+ C. A", "A+ A. A"), DLS_FINDING_MISMATCH, 1, 1);
    expect(FIND("A+ C.", "A+ A.", "A+ A."), DLS_FINDING_MISMATCH, 0, 1);
    expect(FIND("B.", "A.", "A."), DLS_FINDING_MISMATCH, 0, 0);
    expect(FIND("A.", "C."), DLS_FINDING_MISMATCH, 1, 0);
    expect(FIND("A+ A.", "A+ A. A.", ""), DLS_FINDING_MISSING, 2, 0);
    expect(FIND("r1.", "A."), DLS_FINDING_MISSING, 1, 0);
    expect(FIND("A+ r1+ r1.", "A+ s0+"), DLS_FINDING_MISSING, 1, 1);
    expect(FIND("r1+", "s0+ r0."), DLS_FINDING_MISSING, 0, 0);
    expect(FIND("r1.", "A+ A.", "A+ A."), DLS_FINDING_MISSING, 1, 0);
}

/* test that nobody is accused wrongly */
Test(comm, what_was_forgotten_is_not_missing)
{
    const char *texts[] = {"A+ A. A", "A+ A+ A+", "A+ A+ A"};
    dls_flight f = flight_of(3, texts);
    dls_finding found;
    for (int k = 0; k < 2; k++) { // rank 1 has overwritten its first two
        memmove(f.ranks[1].records, f.ranks[1].records + 1,
                (size_t)--f.ranks[1].n * sizeof(dls_record));
        dls_flight_find(&f, &found);
        expect(found, DLS_FINDING_STALLED, 0, 1);
    }
    f.ranks[1].n = 0; // all overwritten: nobody knows
    dls_flight_find(&f, &found);
    expect(found, DLS_FINDING_STALLED, 0, 1);
    f.ranks[1].known = 0;
    dls_flight_find(&f, &found);
    expect(found, DLS_FINDING_STALLED, 0, 1);
    dls_flight_free(&f);
}

Test(comm, only_members_are_missing)
{
    const char *texts[] = {"A.", "A.", "", ""};
    dls_flight f = flight_of(4, texts);
    dls_finding found;
    for (int r = 0; r < 2; r++)
        f.ranks[r].records[0].members = 1 | 2 | 8;
    dls_flight_find(&f, &found);
    expect(found, DLS_FINDING_MISSING, 3, 0);
    dls_flight_free(&f);
}

Test(comm, who_is_gone_comes_before_who_is_slow)
{
    const char *texts[] = {"A+ A. A", "A+ A+ A", "A+ A+ A", "A+ A+ A A"};
    dls_flight f = flight_of(4, texts);
    dls_finding found;
    dls_flight_find(&f, &found);
    expect(found, DLS_FINDING_STALLED, 0, 1);
    strcpy(f.ranks[2].fate, "was killed by signal 9 (SIGKILL)");
    dls_flight_find(&f, &found);
    expect(found, DLS_FINDING_STALLED, 2, 2);
    cr_assert(strstr(found.text, "; it was killed by signal 9 (SIGKILL)"));
    f.ranks[2].fate[0] = 0;
    f.ranks[1].seen = 5; // the others look ten times a second
    f.ranks[0].records[1].ended = 2;
    dls_flight_find(&f, &found);
    expect(found, DLS_FINDING_STALLED, 1, 2);
    cr_assert_null(strstr(found.text, "killed"));
    dls_flight_free(&f);
}

Test(comm, who_died_with_nothing_undone_is_named)
{
    const char *texts[] = {"A+ A.", "A+ A", "A+ A+"};
    dls_flight f = flight_of(3, texts);
    dls_finding found;
    strcpy(f.ranks[2].fate, "was killed by signal 9 (SIGKILL)");
    dls_flight_find(&f, &found);
    expect(found, DLS_FINDING_LOST, 2, 1);
    cr_assert_str_eq(found.text, "rank 2 has not called anything since it ended "
                     "all-reduce of 10 f32 at a.c:65 (collective 1); it was killed by "
                     "signal 9 (SIGKILL)");
    strcpy(f.ranks[2].fate, "has finished"); // as it should
    dls_flight_find(&f, &found);
    expect(found, DLS_FINDING_STALLED, 0, 1);
    dls_flight_free(&f);
}

/* test the words */
static void expect_text(dls_finding f, const char *text)
{
    cr_assert_str_eq(f.text, text);
}

Test(comm, findings_say_who_what_where)
{
    expect_text(FIND("A+ A.", "A+", "A+ A.", "A+ A.", "A+ A"),
                "rank 1 has not called all-reduce of 10 f32 at a.c:65 (collective 1), in "
                "which ranks 0, 2 and 3 wait; its last call, 8.9 s ago, was all-reduce "
                "of 10 f32 at a.c:65 (collective 0)");
    expect_text(FIND("B.", "A."),
                "rank 1 calls all-reduce of 10 f32 at a.c:65 (collective 0), but rank 0 "
                "calls broadcast of 10 f32 root rank 0 at a.c:66 (collective 0)");
    expect_text(FIND("r1.", ""),
                "rank 1 has not called the send that rank 0 waits for in recv of 10 f32 "
                "from rank 1 at a.c:114 (message 0); it has not called anything");
    expect_text(FIND("A. A", "A A"), // the second look the same; the first is told about
                "rank 0 has not ended all-reduce of 10 f32 at a.c:65 (collective 0), "
                "which it called 8.9 s ago and in which rank 0 waits; its last call, 8.8 "
                "s ago, was all-reduce of 10 f32 at a.c:65 (collective 1)");
    expect_text(FIND("A+", "A+"),
                "every operation that was called has ended on every rank");
}

Test(comm, a_long_fate_ends_behind_a_word)
{
    dls_flight_rank r = {0};
    char text[400] = "";
    for (int i = 0; i < 63; i++)
        strcat(text, "word ");
    strcat(text, "last"); // 319 bytes: they just fit
    dls_flight_set_fate(&r, text);
    cr_assert_str_eq(r.fate, text);
    strcat(text, "s");
    dls_flight_set_fate(&r, text);
    text[314] = 0; // 62 words and blanks, and one more word
    cr_assert_str_eq(r.fate, strcat(text, " ..."));
}

Test(comm, a_skipped_collective_is_hinted_at_by_call_sites)
{
    const char *texts[] = {"A+ A+ A+ A.", "A+ A+ A+"};
    dls_flight f = flight_of(2, texts);
    dls_finding found;
    for (int i = 1; i < 4; i++) // rank 1 skips the call at a.c:1
        snprintf(f.ranks[0].records[i].site, 80, "a.c:%d", i);
    for (int i = 1; i < 3; i++)
        snprintf(f.ranks[1].records[i].site, 80, "a.c:%d", i + 1);
    dls_flight_find(&f, &found);
    expect(found, DLS_FINDING_MISSING, 1, 3);
    cr_assert(strstr(found.text, "the call sites part at number 1 already: rank 1 called "
                                 "it at a.c:2, rank 0 at a.c:1"), "%s", found.text);
    dls_flight_free(&f);
}

Test(comm, ranks_are_listed_as_people_do)
{
    const char *texts[] = {"A.", "A.", "A.", "A", "A.", "A.", "", "A."};
    char text[100];
    dls_flight f = flight_of(8, texts);
    const dls_record *op = &f.ranks[0].records[0];
    dls_flight_list(&f, 0, op, DLS_FLIGHT_BEGUN, text, sizeof text);
    cr_assert_str_eq(text, "ranks 0-2, 4, 5 and 7");
    dls_flight_list(&f, 0, op, DLS_FLIGHT_CALLED, text, sizeof text);
    cr_assert_str_eq(text, "rank 3");
    dls_flight_list(&f, 0, op, DLS_FLIGHT_ENDED, text, sizeof text);
    cr_assert_str_eq(text, "");
    dls_flight_free(&f);
}

/* test a flight as a file */
static char folder[] = "/tmp/dls-flight-XXXXXX";

static const char *path_of(const char *name)
{
    static char path[300];
    if (strstr(folder, "XXXXXX"))
        cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void clean_up(void)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    cr_assert_eq(system(command), 0);
}

static void expect_same(const dls_flight *f, const dls_flight *g)
{
    cr_assert_eq(f->world, g->world);
    for (int r = 0; r < f->world; r++) {
        const dls_flight_rank *a = &f->ranks[r], *b = &g->ranks[r];
        cr_assert(a->n == b->n && a->calls == b->calls && a->known == b->known);
        cr_assert(a->seen == b->seen && a->taken == b->taken && a->moved == b->moved);
        cr_assert_str_eq(a->fate, b->fate);
        for (size_t i = 0; i < (size_t)a->n * sizeof *a->records; i++)
            cr_assert_eq(((char *)a->records)[i], ((char *)b->records)[i], "byte %zu", i);
    }
}

Test(comm, flights_survive_their_file, .fini = clean_up)
{
    const char *texts[] = {"A+ A.", "A+", "B+ r1. A"};
    dls_flight f = flight_of(3, texts), g = {0}, one;
    dls_record *odd = &f.ranks[2].records[1];
    odd->members = ~(uint64_t)0;
    odd->communicator = 0xfedcba98;
    odd->virtual_ended = 0.1 + 0.2;
    strcpy(f.ranks[1].fate, "was killed by \"somebody\"");
    cr_assert_eq(dls_flight_write(&f, NULL, path_of("all")), DLS_OK);
    cr_assert_eq(dls_flight_read(path_of("all"), &g), DLS_OK, "%s", dls_status_message());
    expect_same(&f, &g);
    dls_flight_free(&g);
    for (int i = 0; i < 3; i++) { // one file per rank, the last first
        dls_flight_rank parts[3] = {{0}};
        parts[2 - i] = f.ranks[2 - i];
        one = (dls_flight){3, parts};
        cr_assert_eq(dls_flight_write(&one, NULL, path_of("one")), DLS_OK);
        cr_assert_eq(dls_flight_read(path_of("one"), &g), DLS_OK);
    }
    expect_same(&f, &g);
    cr_assert_eq(dls_flight_read(path_of("one"), &g), DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), "rank 0: its record is here twice"));
    dls_flight_free(&f);
    dls_flight_free(&g);
}

/* test hostile files */
static dls_status read_text(const char *text, size_t size)
{
    dls_flight g = {0};
    dls_finding found;
    FILE *out = fopen(path_of("bad"), "w"); // without the fsync of dls_file_write
    cr_assert(out && fwrite(text, 1, size, out) == size && fclose(out) == 0);
    dls_status status = dls_flight_read(path_of("bad"), &g);
    if (status == DLS_OK)
        dls_flight_find(&g, &found); // whatever it says, no crash
    dls_flight_free(&g);
    return status;
}

Test(comm, damaged_flights_are_refused, .fini = clean_up)
{
    const char *texts[] = {"A+ r1.", "B."};
    dls_flight f = flight_of(2, texts);
    char *text;
    size_t size;
    cr_assert_eq(dls_flight_write(&f, NULL, path_of("all")), DLS_OK);
    cr_assert_eq(dls_file_read(path_of("all"), &text, &size), DLS_OK);
    for (size_t n = 0; n < size; n += 13)
        cr_assert_eq(read_text(text, n), DLS_ERR_INPUT);
    for (size_t i = 0; i < size; i += 7) {
        char before = text[i];
        text[i] = (char)(before == '"' ? '9' : before ^ 1);
        read_text(text, size);
        text[i] = before;
    }
    cr_assert_eq(read_text(text, size), DLS_OK);
    free(text);
    dls_flight_free(&f);
}

static void expect_line(const char *text, const char *words)
{
    cr_assert_eq(read_text(text, strlen(text)), DLS_ERR_INPUT, "%s", text);
    cr_assert(strstr(dls_status_message(), words), "%s", dls_status_message());
    cr_assert_null(strchr(dls_status_message(), '\n'));
}

Test(comm, wrong_flights_are_refused_in_one_line, .fini = clean_up)
{
#define HEAD "{\"dls_flight\": 1, \"world\": 2, \"ranks\": ["
#define RANK(r, more) "{\"rank\": " r ", \"pid\": 1, \"fate\": \"\", " \
                      "\"process\": \"\", \"taken\": 1, \"moved\": 1, \"seen\": 1, " \
                      "\"calls\": 1, " \
                      "\"operations\": " more "}"
    expect_line("[]", "not a flight record of version 1");
    expect_line("{\"dls_flight\": 2, \"world\": 2, \"ranks\": []}", "of version 1");
    expect_line("{\"dls_flight\": 1, \"world\": 0, \"ranks\": []}", "a world of 0 ranks");
    expect_line("{\"dls_flight\": 1, \"world\": 2000000000, \"ranks\": []}",
                "a world of 2000000000 ranks");
    expect_line(HEAD "{}]}", "lacks a field");
    expect_line(HEAD RANK("2", "[]") "]}", "rank 2: not a rank of this world");
    expect_line(HEAD RANK("-1", "[]") "]}", "rank -1: not a rank");
    expect_line(HEAD RANK("0", "7") "]}", "\"operations\" is not a list");
    expect_line(HEAD RANK("0", "[{\"ticket\": \"x\"}]") "]}", "\"ticket\" is missing or");
    expect_line(HEAD RANK("0", "[]") "," RANK("0", "[]") "]}", "is here twice");
}
