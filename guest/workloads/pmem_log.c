/* The log of log.c by libpmem: the same promises, kept by pmem_persist and its relatives.
 *
 *     pmem_log append FILE COUNT
 *     pmem_log check FILE
 *
 * -DFORGOTTEN_PERSIST, -DMISSING_DRAIN and -DFLUSH_AFTER_PUBLISH each take something away that it needs.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <libpmem.h>
#include <pmemsim.h>

enum { SIZE = 64 << 10, LINE = 64, TEXT = 120 };

struct record {
    uint64_t number;
    char text[TEXT];
};

struct log {
    uint64_t records_there;
    char unused[LINE - sizeof(uint64_t)];
    struct record records[];
};

static void fill(struct record *record, uint64_t number)
{
    memset(record, 0, sizeof *record);
    record->number = number;
    snprintf(record->text, TEXT, "this is record %llu, which is longer than one line of the cache",
             (unsigned long long)number);
}

static void publish(struct log *log, uint64_t number)
{
    log->records_there = number;
    pmem_persist(&log->records_there, sizeof log->records_there);
}

static void append(struct log *log, uint64_t number)
{
    struct record *record = &log->records[number - 1];

    fill(record, number);
#if defined FORGOTTEN_PERSIST
    publish(log, number);
#elif defined MISSING_DRAIN
    pmem_flush(record, sizeof *record);
    publish(log, number);
#elif defined FLUSH_AFTER_PUBLISH
    publish(log, number);
    pmem_persist(record, sizeof *record);
#else
    pmem_persist(record, sizeof *record);
    publish(log, number);
#endif
}

static int append_all(const char *path, uint64_t count)
{
    int is_pmem;
    char line[32];

    if (pmemsim_open() != 0) {
        perror("ioperm");
        return 2;
    }
    struct log *log = pmem_map_file(path, SIZE, PMEM_FILE_CREATE, 0600, NULL, &is_pmem);
    if (!log || !is_pmem) {
        fprintf(stderr, "%s: %s\n", path, log ? "is not on persistent memory" : pmem_errormsg());
        return 2;
    }
    for (uint64_t number = 1; number <= count; number++) {
        append(log, number);
        snprintf(line, sizeof line, "%llu", (unsigned long long)number);
        pmemsim_acknowledge(line);
    }
    return 0;
}

static int check(const char *path)
{
    unsigned long long acknowledged = 0, number;
    size_t size;
    struct record wanted;

    while (scanf("%llu", &number) == 1)
        acknowledged = number;
    struct log *log = pmem_map_file(path, 0, 0, 0, &size, NULL);
    if (!log || size != SIZE) {
        printf("%s\n", log ? "the file is not whole" : pmem_errormsg());
        return acknowledged != 0;
    }
    if (log->records_there < acknowledged) {
        printf("%llu records, but %llu were acknowledged\n", (unsigned long long)log->records_there, acknowledged);
        return 1;
    }
    for (uint64_t at = 0; at < log->records_there && at < (SIZE - LINE) / sizeof wanted; at++) {
        fill(&wanted, at + 1);
        if (memcmp(&log->records[at], &wanted, sizeof wanted) != 0) {
            printf("record %llu is not whole\n", (unsigned long long)at + 1);
            return 1;
        }
    }
    return 0;
}

int main(int count, char **arguments)
{
    if (count == 4 && strcmp(arguments[1], "append") == 0)
        return append_all(arguments[2], strtoull(arguments[3], NULL, 10));
    if (count == 3 && strcmp(arguments[1], "check") == 0)
        return check(arguments[2]);
    fprintf(stderr, "usage: pmem_log append FILE COUNT | pmem_log check FILE\n");
    return 2;
}
