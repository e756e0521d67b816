/* Fixed problems for the C interface, with every instruction set that the processor supports. The output does
 * not depend on the processor, so that test_processors.py can compare machines:
 *
 *   processors            of each set and problem a hash of the values of all its arrays
 *   processors --values   the arrays: a line "set problem array rows columns", then the numbers, little-endian doubles
 *
 * The inputs are made of integers. Every array ends at the end of its page of memory, and the next page must not be
 * touched. The caller's rounding mode is upward: it must not affect a result, and must be unchanged afterwards. Streams
 * have to give the bits of the inference calls, step by step, and all instructions of a format of fewer bits the same.
 */
#define _DEFAULT_SOURCE /* mmap */
#include <fenv.h>
#include <float.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fastrnn.h"
#include "fastrnn_stream.h"

static void die(const char *what, const char *where)
{
    fprintf(stderr, "processors: %s: %s\n", what, where);
    exit(1);
}

/* The arrays of a problem, in the order in which they are written. */
typedef struct {
    char name[48];
    ptrdiff_t rows, columns;
    size_t element;
    char *data, *block; /* the array ends `page` bytes before the block does; NULL for a part of another array */
    size_t block_bytes;
} array;
static array arrays[200];
static int array_count;

static char *new_array(const char *name, int layer, ptrdiff_t rows, ptrdiff_t columns, size_t element)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = (size_t)rows * (size_t)columns * element;
    array *a = &arrays[array_count++];
    snprintf(a->name, sizeof a->name, "%d.%s", layer, name);
    a->rows = rows, a->columns = columns, a->element = element;
    a->block_bytes = (bytes + page - 1) / page * page + page;
    a->block = mmap(NULL, a->block_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (a->block == MAP_FAILED) die("no memory", a->name);
    char *end = a->block + a->block_bytes - page;
    if (mprotect(end, page, PROT_NONE)) die("no guard", a->name);
    return a->data = end - bytes;
}

/* An array that lies in a tape. */
static void part_of_tape(const char *name, int layer, char *tape, size_t offset, ptrdiff_t rows, ptrdiff_t columns,
                         size_t element)
{
    if (offset == SIZE_MAX) return;
    array *a = &arrays[array_count++];
    *a = (array){.rows = rows, .columns = columns, .element = element, .data = tape + offset};
    snprintf(a->name, sizeof a->name, "%d.%s", layer, name);
}

/* A block of memory that is no array: written completely, but not part of the results. */
static char *new_block(size_t bytes)
{
    char *data = new_array("block", 0, 1, (ptrdiff_t)bytes, 1);
    arrays[array_count - 1].columns = 0;
    return memset(data, 0xff, bytes);
}

static double number(const array *a, ptrdiff_t k)
{
    return a->element == sizeof(float) ? ((const float *)a->data)[k] : ((const double *)a->data)[k];
}

static void free_arrays(void)
{
    for (int k = 0; k < array_count; k++) {
        if (!arrays[k].block) continue;
        for (const char *p = arrays[k].block; p < arrays[k].data; p++)
            if (*p) die("written before its first number", arrays[k].name);
        munmap(arrays[k].block, arrays[k].block_bytes);
    }
    array_count = 0;
}

static uint64_t seed;

/* An array of numbers from [-bound, bound), exact in float where the bound is a power of two. */
static void *given(const char *name, int layer, ptrdiff_t rows, ptrdiff_t columns, size_t element, double bound)
{
    char *data = new_array(name, layer, rows, columns, element);
    for (ptrdiff_t k = 0; k < rows * columns; k++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        const double x = ((double)(seed >> 40) - 8388608) / 8388608 * bound;
        if (element == sizeof(float))
            ((float *)data)[k] = (float)x;
        else
            ((double *)data)[k] = x;
    }
    return data;
}

/* Makes n_0 of numbers from [-scale, scale): positive, as a sum of positive numbers is, or 0 in the first column. */
static void make_normalizer(void *data, ptrdiff_t rows, ptrdiff_t columns, size_t element, double scale)
{
    for (ptrdiff_t k = 0; k < rows * columns; k++)
        if (element == sizeof(float))
            ((float *)data)[k] = k % columns ? ((float *)data)[k] + (float)(2 * scale) : 0;
        else
            ((double *)data)[k] = k % columns ? ((double *)data)[k] + 2 * scale : 0;
}

