/* Streams of every cell, stepped where the kernel ends the process at its first system call (seccomp) and where an
 * allocation ends it, too. Linked with the library and with -Wl,--wrap for the functions of malloc. Prints nothing; the
 * exit status is 0, 1 for a test that could not begin, or that of a signal. With the argument "call" it makes a system
 * call itself, and with "allocate" an allocation, so that the test sees what happens then. */
#define _GNU_SOURCE
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fastrnn_stream.h"

enum { I = 3, H = 21, HEADS = 3, LAYERS = 2, MOST = 32, STEPS = 300 };

static int in_real_time;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void __real_free(void *block);

static void forbid(void)
{
    if (in_real_time) __builtin_trap();
}
void *__wrap_malloc(size_t size) { return forbid(), __real_malloc(size); }
void *__wrap_calloc(size_t count, size_t size) { return forbid(), __real_calloc(count, size); }
void *__wrap_realloc(void *block, size_t size) { return forbid(), __real_realloc(block, size); }
void *__wrap_aligned_alloc(size_t alignment, size_t size) { return forbid(), __real_aligned_alloc(alignment, size); }
void __wrap_free(void *block) { forbid(), __real_free(block); }

/* From here on, every system call but the end of the process kills it. */
static int enter_real_time(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    const struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    in_real_time = 1;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static void *numbers(size_t n, fastrnn_dtype dtype)
{
    static uint32_t seed = 1;
    void *block = malloc(n * sizeof(double));
    if (!block) exit(1);
    for (size_t k = 0; k < n; k++) {
        seed = seed * 1664525 + 1013904223;
        const double number = 0.3 * ((double)(seed >> 8) / 8388608 - 1);
        if (dtype == FASTRNN_F32)
            ((float *)block)[k] = (float)number;
        else
            ((double *)block)[k] = number;
    }
    return block;
}

static fastrnn_stream *new_stream(const fastrnn_isa *isa, fastrnn_dtype dtype, fastrnn_cell cell)
{
    const fastrnn_cell_properties properties = fastrnn_cell_at(cell);
    const int slstm = properties.states == 4, projected = properties.peepholes > 0, G = properties.gates * H;
    fastrnn_weights weights[LAYERS] = {{0}};
    for (int k = 0; k < LAYERS; k++) {
        const ptrdiff_t P = projected ? 10 : H;
        weights[k] = (fastrnn_weights){.cell = cell,
                                       .options = {.clip = k ? 2 : 0},
                                       .I = k ? P : I,
                                       .H = H,
                                       .P = P,
                                       .heads = slstm ? HEADS : 1,
                                       .weight_ih = numbers((size_t)G * H, dtype),
                                       .weight_hh = numbers((size_t)G * H, dtype),
                                       .bias_ih = numbers((size_t)G, dtype),
                                       .bias_hh = numbers((size_t)G, dtype),
                                       .weight_hr = projected ? numbers((size_t)P * H, dtype) : NULL,
                                       .peephole = projected ? numbers((size_t)3 * H, dtype) : NULL};
    }
    fastrnn_stream *stream = NULL;
    if (fastrnn_stream_pack(isa, dtype, weights, LAYERS, &stream)) exit(1);
    return stream;
}

int main(int argc, char **argv)
{
    static fastrnn_stream *streams[4 * 2 * MOST];
    static void *states[4 * 2 * MOST];
    double x[I] = {0}, y[H], h[H];
    int count = 0;
    for (int k = 0; fastrnn_isa_at(k); k++)
        for (int d = 0; d < 2 && fastrnn_isa_is_supported(fastrnn_isa_at(k)); d++)
            for (fastrnn_cell cell = 0; fastrnn_cell_at(cell).name; cell++, count++) {
                streams[count] = new_stream(fastrnn_isa_at(k), d ? FASTRNN_F64 : FASTRNN_F32, cell);
                states[count] = malloc(fastrnn_stream_state_bytes(streams[count]));
                if (!states[count]) return 1;
            }
    void *copy = malloc(1 << 16);
    if (!copy || !enter_real_time()) return 1;

    if (argc > 1 && !strcmp(argv[1], "call")) (void)getppid();
    if (argc > 1 && !strcmp(argv[1], "allocate")) copy = malloc(1);
    for (int k = 0; k < count; k++) {
        fastrnn_stream_reset(streams[k], states[k]);
        for (int t = 0; t < STEPS; t++) { /* numbers, then infinities and NaNs, of either precision */
            memset(x, t < 200 ? t : 0xff, sizeof x);
            fastrnn_stream_step(streams[k], states[k], x, y);
        }
        fastrnn_stream_get_state(streams[k], states[k], 1, 0, h);
        fastrnn_stream_set_state(streams[k], states[k], 0, 0, h);
        fastrnn_stream_steps(streams[k], states[k], 1, x, y);
        memcpy(copy, states[k], fastrnn_stream_state_bytes(streams[k]));
    }
    syscall(SYS_exit_group, 0);
}
