/* A log on persistent memory: the example of docs/programs.md.
 *
 *     log append FILE COUNT    appends records, and acknowledges each when it is durable
 *     log check FILE           reads what was acknowledged from standard input; exit code 0: all of it is there
 *
 * The file is mapped with MAP_SYNC. Its first line holds the tail: how many bytes of records there are. A record is
 * written behind the tail and made durable; only then the tail is moved, and made durable, too.
 *
 * As it stands the program is right. Each of these takes something away that it needs:
 * -DFORGOTTEN_FLUSH     records are not flushed
 * -DMISSING_FENCE       nothing says that a record is durable before the tail is
 * -DFLUSH_AFTER_PUBLISH records are flushed when the tail has been moved already
 * -DNO_MAP_SYNC         the blocks of the file need not be its own after a power loss
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "records.h"

struct log {
    volatile uint64_t tail;
    char unused[LINE - sizeof(uint64_t)];
    struct record records[];
};

static void flush(const volatile void *start, size_t len)
{
    for (uintptr_t line = (uintptr_t)start & ~(uintptr_t)(LINE - 1); line < (uintptr_t)start + len; line += LINE)
        __asm__ volatile("clwb (%0)" : : "r"(line) : "memory");
}

static void fence(void)
{
    __asm__ volatile("sfence" : : : "memory");
}

/* Copies by plain stores: a C library may store past the cache. */
static void store(struct record *to, const struct record *from)
{
    const uint64_t *words = (const uint64_t *)from;
    for (size_t at = 0; at < sizeof *from / sizeof *words; at++)
        ((volatile uint64_t *)to)[at] = words[at];
}

static void publish(struct log *log, uint64_t tail)
{
    log->tail = tail;
    flush(&log->tail, sizeof log->tail);
    fence();
}

static void append(struct log *log, uint64_t number)
{
    struct record record;
    struct record *place = &log->records[log->tail / sizeof record];

    fill(&record, number);
    store(place, &record);
#ifdef FLUSH_AFTER_PUBLISH
    publish(log, log->tail + sizeof record);
#endif
#ifndef FORGOTTEN_FLUSH
    flush(place, sizeof record);
#endif
#ifndef MISSING_FENCE
    fence();
#endif
#ifndef FLUSH_AFTER_PUBLISH
    publish(log, log->tail + sizeof record);
#endif
}

static struct log *map(const char *path, int flags)
{
    int file = open(path, flags, 0600);
    if (file < 0) {
        perror(path);
        exit(1);
    }
    if ((flags & O_CREAT) && ftruncate(file, SIZE) != 0) {
        perror("ftruncate");
        exit(2);
    }
    int protection = flags & O_CREAT ? PROT_READ | PROT_WRITE : PROT_READ;
    int kind = MAP_SHARED;
#ifndef NO_MAP_SYNC
    if (flags & O_CREAT)
        kind = MAP_SHARED_VALIDATE | MAP_SYNC;
#endif
    struct log *log = mmap(NULL, SIZE, protection, kind, file, 0);
    if (log == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    close(file);
    return log;
}

static int append_all(const char *path, uint64_t count)
{
    open_simulator();
    struct log *log = map(path, O_RDWR | O_CREAT);
    for (uint64_t number = 1; number <= count; number++) {
        append(log, number);
        acknowledge_number(number);
    }
    return 0;
}

static int check(const char *path)
{
    uint64_t acknowledged = last_acknowledged();

    /* Before the first acknowledgement there need not be a file, nor all of it. */
    if (acknowledged == 0 && access(path, F_OK) != 0)
        return 0;
    struct log *log = map(path, O_RDONLY);
    uint64_t records = 0;
    if (lseek(open(path, O_RDONLY), 0, SEEK_END) == SIZE)
        records = log->tail / sizeof(struct record);
    return check_records(log->records, records, acknowledged);
}

int main(int count, char **arguments)
{
    if (count == 4 && strcmp(arguments[1], "append") == 0)
        return append_all(arguments[2], strtoull(arguments[3], NULL, 10));
    if (count == 3 && strcmp(arguments[1], "check") == 0)
        return check(arguments[2]);
    fprintf(stderr, "usage: log append FILE COUNT | log check FILE\n");
    return 2;
}