/* An output array, filled with NaN to detect numbers that are not written. */
static void *room(const char *name, int layer, ptrdiff_t rows, ptrdiff_t columns, size_t element)
{
    return memset(new_array(name, layer, rows, columns, element), 0xff, (size_t)(rows * columns) * element);
}

static void write_arrays(const char *set, const char *problem, int values)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (int k = 0; k < array_count; k++) {
        const array *a = &arrays[k];
        if (values) printf("%s %s %s %td %td\n", set, problem, a->name, a->rows, a->columns);
        for (ptrdiff_t j = 0; j < a->rows * a->columns; j++) {
            const double x = number(a, j);
            uint64_t bits;
            memcpy(&bits, &x, sizeof bits);
            for (int byte = 0; byte < 8; byte++) {
                const unsigned char b = (unsigned char)(bits >> (8 * byte));
                if (values) putchar(b);
                hash = (hash ^ b) * UINT64_C(0x100000001b3);
            }
        }
    }
    if (!values) printf("%-8s %-48s %016llx\n", set, problem, (unsigned long long)hash);
}

static void enter_caller(void) { fesetround(FE_UPWARD); }
static void leave_caller(const char *problem)
{
    volatile float least = FLT_MIN, half = 0.5f;
    if (fegetround() != FE_UPWARD) die("the rounding mode has changed", problem);
    if (least * half == 0) die("denormals have become zero", problem);
    fesetround(FE_TONEAREST);
}

typedef struct {
    ptrdiff_t T, B, I, H;
} shape;

enum { PEEPHOLE = 1, RAGGED = 2, STACKED = 4, TINY = 8, RESETS = 16, HEADS = 32 /* three */ };
/* The largest power of two for which sums of n products stay moderate. */
static double bound(ptrdiff_t n)
{
    double b = 1;
    while (b * b * (double)n > 4) b /= 2;
    return b;
}

static fastrnn_packed *pack(const fastrnn_isa *isa, fastrnn_dtype dtype, fastrnn_pass pass, const fastrnn_weights *w)
{
    fastrnn_packed *packed = NULL;
    if (fastrnn_pack(isa, dtype, pass, w, NULL, 3, &packed)) die("no memory", "pack");
    return packed;
}

/* A name with its state's in it, until the next call. */
static const char *label(const char *format, const char *state)
{
    static char text[32];
    snprintf(text, sizeof text, format, state);
    return text;
}

/* Every sequence of a call of stacked layers, step by step through a stream, in a block of state that ends at the end
 * of its page. calls: with their results. */
static void stream(const fastrnn_isa *isa, fastrnn_dtype dtype, const fastrnn_weights *weights,
                   const fastrnn_forward_args *calls, int layers, const char *problem)
{
    const size_t e = dtype == FASTRNN_F32 ? sizeof(float) : sizeof(double);
    const fastrnn_forward_args *top = &calls[layers - 1];
    fastrnn_stream *s = NULL;
    if (fastrnn_stream_pack(isa, dtype, weights, layers, &s)) die("no stream", problem);
    const ptrdiff_t I = fastrnn_stream_inputs(s), P = fastrnn_stream_outputs(s);
    const int states = fastrnn_cell_at(weights->cell).states;
    char *state = new_block(fastrnn_stream_state_bytes(s)), *y = new_block((size_t)P * e), *end = new_block(1024);
    for (ptrdiff_t b = 0; b < top->B; b++) {
        fastrnn_stream_reset(s, state);
        for (int k = 0; k < layers; k++)
            for (int n = 0; n < states; n++)
                fastrnn_stream_set_state(s, state, k, n,
                                         (const char *)calls[k].state_0[n] + (size_t)(b * (n ? weights->H : P)) * e);
        for (ptrdiff_t t = 0; t < top->T; t++) {
            if (top->offsets && b >= top->offsets[t + 1] - top->offsets[t]) break;
            const ptrdiff_t row = (top->offsets ? top->offsets[t] : t * top->B) + b;
            if (top->resets && top->resets[row]) fastrnn_stream_reset(s, state);
            fastrnn_stream_step(s, state, (const char *)calls->x + (size_t)(row * I) * e, y);
            if (memcmp(y, (const char *)top->output + (size_t)(row * P) * e, (size_t)P * e))
                die("another output of a stream", problem);
        }
        for (int k = 0; k < layers; k++)
            for (int n = 0; n < states; n++) {
                const size_t bytes = (size_t)(n ? weights->H : P) * e;
                fastrnn_stream_get_state(s, state, k, n, end);
                if (memcmp(end, (const char *)calls[k].state_n[n] + (size_t)b * bytes, bytes))
                    die("another state of a stream", problem);
            }
    }
    fastrnn_stream_free(s);
}

