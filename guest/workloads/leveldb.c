/* Puts into a LevelDB database, and what a check finds of them.
 *
 *     leveldb put DIRECTORY COUNT [sync|nosync]   acknowledges each put when it returns
 *     leveldb check DIRECTORY                     reads what was acknowledged; exit code 0: all is there
 */
#include <unistd.h>

#include <leveldb/c.h>

#include "puts.h"

static void must(char *error)
{
    if (error) {
        printf("%s\n", error);
        exit(1);
    }
}

static leveldb_t *open_database(const char *path, int create)
{
    char *error = NULL;
    leveldb_options_t *options = leveldb_options_create();

    leveldb_options_set_create_if_missing(options, create);
    leveldb_options_set_paranoid_checks(options, 1);
    leveldb_options_set_compression(options, leveldb_no_compression);
    leveldb_options_set_write_buffer_size(options, 64 << 10);
    leveldb_t *database = leveldb_open(options, path, &error);
    must(error);
    return database;
}

static int put(const char *path, unsigned count, const char *how)
{
    leveldb_writeoptions_t *options = leveldb_writeoptions_create();

    leveldb_writeoptions_set_sync(options, strcmp(how, "nosync") != 0);
    open_simulator();
    leveldb_t *database = open_database(path, 1);
    for (unsigned number = 1; number <= count; number++) {
        char *error = NULL, key[20], value[VALUE];
        int length = snprintf(key, sizeof key, "%u", number);
        value_of(number, value);
        leveldb_put(database, options, key, length, value, sizeof value, &error);
        must(error);
        acknowledge_number(number);
    }
    _exit(0);
}

static int check(const char *path)
{
    unsigned number = next_acknowledged();
    char *error = NULL;

    if (number == 0)
        return 0;
    leveldb_readoptions_t *options = leveldb_readoptions_create();
    leveldb_t *database = open_database(path, 0);
    for (; number != 0; number = next_acknowledged()) {
        char key[20];
        size_t size;
        int length = snprintf(key, sizeof key, "%u", number);
        char *value = leveldb_get(database, options, key, length, &size, &error);
        must(error);
        if (!is_value_of(number, value, size, "not there"))
            return 1;
    }
    leveldb_close(database);
    return 0;
}

int main(int count, char **arguments)
{
    if (count >= 4 && strcmp(arguments[1], "put") == 0)
        return put(arguments[2], atoi(arguments[3]), count > 4 ? arguments[4] : "sync");
    if (count == 3 && strcmp(arguments[1], "check") == 0)
        return check(arguments[2]);
    fprintf(stderr, "usage: leveldb put DIRECTORY COUNT [sync|nosync] | leveldb check DIRECTORY\n");
    return 2;
}
