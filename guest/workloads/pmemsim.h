/* Talking to the simulator from a program in the guest: x86-64, Linux, no library.
 *
 * A call is one OUT to port 0x0d50, EAX the number of the call, RDI and RSI its arguments; the answer comes in RAX. It
 * drains nothing: no store is flushed or fenced by it. `guest/protocol` defines the calls.
 *
 * Only for programs that run in the simulator: on a real machine the port is whoever's it is.
 */
#ifndef PMEMSIM_H
#define PMEMSIM_H

#include <string.h>
#include <sys/io.h>

enum {
    PMEMSIM_PORT = 0x0d50,
    PMEMSIM_MARKER = 6,
    PMEMSIM_LOG = 9,
    PMEMSIM_ACKNOWLEDGE = 10,
    /* Longest text of an acknowledgement, in bytes. */
    PMEMSIM_MAX_ACKNOWLEDGEMENT = 4096,
};

static inline long pmemsim_call(unsigned number, unsigned long first, unsigned long second)
{
    unsigned long answer = number;
    __asm__ volatile("outl %%eax, %%dx"
                     : "+a"(answer)
                     : "d"(PMEMSIM_PORT), "D"(first), "S"(second)
                     : "memory");
    return (long)answer;
}

/* Asks the kernel for the port: once, first, as root. 0, or -1 with errno. */
static inline int pmemsim_open(void)
{
    return ioperm(PMEMSIM_PORT, 4, 1);
}

/* What this line of text says is promised from here on: the check program is told it behind every later power cut. */
static inline void pmemsim_acknowledge(const char *line)
{
    pmemsim_call(PMEMSIM_ACKNOWLEDGE, (unsigned long)line, strlen(line));
}

/* A moment by which scenarios name crash points: from_marker, between:A-B. */
static inline void pmemsim_marker(unsigned number)
{
    pmemsim_call(PMEMSIM_MARKER, number, 0);
}

/* A line among what the console says. */
static inline void pmemsim_log(const char *line)
{
    pmemsim_call(PMEMSIM_LOG, (unsigned long)line, strlen(line));
}

#endif