/* projection: P, or 0 for none. biases: 1 of the input, 2 recurrent, 3 both. */
static void run(const fastrnn_isa *isa, fastrnn_cell cell, fastrnn_dtype dtype, shape s, ptrdiff_t projection,
                int biases, int layers, int options, int values)
{
    static const char *const names[FASTRNN_MOST_STATES] = {"h", "c", "n", "m"};
    enum { MOST = 3 };
    const fastrnn_cell_properties properties = fastrnn_cell_at(cell);
    const size_t e = dtype == FASTRNN_F32 ? sizeof(float) : sizeof(double);
    const int stacked = (options & STACKED) != 0, ragged = (options & RAGGED) != 0;
    const ptrdiff_t T = s.T, B = s.B, H = s.H, P = projection ? projection : H, G = properties.gates * H;
    const ptrdiff_t heads = options & HEADS ? 3 : 1, S = P / heads;
    char problem[96];
    snprintf(problem, sizeof problem, "%s.%s.T%td.B%td.I%td.H%td.P%td.b%d.x%d%s%s%s%s%s%s", properties.name,
             e == sizeof(float) ? "f32" : "f64", T, B, s.I, H, projection, biases, layers,
             options & PEEPHOLE ? ".peephole" : "", ragged ? ".ragged" : "", stacked ? ".stacked" : "",
             options & TINY ? ".tiny" : "", options & RESETS ? ".resets" : "", heads > 1 ? ".heads" : "");
    const double scale = options & TINY ? (e == sizeof(float) ? 0x1p-75 : 0x1p-520) : 1;
    seed = 1;

    /* Sequence b has T - b * T / B steps or, with an odd T, none at the end. */
    ptrdiff_t offsets[200] = {0};
    for (ptrdiff_t t = 0; t < T; t++) {
        offsets[t + 1] = offsets[t];
        for (ptrdiff_t b = 0; b < B; b++) offsets[t + 1] += !ragged || t < T - (b + T % 2) * T / B;
    }
    const ptrdiff_t N = offsets[T];
    double *written = ragged ? (double *)new_array("offsets", 0, 1, T + 1, sizeof(double)) : NULL;
    for (ptrdiff_t t = 0; ragged && t <= T; t++) written[t] = (double)offsets[t];

    double *flags = options & RESETS ? given("resets", 0, 1, N, sizeof(double), 1) : NULL;
    uint8_t resets[400] = {0};
    for (ptrdiff_t r = 0; flags && r < N; r++) resets[r] = (uint8_t)(flags[r] = flags[r] > 0.4);

    fastrnn_weights weights[MOST] = {{0}};
    fastrnn_forward_args forward[MOST] = {{0}}, inference[MOST];
    fastrnn_backward_args backward[MOST] = {{0}};
    for (int k = 0; k < layers; k++) {
        const ptrdiff_t I = stacked && k > 0 ? P : s.I;
        fastrnn_weights *w = &weights[k];
        w->cell = cell, w->I = I, w->H = H, w->P = P, w->heads = heads;
        w->weight_ih = given("weight_ih", k, G, I, e, bound(I + P));
        w->weight_hh = given("weight_hh", k, G, S, e, bound(I + P));
        w->bias_ih = biases & 1 ? given("bias_ih", k, 1, G, e, 0.5 * scale) : NULL;
        w->bias_hh = biases & 2 ? given("bias_hh", k, 1, G, e, 0.5 * scale) : NULL;
        w->weight_hr = projection ? given("weight_hr", k, P, H, e, bound(H)) : NULL;
        w->peephole = options & PEEPHOLE ? given("weight_peephole", k, properties.peepholes, H, e, 0.5) : NULL;

        fastrnn_forward_args *f = &forward[k];
        f->T = T, f->B = B, f->offsets = ragged ? offsets : NULL, f->resets = flags ? resets : NULL;
        f->x = stacked && k > 0 ? forward[k - 1].output : given("x", k, N, I, e, scale);
        for (int n = 0; n < properties.states; n++) {
            char *state = given(label("%s_0", names[n]), k, B, n ? H : P, e, scale);
            if (*names[n] == 'n') make_normalizer(state, B, H, e, scale);
            f->state_0[n] = state;
        }
        f->output = room("output", k, N, P, e);
        for (int n = 0; n < properties.states; n++) f->state_n[n] = room(label("%s_n", names[n]), k, B, n ? H : P, e);
        inference[k] = *f;
        const fastrnn_tape at = fastrnn_tape_layout(dtype, cell, N, H, projection);
        char *tape = new_block(at.bytes);
        f->tape = tape;
        part_of_tape("gates", k, tape, at.gates, N, G, e);
        for (int n = properties.states - 1; n >= 0; n--)
            part_of_tape(label("tape_%s", names[n]), k, tape, at.states[n], N, n ? H : P, e);
        part_of_tape("intermediate", k, tape, at.intermediate, N, H, e);

        inference[k].output = room("inferred_output", k, N, P, e);
        for (int n = 0; n < properties.states; n++)
            inference[k].state_n[n] = room(label("inferred_%s_n", names[n]), k, B, n ? H : P, e);
        if (stacked && k > 0) inference[k].x = inference[k - 1].output;
    }
    for (int k = 0; k < layers; k++) { /* backward, the top layer first */
        const int layer = stacked ? layers - 1 - k : k;
        const fastrnn_forward_args *f = &forward[layer];
        const fastrnn_weights *w = &weights[layer];
        fastrnn_backward_args *b = &backward[k];
        b->T = T, b->B = B, b->offsets = f->offsets, b->resets = f->resets;
        b->x = f->x, b->tape = f->tape;
        b->d_output = stacked && k > 0 ? backward[k - 1].d_x : given("d_output", layer, N, P, e, scale);
        for (int n = 0; n < properties.states; n++) {
            b->state_0[n] = f->state_0[n];
            b->d_state_n[n] = given(label("d_%s_n", names[n]), layer, B, n ? H : P, e, scale);
        }
        b->d_x = room("d_x", layer, N, w->I, e);
        for (int n = 0; n < properties.states; n++)
            b->d_state_0[n] = room(label("d_%s_0", names[n]), layer, B, n ? H : P, e);
        b->d_weight_ih = room("d_weight_ih", layer, G, w->I, e);
        b->d_weight_hh = room("d_weight_hh", layer, G, S, e);
        b->d_bias_ih = w->bias_ih ? room("d_bias_ih", layer, 1, G, e) : NULL;
        b->d_bias_hh = w->bias_hh ? room("d_bias_hh", layer, 1, G, e) : NULL;
        b->d_weight_hr = w->weight_hr ? room("d_weight_hr", layer, P, H, e) : NULL;
        b->d_peephole = w->peephole ? room("d_weight_peephole", layer, properties.peepholes, H, e) : NULL;
    }

    fastrnn_workspace *workspace = fastrnn_workspace_create();
    fastrnn_packed *packed[2 * MOST];
    enter_caller();
    for (int k = 0; k < layers; k++) {
        inference[k].packed = forward[k].packed = packed[k] = pack(isa, dtype, FASTRNN_FORWARD, &weights[k]);
        const int layer = stacked ? layers - 1 - k : k;
        backward[k].packed = packed[layers + k] = pack(isa, dtype, FASTRNN_BACKWARD, &weights[layer]);
    }
    if (fastrnn_forward(inference, layers, stacked, workspace, NULL, 1) ||
        fastrnn_forward(forward, layers, stacked, workspace, NULL, 3) ||
        fastrnn_backward(backward, layers, stacked, workspace, NULL, 3))
        die("no memory", problem);
    if (stacked)
        stream(isa, dtype, weights, inference, layers, problem);
    else
        for (int k = 0; k < layers; k++) stream(isa, dtype, &weights[k], &inference[k], 1, problem);
    leave_caller(problem);
    for (int k = 0; k < 2 * layers; k++) fastrnn_packed_free(packed[k]);
    fastrnn_workspace_free(workspace);
    write_arrays(fastrnn_isa_name(isa), problem, values);
    free_arrays();
}

