/* What the programs that put into a key-value store have in common (lmdb.c, leveldb.c): the value of every number. */
#ifndef PUTS_H
#define PUTS_H

#include <string.h>

#include "numbers.h"

enum { VALUE = 200 };

static inline void value_of(unsigned number, char value[VALUE])
{
    snprintf(value, VALUE, "value %0190u", number);
}

/* Whether this is what was put; says what is there instead. */
static inline int is_value_of(unsigned number, const void *value, size_t size, const char *error)
{
    char wanted[VALUE];

    value_of(number, wanted);
    if (value && size == VALUE && memcmp(value, wanted, VALUE) == 0)
        return 1;
    printf("put %u: %s\n", number, value ? "another value" : error);
    return 0;
}

#endif
