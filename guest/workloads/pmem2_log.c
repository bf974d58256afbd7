/* The log of log.c by libpmem2, in a file or on a device-dax device.
 *
 *     pmem2_log append FILE COUNT   makes marker 1 when the log is there, and empty
 *     pmem2_log check FILE
 *
 * -DFORGOTTEN_PERSIST, -DMISSING_DRAIN and -DFLUSH_AFTER_PUBLISH each take something away that it needs.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libpmem2.h>

#include "records.h"

struct log {
    uint64_t records_there;
    char unused[LINE - sizeof(uint64_t)];
    struct record records[];
};

static pmem2_persist_fn persist;
static pmem2_flush_fn flush;

/* A file gets its size; a device has one. */
static int open_log(const char *path, int flags)
{
    struct stat status;
    int file = open(path, O_RDWR | flags, 0600);

    if (file < 0 || fstat(file, &status) != 0)
        return -1;
    if (S_ISREG(status.st_mode) && status.st_size < SIZE && (!(flags & O_CREAT) || ftruncate(file, SIZE) != 0))
        return -1;
    return file;
}

static struct log *map(const char *path, int file)
{
    struct pmem2_config *config;
    struct pmem2_source *source;
    struct pmem2_map *map;

    if (pmem2_config_new(&config) != 0 ||
        pmem2_config_set_required_store_granularity(config, PMEM2_GRANULARITY_CACHE_LINE) != 0 ||
        pmem2_source_from_fd(&source, file) != 0 || pmem2_map_new(&map, config, source) != 0) {
        fprintf(stderr, "%s: %s\n", path, pmem2_errormsg());
        exit(2);
    }
    persist = pmem2_get_persist_fn(map);
    flush = pmem2_get_flush_fn(map);
    return pmem2_map_get_address(map);
}

static void publish(struct log *log, uint64_t number)
{
    log->records_there = number;
    persist(&log->records_there, sizeof log->records_there);
}

static void append(struct log *log, uint64_t number)
{
    struct record *record = &log->records[number - 1];

    fill(record, number);
#if defined FORGOTTEN_PERSIST
    publish(log, number);
#elif defined MISSING_DRAIN
    flush(record, sizeof *record);
    publish(log, number);
#elif defined FLUSH_AFTER_PUBLISH
    publish(log, number);
    persist(record, sizeof *record);
#else
    persist(record, sizeof *record);
    publish(log, number);
#endif
}

static int append_all(const char *path, uint64_t count)
{
    open_simulator();
    int file = open_log(path, O_CREAT);
    if (file < 0) {
        perror(path);
        return 2;
    }
    struct log *log = map(path, file);
    publish(log, 0);
    pmemsim_marker(1);
    for (uint64_t number = 1; number <= count; number++) {
        append(log, number);
        acknowledge_number(number);
    }
    return 0;
}

static int check(const char *path)
{
    uint64_t acknowledged = last_acknowledged();
    int file = open_log(path, 0);

    if (file < 0) {
        printf("there is no log\n");
        return 1;
    }
    struct log *log = map(path, file);
    return check_records(log->records, log->records_there, acknowledged);
}

int main(int count, char **arguments)
{
    if (count == 4 && strcmp(arguments[1], "append") == 0)
        return append_all(arguments[2], strtoull(arguments[3], NULL, 10));
    if (count == 3 && strcmp(arguments[1], "check") == 0)
        return check(arguments[2]);
    fprintf(stderr, "usage: pmem2_log append FILE COUNT | pmem2_log check FILE\n");
    return 2;
}