/* A weight of random numbers, a fifth of them small, rounded to a format, and the scales of its rows or NULL. */
static void *narrow_weight(const char *name, fastrnn_format format, ptrdiff_t rows, ptrdiff_t columns,
                           const float **scales)
{
    const fastrnn_format_properties properties = fastrnn_format_at(format);
    const size_t element = (size_t)(properties.numbers[1] - '0');
    float *weight = given(label("weight_%s", name), 0, rows, columns, sizeof(float), 0.5);
    for (ptrdiff_t k = 0; k < rows * columns; k += 5) weight[k] *= 0x1p-15f;
    float *of_rows = NULL;
    if (properties.has_scales) of_rows = room(label("scale_%s", name), 0, 1, rows, sizeof(float));
    void *values = new_block((size_t)(rows * columns) * element);
    enter_caller();
    const fastrnn_fit fit = fastrnn_round_weight(format, rows, columns, weight, values, of_rows, 3);
    leave_caller(name);
    if (fit != FASTRNN_FITS) die("does not fit", name);
    *scales = of_rows;
    return values;
}

/* Inference with weights of a format, by all instructions that it has here: the same bits. */
static void narrow(const fastrnn_isa *isa, fastrnn_cell cell, fastrnn_format format, shape s, ptrdiff_t projection,
                   int options, int values)
{
    static const char *const names[FASTRNN_MOST_STATES] = {"h", "c", "n", "m"};
    const fastrnn_cell_properties properties = fastrnn_cell_at(cell);
    const size_t e = sizeof(float);
    const ptrdiff_t T = s.T, B = s.B, H = s.H, P = projection ? projection : H, G = properties.gates * H;
    const ptrdiff_t heads = options & HEADS ? 3 : 1;
    char problem[96];
    snprintf(problem, sizeof problem, "%s.%s.f32.T%td.B%td.I%td.H%td.P%td%s%s", fastrnn_format_at(format).name,
             properties.name, T, B, s.I, H, projection, options & RESETS ? ".resets" : "", heads > 1 ? ".heads" : "");
    seed = 1;
    uint8_t resets[400] = {0};
    for (ptrdiff_t r = 0; options & RESETS && r < T * B; r++) resets[r] = r % 3 == 0;
    fastrnn_weights w = {.cell = cell, .I = s.I, .H = H, .P = P, .heads = heads, .format = format};
    w.weight_ih = narrow_weight("ih", format, G, s.I, &w.scale_ih);
    w.weight_hh = narrow_weight("hh", format, G, P / heads, &w.scale_hh);
    if (projection)
        w.weight_hr = fastrnn_format_at(format).rounds_projection ? narrow_weight("hr", format, P, H, &w.scale_hr)
                                                                  : given("weight_hr", 0, P, H, e, 0.5);
    w.bias_ih = given("bias_ih", 0, 1, G, e, 0.5);
    w.bias_hh = given("bias_hh", 0, 1, G, e, 0.5);
    fastrnn_forward_args args = {.T = T, .B = B, .resets = options & RESETS ? resets : NULL};
    args.x = given("x", 0, T * B, s.I, e, 1);
    for (int n = 0; n < properties.states; n++) {
        char *state = given(label("%s_0", names[n]), 0, B, n ? H : P, e, options & RESETS ? 2 : 1);
        if (*names[n] == 'n') make_normalizer(state, B, H, e, 1);
        args.state_0[n] = state;
    }
    args.output = room("output", 0, T * B, P, e);
    for (int n = 0; n < properties.states; n++) args.state_n[n] = room(label("%s_n", names[n]), 0, B, n ? H : P, e);
    fastrnn_forward_args again = args;
    again.output = memset(new_block((size_t)(T * B * P) * e), 0xff, (size_t)(T * B * P) * e);
    fastrnn_workspace *workspace = fastrnn_workspace_create();
    for (int k = 0; (w.instructions = fastrnn_narrow_instructions(isa, format, k)); k++)
        for (int threads = 1; threads <= 3; threads += 2) {
            fastrnn_forward_args *one = k || threads > 1 ? &again : &args;
            enter_caller();
            fastrnn_packed *packed = pack(isa, FASTRNN_F32, FASTRNN_FORWARD, &w);
            one->packed = packed;
            if (fastrnn_forward(one, 1, 0, workspace, NULL, threads)) die("no memory", problem);
            leave_caller(problem);
            if (one == &again && memcmp(args.output, again.output, (size_t)(T * B * P) * e))
                die(w.instructions, problem);
            fastrnn_packed_free(packed);
        }
    fastrnn_workspace_free(workspace);
    write_arrays(fastrnn_isa_name(isa), problem, values);
    free_arrays();
}

