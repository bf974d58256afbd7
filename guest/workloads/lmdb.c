/* Puts into an LMDB database, one transaction each, and what a check finds of them.
 *
 *     lmdb put FILE COUNT [sync|nosync|writemap|mapasync]   acknowledges each put when its transaction is committed
 *     lmdb check FILE                                       reads what was acknowledged; exit code 0: all is there
 */
#include <unistd.h>

#include <lmdb.h>

#include "puts.h"

static void must(int result, const char *what)
{
    if (result != 0) {
        printf("%s: %s\n", what, mdb_strerror(result));
        exit(1);
    }
}

static MDB_env *open_env(const char *path, unsigned flags)
{
    MDB_env *env;

    must(mdb_env_create(&env), "mdb_env_create");
    must(mdb_env_set_mapsize(env, 1 << 20), "mdb_env_set_mapsize");
    must(mdb_env_open(env, path, MDB_NOSUBDIR | flags, 0600), "mdb_env_open");
    return env;
}

static int put(const char *path, unsigned count, const char *how)
{
    unsigned flags = strcmp(how, "nosync") == 0     ? MDB_NOSYNC
                     : strcmp(how, "writemap") == 0 ? MDB_WRITEMAP
                     : strcmp(how, "mapasync") == 0 ? MDB_WRITEMAP | MDB_MAPASYNC
                                                    : 0;
    open_simulator();
    MDB_env *env = open_env(path, flags);
    for (unsigned number = 1; number <= count; number++) {
        MDB_txn *transaction;
        MDB_dbi database;
        char value[VALUE];
        value_of(number, value);
        MDB_val key = { sizeof number, &number }, data = { sizeof value, value };
        must(mdb_txn_begin(env, NULL, 0, &transaction), "mdb_txn_begin");
        must(mdb_dbi_open(transaction, NULL, 0, &database), "mdb_dbi_open");
        must(mdb_put(transaction, database, &key, &data, 0), "mdb_put");
        must(mdb_txn_commit(transaction), "mdb_txn_commit");
        acknowledge_number(number);
    }
    /* The power goes while it is open: closing it would sync. */
    return 0;
}

static int check(const char *path)
{
    MDB_txn *transaction;
    MDB_dbi database;
    unsigned number = next_acknowledged();

    if (access(path, F_OK) != 0) {
        if (number == 0)
            return 0;
        printf("there is no database\n");
        return 1;
    }
    MDB_env *env = open_env(path, MDB_NOLOCK | MDB_RDONLY);
    must(mdb_txn_begin(env, NULL, MDB_RDONLY, &transaction), "mdb_txn_begin");
    must(mdb_dbi_open(transaction, NULL, 0, &database), "mdb_dbi_open");
    for (; number != 0; number = next_acknowledged()) {
        MDB_val key = { sizeof number, &number }, data = { 0 };
        int result = mdb_get(transaction, database, &key, &data);
        if (!is_value_of(number, result ? NULL : data.mv_data, data.mv_size, mdb_strerror(result)))
            return 1;
    }
    return 0;
}

int main(int count, char **arguments)
{
    if (count >= 4 && strcmp(arguments[1], "put") == 0)
        return put(arguments[2], atoi(arguments[3]), count > 4 ? arguments[4] : "sync");
    if (count == 3 && strcmp(arguments[1], "check") == 0)
        return check(arguments[2]);
    fprintf(stderr, "usage: lmdb put FILE COUNT [sync|nosync|writemap|mapasync] | lmdb check FILE\n");
    return 2;
}
