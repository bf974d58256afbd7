/* A plugin for QEMU's TCG that does what a tracer of stores must at least do: it is called for every store.
 *
 * It counts instructions and stores. When QEMU ends it writes the counts that stood at the agent's (only) call of the
 * control port to the file that its argument `out=` names. The declarations below follow QEMU's documentation of the
 * plugin interface (docs/devel/tcg-plugins), version 1.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef uint32_t qemu_plugin_meminfo_t;

enum { NO_REGISTERS = 0 };   /* enum qemu_plugin_cb_flags */
enum { STORES = 2 };         /* enum qemu_plugin_mem_rw */
enum { ADD_U64 = 0 };        /* enum qemu_plugin_op */

typedef void (*on_block)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*on_execution)(unsigned vcpu, void *data);
typedef void (*on_access)(unsigned vcpu, qemu_plugin_meminfo_t, uint64_t linear, void *data);

typedef void (*on_exit)(qemu_plugin_id_t, void *data);

void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, on_exit, void *data);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, on_block);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, on_execution, int flags, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, on_access, int flags, int rw, void *data);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int op, void *counter, uint64_t add);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t instructions, stores, instructions_at_call, stores_at_call;
static char result[4096];

static void stored(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t linear, void *data)
{
    (void)vcpu, (void)info, (void)linear, (void)data;
    stores++;
}

static void called(unsigned vcpu, void *data)
{
    (void)vcpu, (void)data;
    instructions_at_call = instructions;
    stores_at_call = stores;
}

static void ended(qemu_plugin_id_t id, void *data)
{
    (void)id, (void)data;
    FILE *file = fopen(result, "w");
    if (!file)
        return;
    fprintf(file, "%llu %llu\n", (unsigned long long)instructions_at_call, (unsigned long long)stores_at_call);
    fclose(file);
}

/* OUT DX, EAX below the kernel: the agent's, and before it the firmware's. */
static int is_call(const struct qemu_plugin_insn *insn)
{
    int user = qemu_plugin_insn_vaddr(insn) >> 63 == 0;
    return user && qemu_plugin_insn_size(insn) == 1 && *(const uint8_t *)qemu_plugin_insn_data(insn) == 0xef;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    size_t count = qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &instructions, count);
    for (size_t n = 0; n < count; n++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, n);
        qemu_plugin_register_vcpu_mem_cb(insn, stored, NO_REGISTERS, STORES, NULL);
        if (is_call(insn))
            qemu_plugin_register_vcpu_insn_exec_cb(insn, called, NO_REGISTERS, NULL);
    }
}

__attribute__((visibility("default")))
int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int n = 0; n < argc; n++)
        if (strncmp(argv[n], "out=", 4) == 0)
            snprintf(result, sizeof result, "%s", argv[n] + 4);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