static void narrow_all(const fastrnn_isa *isa, int values)
{
    /* Around the groups of a product (2 and 4 columns), the lines of an operand (16 to 64), and the tiles of AMX. */
    static const shape shapes[] = {
        {1, 1, 1, 1},   {2, 2, 3, 3},   {2, 3, 5, 4},    {3, 4, 15, 16},  {2, 5, 17, 17},
        {1, 6, 31, 32}, {2, 9, 33, 31}, {1, 16, 63, 15}, {2, 17, 64, 33}, {1, 33, 65, 40},
        {2, 1, 0, 20},  {0, 2, 3, 4},   {2, 0, 3, 4},    {1, 1, 130, 70},
    };
    enum { SHAPES = sizeof shapes / sizeof shapes[0] };
    for (fastrnn_format format = FASTRNN_INT8; (int)format < FASTRNN_FORMATS; format++)
        for (fastrnn_cell cell = 0; fastrnn_cell_at(cell).name; cell++) {
            for (int k = 0; k < SHAPES; k++) narrow(isa, cell, format, shapes[k], 0, 0, values);
            narrow(isa, cell, format, (shape){8, 5, 7, 40}, 0, RESETS, values);
            narrow(isa, cell, format, (shape){3, 3, 5, 6}, 0, HEADS, values);
            narrow(isa, cell, format, (shape){2, 16, 5, 96}, 0, HEADS, values);
            if (cell != fastrnn_find_cell("lstm")) continue;
            narrow(isa, cell, format, (shape){3, 11, 6, 18}, 5, 0, values);
            narrow(isa, cell, format, (shape){2, 7, 6, 10}, 21, 0, values);
            narrow(isa, cell, format, (shape){5, 4, 6, 33}, 17, RESETS, values);
        }
}

