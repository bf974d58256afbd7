/* The log of log.c by libpmem: the same promises, kept by pmem_persist and its relatives.
 *
 *     pmem_log append FILE COUNT
 *     pmem_log check FILE
 *
 * -DFORGOTTEN_PERSIST, -DMISSING_DRAIN and -DFLUSH_AFTER_PUBLISH each take something away that it needs.
 */
#include <libpmem.h>

#include "records.h"

struct log {
    uint64_t records_there;
    char unused[LINE - sizeof(uint64_t)];
    struct record records[];
};

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

    open_simulator();
    struct log *log = pmem_map_file(path, SIZE, PMEM_FILE_CREATE, 0600, NULL, &is_pmem);
    if (!log || !is_pmem) {
        fprintf(stderr, "%s: %s\n", path, log ? "is not on persistent memory" : pmem_errormsg());
        return 2;
    }
    for (uint64_t number = 1; number <= count; number++) {
        append(log, number);
        acknowledge_number(number);
    }
    return 0;
}

static int check(const char *path)
{
    uint64_t acknowledged = last_acknowledged();
    size_t size;

    struct log *log = pmem_map_file(path, 0, 0, 0, &size, NULL);
    if (!log || size != SIZE) {
        printf("%s\n", log ? "the file is not whole" : pmem_errormsg());
        return acknowledged != 0;
    }
    return check_records(log->records, log->records_there, acknowledged);
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
