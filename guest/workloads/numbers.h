/* What programs that acknowledge ascending numbers, and check them, have in common. */
#ifndef NUMBERS_H
#define NUMBERS_H

#include <stdio.h>
#include <stdlib.h>

#include <pmemsim.h>

/* Before anything is acknowledged. */
static inline void open_simulator(void)
{
    if (pmemsim_open() != 0) {
        perror("ioperm");
        exit(2);
    }
}

static inline void acknowledge_number(unsigned long long number)
{
    char line[32];

    snprintf(line, sizeof line, "%llu", number);
    pmemsim_acknowledge(line);
}

/* The next number that had been acknowledged, as a check program reads them; 0 behind the last. */
static inline unsigned long long next_acknowledged(void)
{
    unsigned long long number;

    return scanf("%llu", &number) == 1 ? number : 0;
}

/* The last one, or 0. */
static inline unsigned long long last_acknowledged(void)
{
    unsigned long long last = 0, number;

    while ((number = next_acknowledged()) != 0)
        last = number;
    return last;
}

#endif