static void activate(const fastrnn_isa *isa, fastrnn_dtype dtype, fastrnn_function function, int values)
{
    static const char *const names[] = {"sigmoid", "tanh", "log_sigmoid"};
    enum { MAGNITUDES = 40, EACH = 101 }; /* bounds from 2^-30 to 2^9 */
    const size_t e = dtype == FASTRNN_F32 ? sizeof(float) : sizeof(double);
    char problem[32];
    snprintf(problem, sizeof problem, "%s.%s", names[function], e == sizeof(float) ? "f32" : "f64");
    seed = 1;
    double magnitude = 0x1p-30;
    for (int k = 0; k < MAGNITUDES; k++, magnitude *= 2) {
        const void *x = given("x", k, 1, EACH, e, magnitude);
        void *y = room("y", k, 1, EACH, e), *nearest = room("nearest", k, 1, EACH, e);
        enter_caller();
        fastrnn_activate(isa, dtype, function, EACH, x, y);
        leave_caller(problem);
        fastrnn_activate(isa, dtype, function, EACH, x, nearest);
        if (memcmp(y, nearest, EACH * e)) die("the rounding mode shows", problem);
    }
    write_arrays(fastrnn_isa_name(isa), problem, values);
    free_arrays();
}

/* Of words rather than bytes, so that the order of bytes does not show; row n: a hash of n words, 16 bits a number. */
static void fingerprint(const fastrnn_isa *isa, int values)
{
    enum { MOST_WORDS = 300 };
    uint64_t key[FASTRNN_KEY_WORDS], words[MOST_WORDS];
    seed = 1;
    for (int k = 0; k < FASTRNN_KEY_WORDS; k++)
        key[k] = seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    for (int k = 0; k < MOST_WORDS; k++)
        words[k] = seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    double *hashes = room("hashes", 0, MOST_WORDS + 1, 4, sizeof(double));
    for (int n = 0; n <= MOST_WORDS; n++) {
        const uint64_t hash = fastrnn_fingerprint(key, words, (size_t)n * sizeof words[0]);
        for (int part = 0; part < 4; part++) hashes[4 * n + part] = (double)(hash >> (16 * part) & 0xffff);
    }
    write_arrays(fastrnn_isa_name(isa), "fingerprint", values);
    free_arrays();
}

