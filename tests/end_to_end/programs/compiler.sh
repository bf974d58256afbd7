# A C compiler: its assembly, and what the program does.
cd /tmp
cat > program.c <<'END'
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node { struct node *left, *right; uint64_t key; double value; };

static uint64_t state = 88172645463325252u;

static uint64_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static struct node *insert(struct node *root, uint64_t key) {
    if (!root) {
        struct node *node = calloc(1, sizeof *node);
        node->key = key;
        node->value = sqrt((double)key) / 3;
        return node;
    }
    if (key < root->key) root->left = insert(root->left, key);
    else root->right = insert(root->right, key);
    return root;
}

static double sum(const struct node *root, int depth) {
    return root ? root->value / (depth + 1) + sum(root->left, depth + 1) + sum(root->right, depth + 1) : 0;
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    struct node *root = NULL;
    for (int i = 0; i < 5000; i++) root = insert(root, next());
    printf("%.17g\n", sum(root, 0));
    uint32_t words[4096];
    for (int i = 0; i < 4096; i++) words[i] = next();
    qsort(words, 4096, sizeof *words, compare);
    uint32_t hash = 2166136261u;
    for (int i = 0; i < 4096; i++) hash = (hash ^ words[i]) * 16777619u;
    printf("%08x %u %u\n", hash, words[0], words[4095]);
    float a[64][64], b[64][64], c[64][64];
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < 64; j++) a[i][j] = (i * j) % 7 / 3.f, b[i][j] = (i - j) / 5.f, c[i][j] = 0;
    for (int i = 0; i < 64; i++)
        for (int k = 0; k < 64; k++)
            for (int j = 0; j < 64; j++) c[i][j] += a[i][k] * b[k][j];
    double trace = 0;
    for (int i = 0; i < 64; i++) trace += c[i][i];
    printf("%.17g %a\n", trace, (double)c[63][62]);
    long double x = 1;
    for (int i = 1; i < 40; i++) x = x * 3 / 2 + sqrtl(i);
    printf("%.21Lg %Lf %La\n", x, fmodl(x, 7), atanl(x) * logl(x));
    printf("%s %d %zu\n", argc > 1 ? argv[1] : "", (int)strlen(argv[0]), sizeof(long));
    return argc;
}
END
for options in -O2 "-O3 -funroll-loops" "-O0 -mfpmath=387" "-Os -static"; do
    gcc $options -S -o program.s program.c -lm && echo "$options: $(sha256sum < program.s)"
    gcc $options -o program program.c -lm && ./program argument
    echo "status $?"
done
gcc -v 2>/dev/stdout | tail -n 1
objdump -d program | grep -c call
nm program | grep -w main
