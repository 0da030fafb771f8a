/* tests/train/test_checkpoint.c: from chapters/09-transformer-training-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Checkpoints: whole, hurt in every way, rotated, forged. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/rng.h"
#include "train/checkpoint.h"

/* make a small checkpoint */
#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

static char directory[] = "/tmp/dls-checkpoint-XXXXXX";
static double numbers[3 * 5] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static void make_directory(void)
{
    cr_assert_not_null(mkdtemp(directory));
}

static void remove_directory(void)
{
    char command[sizeof directory + 16];
    snprintf(command, sizeof command, "rm -r %s", directory);
    cr_assert_eq(system(command), 0);
}

static const char settings[] = "model.vocabulary=256\nmodel.context=8\nmodel.layers=1\n"
    "model.heads=1\nmodel.channels=4\ntrain.seed=1\n";

static void save(int64_t step)
{
    dls_checkpoint c = {
        .step = step, .dtype = DLS_F64, .elements = 5,
        .settings = settings, .layout = "w 5\n", .values = numbers,
        .m = numbers + 5, .v = numbers + 10};
    OK(dls_checkpoint_save(directory, &c));
}

static const char *path_of(int64_t step)
{
    static char path[256];
    dls_checkpoint_path(path, sizeof path, directory, step);
    return path;
}

/* test what is saved */
Test(train, a_checkpoint_comes_back_as_it_was, .init = make_directory,
     .fini = remove_directory)
{
    dls_checkpoint c;
    save(7);
    OK(dls_checkpoint_load(path_of(7), &c));
    cr_assert_eq(c.step, 7);
    cr_assert_eq(c.dtype, DLS_F64);
    cr_assert_eq(c.elements, 5);
    cr_assert_eq(c.model.channels, 4);
    cr_assert_str_eq(c.settings, settings);
    cr_assert_str_eq(c.layout, "w 5\n");
    cr_assert_arr_eq(c.values, numbers, 5 * sizeof *numbers);
    cr_assert_arr_eq(c.m, numbers + 5, 5 * sizeof *numbers);
    cr_assert_arr_eq(c.v, numbers + 10, 5 * sizeof *numbers);
    dls_checkpoint_free(&c);
}

/* test every damage */
static void assert_refused(const char *path, const char *data, size_t size)
{
    dls_checkpoint c;
    OK(dls_file_write(path, data, size));
    cr_assert_eq(dls_checkpoint_load(path, &c), DLS_ERR_INPUT);
    cr_assert_eq(strncmp(dls_status_message(), path, strlen(path)), 0);
    cr_assert_null(strchr(dls_status_message(), '\n'));
}

Test(train, every_cut_and_every_changed_byte_is_refused, .init = make_directory,
     .fini = remove_directory)
{
    char *data;
    size_t size;
    save(1);
    OK(dls_file_read(path_of(1), &data, &size));
    for (size_t n = 0; n < size; n++)
        assert_refused(path_of(1), data, n);
    for (size_t i = 0; i < size; i++)
        for (int bit = 0; bit < 8; bit += 7) {
            data[i] ^= (char)(1 << bit);
            assert_refused(path_of(1), data, size);
            data[i] ^= (char)(1 << bit);
        }
    assert_refused(path_of(1), data, size + 1);     // the zero behind what was read
    free(data);
}

Test(train, damage_of_a_large_file_is_refused, .init = make_directory,
     .fini = remove_directory)
{
    enum { COUNT = 180000 };
    double *many = calloc(3 * COUNT, sizeof *many);
    char *data;
    size_t size;
    dls_checkpoint c = {
        .step = 1, .dtype = DLS_F64, .elements = COUNT,
        .settings = settings, .layout = "", .values = many, .m = many + COUNT,
        .v = many + 2 * COUNT};
    OK(dls_checkpoint_save(directory, &c));
    OK(dls_file_read(path_of(1), &data, &size));
    for (int i = 0; i < 24; i++) {
        size_t at = size / 24 * i + dls_rng_u32(1, 1, i) % (size / 24);
        assert_refused(path_of(1), data, at);
        data[at] ^= 16;
        assert_refused(path_of(1), data, size);
        data[at] ^= 16;
    }
    free(data);
    free(many);
}