/* Three steps of each optimizer and the norm of its gradients, around the widths of vectors. */
static void optimize(const fastrnn_isa *isa, fastrnn_dtype dtype, int values)
{
    static const ptrdiff_t sizes[] = {0, 1, 3, 15, 16, 17, 40000};
    enum { SIZES = sizeof sizes / sizeof sizes[0] };
    const size_t e = dtype == FASTRNN_F32 ? sizeof(float) : sizeof(double);
    char problem[32];
    snprintf(problem, sizeof problem, "optimizer.%s", e == sizeof(float) ? "f32" : "f64");
    seed = 1;
    for (int k = 0; k < SIZES; k++) {
        const ptrdiff_t n = sizes[k];
        void *p[3], *g = given("g", k, 1, n, e, 1), *state[4];
        for (int i = 0; i < 3; i++) p[i] = given("p", 10 * k + i, 1, n, e, 1);
        for (int i = 0; i < 4; i++) state[i] = memset(room("state", 10 * k + i, 1, n, e), 0, (size_t)n * e);
        void *buffer = room("buffer", k, 1, n, e);
        double *sums = room("sums", k, 1, n / FASTRNN_SQUARES_BLOCK + 1, sizeof(double));
        double *norm = room("norm", k, 1, 1, sizeof(double));
        memset(sums, 0, (size_t)(n / FASTRNN_SQUARES_BLOCK + 1) * sizeof(double));
        enter_caller();
        for (int step = 1; step <= 3; step++) {
            const fastrnn_sgd sgd = {0.1, 0.9, 0, 0.01, step == 2, step == 1};
            const fastrnn_adam adam = {0.1, 0.9, 0.999, 1e-8, 0.01, 0, step},
                               adamw = {0.1, 0.9, 0.99, 1e-3, 0.1, 1, step};
            fastrnn_sgd_step(isa, dtype, &sgd, n, p[0], g, buffer, 0);
            fastrnn_adam_step(isa, dtype, &adam, n, p[1], g, state[0], state[1], 0);
            fastrnn_adam_step(isa, dtype, &adamw, n, p[2], g, state[2], state[3], 0);
        }
        *norm = fastrnn_sum_squares(isa, dtype, n, g, sums, 0);
        fastrnn_scale(isa, dtype, n, 0.3, g, 0);
        leave_caller(problem);
    }
    write_arrays(fastrnn_isa_name(isa), problem, values);
    free_arrays();
}

