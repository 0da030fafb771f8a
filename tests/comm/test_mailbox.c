/* tests/comm/test_mailbox.c: from chapters/04-data-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Mailboxes and bells, hammered by more processes than there are cores. */
#include "world.h"

#include "base/rng.h"
#include "comm/local.h"

enum { RECORDS = 3000, LONGEST_RECORD = 3000 };

/* describe a conversation */
/* Both ends compute length and contents of record i from the pair of ranks. */
typedef struct conversation {
    dls_local *local;
    int from, to;
    uint64_t record; // the one being sent or received
    size_t moved;    // bytes of it
} conversation;

static size_t record_bytes(const conversation *c)
{
    uint64_t pair = (uint64_t)(c->from * 100 + c->to);
    return dls_rng_u32(7, pair, c->record) % LONGEST_RECORD + 1;
}

static unsigned char record_byte(const conversation *c, size_t i)
{
    return (unsigned char)(c->record * 31 + i * 7 + (size_t)c->from * 3 + (size_t)c->to);
}

/* write a record */
/* 1 if it moved anything. */
static int write_some(conversation *c)
{
    void *at;
    dls_mailbox *box = dls_local_box(c->local, 0, c->from, c->to);
    size_t room = dls_mailbox_room(box, &at), left = record_bytes(c) - c->moved;
    if (c->record == RECORDS || room == 0)
        return 0;
    size_t n = room < left ? room : left;
    for (size_t i = 0; i < n; i++)
        ((unsigned char *)at)[i] = record_byte(c, c->moved + i);
    dls_mailbox_publish(box, n);
    dls_local_ring(c->local, c->to);
    c->moved += n;
    if (n == left) {
        c->record++;
        c->moved = 0;
    }
    return 1;
}

/* read a record */
/* 1 if it moved anything, -1 for a wrong byte. */
static int read_some(conversation *c)
{
    const void *at;
    dls_mailbox *box = dls_local_box(c->local, 0, c->from, c->to);
    size_t waiting = dls_mailbox_waiting(box, &at), left = record_bytes(c) - c->moved;
    if (c->record == RECORDS || waiting == 0)
        return 0;
    size_t n = waiting < left ? waiting : left;
    for (size_t i = 0; i < n; i++)
        if (((const unsigned char *)at)[i] != record_byte(c, c->moved + i))
            return -1;
    dls_mailbox_release(box, n);
    dls_local_ring(c->local, c->from);
    c->moved += n;
    if (n == left) {
        c->record++;
        c->moved = 0;
    }
    return 1;
}

/* hammer the mailboxes */
static dls_status hammer(int rank, void *arg)
{
    int n = *(int *)arg, moving;
    dls_local local;
    DLS_TRY(dls_local_attach(atoi(getenv("DLS_ARENA_FD")), rank, n, &local));
    conversation out[16], in[16];
    for (int p = 0; p < n; p++) {
        out[p] = (conversation){&local, rank, p, p == rank ? RECORDS : 0, 0};
        in[p] = (conversation){&local, p, rank, p == rank ? RECORDS : 0, 0};
    }
    do {
        int moved = moving = 0;
        for (int p = 0; p < n; p++) {
            int r = read_some(&in[p]), w = write_some(&out[p]);
            EXPECT(r >= 0, "record %d from rank %d is damaged", (int)in[p].record, p);
            moved |= r | w;
            moving |= in[p].record < RECORDS || out[p].record < RECORDS;
        }
        DLS_TRY(dls_local_check(&local, "hammers"));
        if (!moved && moving && dls_local_quiet(&local))
            dls_local_sleep(&local, 0.1);
    } while (moving);
    return DLS_OK;
}

Test(comm, mailboxes_lose_and_mix_nothing)
{
    for (int n = 2; n <= 6; n += 2)
        expect_ranks(n, hammer, &n);
}
