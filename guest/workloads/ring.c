/* A ring of records, written for as long as one likes: what a long run stores to persistent memory.
 *
 *     ring write FILE COUNT EVERY   writes so many records, and acknowledges every EVERY-th
 *     ring check FILE               what was acknowledged last is there, or a newer one, and all before it
 *
 * A record is one line: its words are stored in order, the number last, so that a line with a number is whole. Then it
 * is flushed, and fenced.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "numbers.h"

enum { SLOTS = 8192, WORDS = 7 };

struct slot {
    volatile unsigned long words[WORDS];
    volatile unsigned long number;
};

/* A word that depends on all bits of the number (the mixing function of MurmurHash3). */
static unsigned long word(unsigned long number, unsigned at)
{
    unsigned long x = number * WORDS + at;
    x = (x ^ x >> 33) * 0xff51afd7ed558ccd;
    x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53;
    return x ^ x >> 33;
}

static struct slot *map(const char *path, int flags, int kind)
{
    int file = open(path, flags, 0600);

    if (file < 0 || ((flags & O_CREAT) && ftruncate(file, SLOTS * sizeof(struct slot)) != 0)) {
        perror(path);
        exit(2);
    }
    int protection = flags & O_CREAT ? PROT_READ | PROT_WRITE : PROT_READ;
    struct slot *slots = mmap(NULL, SLOTS * sizeof(struct slot), protection, kind, file, 0);
    if (slots == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return slots;
}

static int write_all(const char *path, unsigned long count, unsigned long every)
{
    open_simulator();
    struct slot *slots = map(path, O_RDWR | O_CREAT, MAP_SHARED_VALIDATE | MAP_SYNC);
    for (unsigned long number = 1; number <= count; number++) {
        struct slot *slot = &slots[number % SLOTS];
        for (unsigned at = 0; at < WORDS; at++)
            slot->words[at] = word(number, at);
        slot->number = number;
        __asm__ volatile("clwb (%0)\n\tsfence" : : "r"(slot) : "memory");
        if (number % every == 0)
            acknowledge_number(number);
    }
    return 0;
}

static int is_whole(const struct slot *slot)
{
    for (unsigned at = 0; at < WORDS; at++)
        if (slot->words[at] != word(slot->number, at))
            return 0;
    return slot->number != 0;
}

static int check(const char *path)
{
    unsigned long acknowledged = last_acknowledged(), newest = 0;

    if (acknowledged == 0)
        return 0;
    struct slot *slots = map(path, O_RDONLY, MAP_SHARED);
    for (unsigned at = 0; at < SLOTS; at++)
        if (is_whole(&slots[at]) && slots[at].number > newest)
            newest = slots[at].number;
    if (newest < acknowledged) {
        printf("record %lu was acknowledged, but the newest is %lu\n", acknowledged, newest);
        return 1;
    }
    /* Of the oldest one the place may be half the next one's. */
    for (unsigned long number = newest; number > 0 && number + SLOTS > newest + 1; number--) {
        const struct slot *slot = &slots[number % SLOTS];
        if (slot->number != number || !is_whole(slot)) {
            printf("record %lu is not whole\n", number);
            return 1;
        }
    }
    return 0;
}

int main(int count, char **arguments)
{
    if (count == 5 && strcmp(arguments[1], "write") == 0)
        return write_all(arguments[2], strtoul(arguments[3], NULL, 10), strtoul(arguments[4], NULL, 10));
    if (count == 3 && strcmp(arguments[1], "check") == 0)
        return check(arguments[2]);
    fprintf(stderr, "usage: ring write FILE COUNT EVERY | ring check FILE\n");
    return 2;
}