static void run_all(const fastrnn_isa *isa, int values)
{
    fingerprint(isa, values);
    narrow_all(isa, values);
    /* Around the widths of vectors (2, 4, 8, 16), panels (4 to 32), blocks (8 to 32) and row tiles (4, 6, 10, 14). */
    static const shape shapes[] = {
        {3, 1, 5, 1},    {2, 2, 4, 2},  {2, 3, 3, 3},    {3, 4, 1, 4},    {2, 5, 7, 5},   {2, 6, 8, 7},
        {2, 9, 9, 8},    {3, 10, 2, 9}, {2, 11, 16, 15}, {1, 13, 17, 16}, {2, 14, 5, 17}, {2, 15, 31, 31},
        {1, 29, 33, 33}, {5, 2, 0, 20}, {0, 2, 3, 4},    {2, 0, 3, 4},    {1, 1, 40, 70},
    };
    enum { SHAPES = sizeof shapes / sizeof shapes[0] };
    const fastrnn_cell lstm = fastrnn_find_cell("lstm");
    for (int d = 0; d < 2; d++) {
        const fastrnn_dtype dtype = d ? FASTRNN_F64 : FASTRNN_F32;
        activate(isa, dtype, FASTRNN_ACTIVATE_SIGMOID, values);
        activate(isa, dtype, FASTRNN_ACTIVATE_TANH, values);
        activate(isa, dtype, FASTRNN_ACTIVATE_LOG_SIGMOID, values);
        optimize(isa, dtype, values);
        for (fastrnn_cell cell = 0; fastrnn_cell_at(cell).name; cell++) {
            for (int k = 0; k < SHAPES; k++) run(isa, cell, dtype, shapes[k], 0, k % 4, 1, 0, values);
            run(isa, cell, dtype, (shape){7, 13, 6, 11}, 0, 3, 1, RAGGED, values);
            run(isa, cell, dtype, (shape){9, 5, 6, 19}, 0, 3, 3, STACKED, values);
            run(isa, cell, dtype, (shape){9, 5, 6, 19}, 0, 3, 2, RAGGED, values); /* the directions of a layer */
            run(isa, cell, dtype, (shape){13, 6, 20, 24}, 0, 3, 3, STACKED | RAGGED, values);
            run(isa, cell, dtype, (shape){6, 9, 12, 13}, 0, 3, 1, TINY, values);
            run(isa, cell, dtype, (shape){9, 7, 6, 19}, 0, 3, 3, STACKED | RAGGED | RESETS, values);
            run(isa, cell, dtype, (shape){8, 5, 7, 40}, 0, 3, 2, RESETS, values);
            run(isa, cell, dtype, (shape){4, 3, 5, 6}, 0, 3, 1, HEADS, values);
            run(isa, cell, dtype, (shape){4, 16, 5, 96}, 0, 3, 1, HEADS, values);
            run(isa, cell, dtype, (shape){9, 6, 5, 51}, 0, 3, 2, HEADS | STACKED | RAGGED, values);
        }
        run(isa, lstm, dtype, (shape){4, 24, 30, 64}, 0, 3, 1, 0, values);  /* enough for a team */
        run(isa, lstm, dtype, (shape){1, 15, 2100, 3}, 0, 3, 1, 0, values); /* parts of a sum: over inputs, */
        run(isa, lstm, dtype, (shape){150, 15, 2, 3}, 0, 3, 1, 0, values);  /* over steps and sequences */
        run(isa, lstm, dtype, (shape){90, 15, 2, 3}, 2, 3, 1, PEEPHOLE | RAGGED, values); /* in blocks, */
        run(isa, fastrnn_find_cell("rnn_tanh"), dtype, (shape){180, 190, 1, 2}, 0, 3, 1, 0,
            values); /* in groups of them */
        run(isa, lstm, dtype, (shape){3, 11, 6, 18}, 0, 3, 1, PEEPHOLE, values);
        run(isa, lstm, dtype, (shape){3, 11, 6, 18}, 5, 3, 1, 0, values);
        run(isa, lstm, dtype, (shape){3, 7, 6, 10}, 21, 0, 1, PEEPHOLE, values);
        run(isa, lstm, dtype, (shape){5, 12, 6, 33}, 17, 2, 1, PEEPHOLE | RAGGED, values);
        run(isa, lstm, dtype, (shape){12, 4, 6, 21}, 9, 3, 3, PEEPHOLE | STACKED | RAGGED, values);
        run(isa, lstm, dtype, (shape){12, 4, 6, 21}, 9, 3, 1, PEEPHOLE | RESETS, values);
    }
}

int main(int argc, char **argv)
{
    const int values = argc == 2 && !strcmp(argv[1], "--values");
    if (argc > 1 && !values) die("the only argument there is", "--values");
    const fastrnn_isa *isa;
    for (int k = 0; (isa = fastrnn_isa_at(k)); k++)
        if (fastrnn_isa_is_supported(isa)) run_all(isa, values);
    return fflush(stdout) || ferror(stdout) ? 1 : 0;
}