/* test the messages */
static void assert_message(const char *data, size_t size, const char *want)
{
    dls_checkpoint c;
    OK(dls_file_write(path_of(1), data, size));
    cr_assert_eq(dls_checkpoint_load(path_of(1), &c), DLS_ERR_INPUT);
    const char *message = dls_status_message() + strlen(path_of(1)) + 2;
    cr_assert_str_eq(message, want);
}

Test(train, each_damage_has_its_message, .init = make_directory, .fini = remove_directory)
{
    char *data;
    size_t size;
    save(1);
    OK(dls_file_read(path_of(1), &data, &size));
    cr_assert_eq(size, 128 + sizeof settings + 5 + 3 * 40);
    assert_message(data, 100, "cut short: 100 bytes, a header alone has 128");
    assert_message(data, 200, "cut short: 200 bytes, expected 350");
    assert_message("not a checkpoint at all, but text; and more of it than a header has, "
                   "so that its length is not what gives it away in the first place. "
                   "That needs another line.", 155, "not a checkpoint");
    data[20] ^= 1;
    assert_message(data, size, "damaged: the header does not match its checksum");
    data[20] ^= 1;
    data[8] = 3;
    assert_message(data, size, "format version 3, expected 2");
    data[8] = 2;
    data[size - 1] ^= 1;
    assert_message(data, size, "damaged: the section \"second moments\" does not match "
                   "its checksum");
    free(data);
}

/* test the rotation */
Test(train, two_checkpoints_are_kept_and_other_files_left, .init = make_directory,
     .fini = remove_directory)
{
    char other[512];
    snprintf(other, sizeof other, "%s.bak", path_of(1));
    OK(dls_file_write(other, "x", 1));
    for (int64_t step = 1; step <= 4; step++)
        save(step);
    cr_assert_eq(access(path_of(2), F_OK), -1);
    cr_assert_eq(access(path_of(3), F_OK), 0);
    cr_assert_eq(access(path_of(4), F_OK), 0);
    cr_assert_eq(access(other, F_OK), 0);
    OK(dls_checkpoint_prune(directory, 0));
    cr_assert_eq(access(path_of(4), F_OK), -1);
    cr_assert_eq(access(other, F_OK), 0);
}

Test(train, the_newest_good_one_is_found, .init = make_directory,
     .fini = remove_directory)
{
    dls_checkpoint c;
    dls_log_set_level(DLS_LOG_NONE);
    OK(dls_checkpoint_find(directory, &c));
    cr_assert_null(c.file, "an empty directory is a fresh start");
    save(3);
    save(4);
    OK(dls_checkpoint_find(directory, &c));
    cr_assert_eq(c.step, 4);
    dls_checkpoint_free(&c);
    OK(dls_file_write(path_of(4), "torn", 4));
    OK(dls_checkpoint_find(directory, &c));
    cr_assert_eq(c.step, 3);
    dls_checkpoint_free(&c);
    OK(dls_file_write(path_of(3), "torn", 4));
    cr_assert_eq(dls_checkpoint_find(directory, &c), DLS_ERR_INPUT);
    cr_assert_not_null(strstr(dls_status_message(), "none of its 2 checkpoints is good"));
}

/* test a forged header */
Test(train, a_header_that_contradicts_itself_is_refused, .init = make_directory,
     .fini = remove_directory)
{
    const size_t fields[] = {24, 12, 32};   // elements, bytes per element, type
    char *data;
    size_t size;
    save(1);
    OK(dls_file_read(path_of(1), &data, &size));
    for (int i = 0; i < 3; i++) {
        data[fields[i]] ^= 64;
        uint64_t hash = dls_hash64(data, 120);
        memcpy(data + 120, &hash, sizeof hash);
        assert_refused(path_of(1), data, size);
        cr_assert_not_null(strstr(dls_status_message(), "contradicts itself"));
        data[fields[i]] ^= 64;
    }
    free(data);
}
