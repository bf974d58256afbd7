/* A list in a pool of libpmemobj: each transaction allocates a node and puts it in front.
 *
 *     obj_list push FILE COUNT   FILE may be a device-dax device
 *     obj_list check FILE
 *
 * -DNO_TX_ADD changes the head of the list without telling the transaction.
 */
#include <stdint.h>
#include <sys/stat.h>

#include <libpmemobj.h>

#include "numbers.h"

struct node {
    PMEMoid next;
    uint64_t number;
    uint64_t twice;
};

struct root {
    PMEMoid first;
    uint64_t count;
};

#define LAYOUT "pmemsim list"

/* A pool on a device-dax device is as large as that: 0 says so. */
static size_t size_of_pool(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 && S_ISCHR(status.st_mode) ? 0 : PMEMOBJ_MIN_POOL;
}

static int push_all(const char *path, uint64_t count)
{
    open_simulator();
    PMEMobjpool *pool = pmemobj_create(path, LAYOUT, size_of_pool(path), 0600);
    if (!pool) {
        fprintf(stderr, "%s: %s\n", path, pmemobj_errormsg());
        return 2;
    }
    PMEMoid root_oid = pmemobj_root(pool, sizeof(struct root));
    struct root *root = pmemobj_direct(root_oid);
    pmemsim_marker(1);
    for (uint64_t number = 1; number <= count; number++) {
        TX_BEGIN(pool) {
#ifndef NO_TX_ADD
            pmemobj_tx_add_range(root_oid, 0, sizeof *root);
#endif
            PMEMoid oid = pmemobj_tx_alloc(sizeof(struct node), 1);
            struct node *node = pmemobj_direct(oid);
            node->next = root->first;
            node->number = number;
            node->twice = 2 * number;
            root->first = oid;
            root->count = number;
        } TX_ONABORT {
            fprintf(stderr, "%s\n", pmemobj_errormsg());
            exit(2);
        } TX_END
        acknowledge_number(number);
    }
    return 0;
}

static int check(const char *path)
{
    unsigned long long acknowledged = last_acknowledged();
    PMEMobjpool *pool = pmemobj_open(path, LAYOUT);
    if (!pool) {
        printf("%s\n", pmemobj_errormsg());
        return 1;
    }
    struct root *root = pmemobj_direct(pmemobj_root(pool, sizeof *root));
    if (root->count < acknowledged) {
        printf("%llu nodes, but %llu were acknowledged\n", (unsigned long long)root->count, acknowledged);
        return 1;
    }
    PMEMoid oid = root->first;
    for (uint64_t left = root->count; left > 0; left--) {
        struct node *node = OID_IS_NULL(oid) ? NULL : pmemobj_direct(oid);
        if (!node || node->number != left || node->twice != 2 * left) {
            printf("node %llu is not whole\n", (unsigned long long)left);
            return 1;
        }
        oid = node->next;
    }
    pmemobj_close(pool);
    return 0;
}

int main(int count, char **arguments)
{
    if (count == 4 && strcmp(arguments[1], "push") == 0)
        return push_all(arguments[2], strtoull(arguments[3], NULL, 10));
    if (count == 3 && strcmp(arguments[1], "check") == 0)
        return check(arguments[2]);
    fprintf(stderr, "usage: obj_list push FILE COUNT | obj_list check FILE\n");
    return 2;
}
