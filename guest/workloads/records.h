/* The records of the logs (log.c, pmem_log.c, pmem2_log.c), and what has to be true of them. */
#ifndef RECORDS_H
#define RECORDS_H

#include <stdint.h>
#include <string.h>

#include "numbers.h"

enum { SIZE = 64 << 10, LINE = 64, TEXT = 120 };

struct record {
    uint64_t number;
    char text[TEXT];
};

/* Longest log that fits. */
enum { MOST = (SIZE - LINE) / sizeof(struct record) };

static void fill(struct record *record, uint64_t number)
{
    memset(record, 0, sizeof *record);
    record->number = number;
    snprintf(record->text, TEXT, "this is record %llu, which is longer than one line of the cache",
             (unsigned long long)number);
}

/* Whether all that was acknowledged is there, and all that is there is whole: 0, or 1 behind a line that says what is wrong. */
static int check_records(const struct record *records, uint64_t there, uint64_t acknowledged)
{
    struct record wanted;

    if (there < acknowledged || there > MOST) {
        printf("%llu records, but %llu were acknowledged\n", (unsigned long long)there,
               (unsigned long long)acknowledged);
        return 1;
    }
    for (uint64_t at = 0; at < there; at++) {
        fill(&wanted, at + 1);
        if (memcmp(&records[at], &wanted, sizeof wanted) != 0) {
            printf("record %llu is not whole\n", (unsigned long long)at + 1);
            return 1;
        }
    }
    return 0;
}

#endif
