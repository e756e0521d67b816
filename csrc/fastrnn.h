/* fastrnn: fused recurrent kernels. This header is the manual of the C interface; it needs neither Python nor NumPy.
 *
 * Arrays are row-major, contiguous and of one precision, `real` below: float for FASTRNN_F32, double for FASTRNN_F64.
 * T time steps, B sequences, I inputs, H hidden units; each may be 0, except H. P is the number of columns of h: H,
 * or another number with a recurrent projection. G = gates * H rows of weights. The equations are in kernels/cells/.
 *
 * N is the number of rows of all steps: T * B, or less in a ragged batch. A ragged batch has the packed ragged layout,
 * PyTorch's PackedSequence: the sequences are sorted by length, the longest first; step t has the batch_sizes[t]
 * sequences with length > t, one row each, in that order; the rows of step t follow those of step t - 1.
 *
 * The gradients of the weights are sums over rows. So that their rounding errors do not grow with N, the sums are made
 * in blocks: counted from the last row to the first, 512 rows are a block, 64 blocks a group, 64 groups a group of the
 * next level, and so on; the last one of each level may have fewer. A block is a running sum of its rows in that order,
 * from 0; a group is a running sum of its blocks; the gradient is a running sum of the groups of the highest level.
 *
 * Outputs do not overlap other arrays unless a comment says so. Inputs are only read, and may overlap each other. A
 * call keeps no pointer. Any number of threads may call at once. Each function that computes sets the floating-point
 * mode of its threads (round to nearest, no exception, and on x86-64 and AArch64 denormals are zero) and restores it
 * before it returns.
 *
 * Every number of a result is a sum in one fixed order, with fused multiply-add. It depends on its inputs alone: not on
 * threads, and not on the instruction set (except `generic`). It does not depend on B or on how T is cut into calls,
 * either; only gradients of weights do, which are sums over time and B. A NaN stays a NaN in all these cases, but its
 * sign and payload may differ; and a product that only rounding makes the smallest normal number is 0 on AArch64. */
#ifndef FASTRNN_H
#define FASTRNN_H

#include <stddef.h>
#include <stdint.h>

/* In this header I is the number of inputs. <complex.h>, which NumPy's headers include, has a macro of this name. */
#undef I

#ifdef __cplusplus
extern "C" {
#endif

/* With -fvisibility=hidden -DFASTRNN_SHARED, a shared library exports the functions between these two lines of a
 * header, and no other. */
#if defined(FASTRNN_SHARED) && defined(__GNUC__) && !defined(_WIN32)
#define FASTRNN_PUBLIC_BEGIN _Pragma("GCC visibility push(default)")
#define FASTRNN_PUBLIC_END _Pragma("GCC visibility pop")
#else
#define FASTRNN_PUBLIC_BEGIN
#define FASTRNN_PUBLIC_END
#endif

FASTRNN_PUBLIC_BEGIN

/* The version of the library and the version of its binary interface; docs/c.md explains when each changes. The
 * functions return the versions of the running library. It is compatible with a program compiled for the same ABI. */
#define FASTRNN_VERSION "0.1.0"
#define FASTRNN_ABI 1
const char *fastrnn_version(void);
int fastrnn_abi(void);

typedef enum { FASTRNN_F32 = 0, FASTRNN_F64 = 1 } fastrnn_dtype;

/* How weights are stored. The formats of fewer bits are for forward calls in FASTRNN_F32; all arrays but the weights
 * are then floats. See kernels/narrow.h. */
typedef enum {
    FASTRNN_NATIVE = 0, /* numbers of the call's precision */
    FASTRNN_INT8 =
        1, /* int8_t, each row with a scale: scale * number. Sums are exact up to FASTRNN_MOST_INT8 columns */
    FASTRNN_FLOAT16 = 2,  /* the 16 bits of IEEE 754 binary16 */
    FASTRNN_BFLOAT16 = 3, /* the first 16 bits of a float */
    FASTRNN_FLOAT8 = 4,   /* a sign, 4 bits of the exponent, 3 of the mantissa, no infinities: E4M3FN of ONNX. Each row
                             with a scale, a power of two: scale * number */
} fastrnn_format;
enum { FASTRNN_FORMATS = 5, FASTRNN_MOST_INT8 = 130000 };

/* The properties of a format of fewer bits that decide the arrays of weights. */
typedef struct {
    const char *name;       /* "int8", for example; NULL for FASTRNN_NATIVE and for a number that is no format */
    const char *numbers;    /* the numbers of weights, as NumPy calls them: "i1", "f2", "u2" or "u1" */
    int has_scales;         /* whether each row of a weight has a scale */
    int rounds_projection;  /* whether weight_hr has such numbers, too; else it has floats, because rounding it would
                               add an error to h_t nearly as large as all others together */
    ptrdiff_t most_columns; /* of a weight */
} fastrnn_format_properties;
fastrnn_format_properties fastrnn_format_at(fastrnn_format); /* all 0 for FASTRNN_NATIVE and past the last */

typedef enum {
    FASTRNN_OK = 0,
    FASTRNN_OUT_OF_MEMORY = 1, /* or a size that no memory could hold; nothing was written */
    FASTRNN_INTERRUPTED = 2,
    FASTRNN_INVALID = 3, /* of fastrnn_stream_pack: arguments that fit no stream */
} fastrnn_status;

/* An instruction set: its kernels. All are constants of the library. */
typedef struct fastrnn_isa fastrnn_isa;

const fastrnn_isa *fastrnn_isa_at(int index);      /* those built in, the slowest first; NULL past the last */
const char *fastrnn_isa_name(const fastrnn_isa *); /* "generic", "avx2", "avx512", "neon" */
int fastrnn_isa_is_supported(const fastrnn_isa *); /* by this processor and its operating system */

/* Whether the library was built with helper threads. threadpoolctl recognizes the library by this symbol, the only one
 * that an extension built with -fvisibility=hidden exports. */
#if defined(_WIN32)
__declspec(dllexport)
#elif defined(__GNUC__)
__attribute__((visibility("default")))
#endif
int fastrnn_has_threads(void);
const char *fastrnn_compiler(void); /* the name and version of the compiler that built the library */

/* Cells have names: "lstm", "gru", ... fastrnn_cell_at() lists them, from cell 0 on. */
typedef int fastrnn_cell;
fastrnn_cell fastrnn_find_cell(const char *name); /* -1 for an unknown name */

enum { FASTRNN_MOST_STATES = 4, FASTRNN_MOST_CELLS = 16 };

/* The properties of a cell that decide the shapes of arrays. State 0 is h, with P columns; each other state has H
 * columns. */
typedef struct {
    const char *name; /* NULL for a number that is no cell */
    int gates;        /* rows of weight_ih and of weight_hh for each hidden unit */
    int states;       /* at most FASTRNN_MOST_STATES */
    int peepholes;    /* rows of the peephole weights; 0: the cell has none */
} fastrnn_cell_properties;
fastrnn_cell_properties fastrnn_cell_at(fastrnn_cell); /* all 0 for a number that is no cell */

/* Options of a cell's activations. */
typedef enum {
    FASTRNN_SIGMOID = 0,
    FASTRNN_HARD_SIGMOID_FIFTH = 1, /* x / 5 + 1/2 between 0 and 1 */
    FASTRNN_HARD_SIGMOID_SIXTH = 2, /* x / 6 + 1/2 between 0 and 1 */
} fastrnn_recurrent_activation;
typedef enum { FASTRNN_TANH = 0, FASTRNN_RELU = 1 } fastrnn_activation;
typedef struct {
    fastrnn_recurrent_activation recurrent_activation; /* of the gates */
    fastrnn_activation activation; /* of the LSTM's g and c_t, of the GRU's n; the RNN has a cell for each */
    double clip;                   /* bounds the sums that enter the gates and g or n to [-clip, clip]; 0: no bound */
} fastrnn_options;

/* Packed weights: a copy in the order in which the kernels of one instruction set and precision read them. Any number
 * of calls may use one at the same time. */
typedef struct fastrnn_packed fastrnn_packed;
typedef enum { FASTRNN_FORWARD = 0, FASTRNN_BACKWARD = 1 } fastrnn_pass;

typedef struct {
    fastrnn_cell cell;
    fastrnn_options options;
    ptrdiff_t I, H, P;
    ptrdiff_t heads;               /* divides H; 1, or 0, with a projection */
    const void *weight_ih;         /* (G, I); NULL in packing for backward: then its calls have no d_x */
    const void *weight_hh;         /* (G, P / heads): row j of a gate meets the units of h of its own head,
                                      j / (H / heads). So the recurrence is block-diagonal; 0 or 1 head: dense */
    const void *bias_ih, *bias_hh; /* (G), each may be NULL for zeros */
    const void *weight_hr;         /* (P, H); NULL for no recurrent projection, and then P is H */
    const void *peephole;          /* (peepholes, H), the LSTM's of i, f and o; or NULL */
    fastrnn_format format;         /* of weight_ih, weight_hh and, if it rounds projections, weight_hr; the other arrays
                                      are of the call's precision */
    const float *scale_ih, *scale_hh, *scale_hr; /* (G), (G), (P): of the rows, if the format has them */
    const char *instructions;                    /* of fastrnn_narrow_instructions(): to use where the format
                                                     has them; NULL: the fastest */
} fastrnn_weights;

/* The instructions that the products of a format may use on this processor, the fastest first; NULL past the last and
 * for FASTRNN_NATIVE. No result depends on them. */
const char *fastrnn_narrow_instructions(const fastrnn_isa *, fastrnn_format, int index);

/* Rounds a weight (rows, columns) to a format of fewer bits, to the nearest numbers, ties to even. Written: values
 * (rows, columns), the numbers of the format, and scales (rows) if it has scales. The result says whether the format
 * can express every number of the weight, or why not; then the numbers written are of no use. No bit depends on
 * threads. */
typedef enum {
    FASTRNN_FITS = 0,
    FASTRNN_NOT_FINITE = 1, /* int8, float8: a number is not finite */
    FASTRNN_TOO_LARGE = 2,  /* float16, bfloat16: a finite number would become an infinity. float8: it is larger than
                               1.75 * 2^127, so that the scale would be */
} fastrnn_fit;
fastrnn_fit fastrnn_round_weight(fastrnn_format, ptrdiff_t rows, ptrdiff_t columns, const float *weight, void *values,
                                 float *scales, int threads);

/* Cancellation. should_cancel is polled about every 50 ms, from the calling thread; non-zero cancels the call, which
 * returns FASTRNN_INTERRUPTED with unfinished results. */
typedef struct {
    int (*should_cancel)(void *context);
    void *context;
} fastrnn_interruption;

/* Packs weights for one pass. *packed before: NULL, or packed weights that no call uses, whose memory is reused if it
 * is large enough and freed otherwise. This is also true of *packed after a cancellation. interruption: may be NULL. */
fastrnn_status fastrnn_pack(const fastrnn_isa *, fastrnn_dtype, fastrnn_pass, const fastrnn_weights *,
                            const fastrnn_interruption *, int threads, fastrnn_packed **packed);
size_t fastrnn_packed_bytes(const fastrnn_packed *); /* 0 for NULL */
void fastrnn_packed_free(fastrnn_packed *);          /* NULL is ignored */

/* The tape: one block of memory in which forward saves the activations of N rows for backward. Every byte is written.
 * The fields are the offsets of its arrays in bytes; SIZE_MAX for an array that the cell does not save. The block is
 * aligned as `real`; alignment to 64 bytes is faster. */
typedef struct {
    size_t bytes;                       /* SIZE_MAX: more than a size_t can hold */
    size_t gates;                       /* (N, G): the gates after their activation, see fastrnn_gate_columns */
    size_t states[FASTRNN_MOST_STATES]; /* (N, P) of h, (N, H) of the others */
    size_t intermediate;                /* (N, H): a further result of a step that the backward of the cell needs */
} fastrnn_tape;
fastrnn_tape fastrnn_tape_layout(fastrnn_dtype, fastrnn_cell, ptrdiff_t N, ptrdiff_t H,
                                 ptrdiff_t projection); /* P, or 0 for none */

/* columns (G) written: columns[g * H + j] is the column of gate g of hidden unit j in the tape's gates. */
void fastrnn_gate_columns(fastrnn_dtype, fastrnn_cell, ptrdiff_t H, ptrdiff_t *columns);

typedef struct {
    ptrdiff_t T, B;
    const ptrdiff_t *offsets;                 /* (T + 1) the first row of each step, then N; or NULL: B rows a step */
    const uint8_t *resets;                    /* (N) or NULL: 1 if the states become zeros before the row's step */
    const fastrnn_packed *packed;             /* for forward: decides cell, I, H, P, instruction set and precision */
    const void *x;                            /* (N, I) */
    const void *state_0[FASTRNN_MOST_STATES]; /* (B, P) and (B, H): the states before the first step */
    void *output;                             /* (N, P) written: h_t */
    void *state_n[FASTRNN_MOST_STATES];       /* (B, P) and (B, H) written: the states after each sequence's last step,
                                                 state_0 of a sequence without a step; they may be state_0 themselves */
    void *tape;                               /* written; NULL for inference */
} fastrnn_forward_args;

typedef struct {
    ptrdiff_t T, B;
    const ptrdiff_t *offsets;                   /* as for forward */
    const uint8_t *resets;                      /* as for forward */
    const fastrnn_packed *packed;               /* for backward: the weights of the forward call */
    const void *x;                              /* (N, I), as forward had it */
    const void *state_0[FASTRNN_MOST_STATES];   /* (B, P) and (B, H), as forward had them */
    const void *tape;                           /* as forward left it */
    const void *d_output;                       /* (N, P) or NULL for zeros */
    const void *d_state_n[FASTRNN_MOST_STATES]; /* (B, P) and (B, H), each may be NULL for zeros */
    void *d_x;                                  /* (N, I) written; or NULL */
    void *d_state_0[FASTRNN_MOST_STATES];       /* (B, P) and (B, H) written */
    void *d_weight_ih, *d_weight_hh;            /* (G, I), (G, P / heads) written */
    void *d_bias_ih, *d_bias_hh;                /* (G) written; or NULL */
    void *d_weight_hr, *d_peephole;             /* (P, H), (peepholes, H) written if the weight exists */
    /* A long sequence may be computed in several calls of some steps each, the last steps first; the results have the
     * bits of a single call. rows_after: the rows of later steps, which earlier calls have computed; rows_before: the
     * rows of earlier steps, which later calls will compute; both are 0 for a single call. The gradients of the
     * weights, the last six arrays, are complete after the call with rows_before = 0. Until then the caller must not
     * change them or `sums` between the calls. */
    ptrdiff_t rows_after, rows_before;
    void *sums; /* fastrnn_sums_bytes() bytes, written; aligned as real; unused if both are 0 */
} fastrnn_backward_args;

/* The size in bytes of `sums`, which the calls for one sequence of `rows` rows share. packed: for backward. It may be
 * 0; SIZE_MAX if no size_t can hold it. */
size_t fastrnn_sums_bytes(const fastrnn_packed *packed, ptrdiff_t rows);

/* Memory that a call uses and keeps for the next one, up to 32 MiB. One call at a time may use it. */
typedef struct fastrnn_workspace fastrnn_workspace;
fastrnn_workspace *fastrnn_workspace_create(void); /* NULL if out of memory */
void fastrnn_workspace_free(fastrnn_workspace *);  /* NULL is ignored */

/* Runs several calls of the same precision, T, B and offsets, side by side on the cores if that is faster. The results
 * have the same bits side by side or one after the other. The calls are the directions of a layer or, if `stacked`, the
 * layers of a stack: forward, each call's x is the output of the call before; backward, the top layer comes first, and
 * each call's d_output is the d_x of the call before.
 *
 * count: 1 to FASTRNN_MOST_CALLS. workspace: may be NULL; then the memory is allocated and freed. interruption: may be
 * NULL. threads: the maximal number of threads; 0 stands for one per core, 1 for the calling thread alone. A call never
 * uses more threads than the calling thread may use processors. It uses fewer threads if that is faster, if other calls
 * compute at the same time, or if helper threads do not start in time. */
enum { FASTRNN_MOST_CALLS = 16 };
fastrnn_status fastrnn_forward(const fastrnn_forward_args *, int count, int stacked, fastrnn_workspace *,
                               const fastrnn_interruption *, int threads);
fastrnn_status fastrnn_backward(const fastrnn_backward_args *, int count, int stacked, fastrnn_workspace *,
                                const fastrnn_interruption *, int threads);

/* A ragged batch in padded layout: arrays (T, B, n) of any strides between steps and between sequences, in which
 * sequence b has length_b <= T steps. `bytes` is the size of one contiguous row of n numbers; `step` and `sequence` are
 * the strides in bytes. */
typedef struct {
    ptrdiff_t T, B, steps;    /* steps: the largest length */
    const ptrdiff_t *offsets; /* (steps + 1): the first of the N rows of each step, and N */
    const ptrdiff_t *order;   /* (B): the sequences by their lengths, the longest first */
    const ptrdiff_t *lengths; /* (B): in that order */
} fastrnn_ragged;

/* order, sorted (B) and offsets (steps + 1) written, those of a fastrnn_ragged: `sorted` has the lengths in order.
 * steps is the largest of the lengths (B). */
void fastrnn_sort_lengths(ptrdiff_t B, ptrdiff_t steps, const ptrdiff_t *lengths, ptrdiff_t *order, ptrdiff_t *sorted,
                          ptrdiff_t *offsets);

/* fastrnn_gather: rows (N, n) written, the packed rows of an array (T, B, n). fastrnn_scatter: array (T, B, n) written
 * from its packed rows, 0 beyond the lengths. */
fastrnn_status fastrnn_gather(const fastrnn_ragged *, size_t bytes, const void *array, ptrdiff_t step,
                              ptrdiff_t sequence, void *rows, const fastrnn_interruption *, int threads);
fastrnn_status fastrnn_scatter(const fastrnn_ragged *, size_t bytes, const void *rows, void *array, ptrdiff_t step,
                               ptrdiff_t sequence, const fastrnn_interruption *, int threads);

/* reversed (N, n) written: rows (N, n) with the steps of each sequence in the opposite order. */
fastrnn_status fastrnn_reverse(const fastrnn_ragged *, size_t bytes, const void *rows, void *reversed,
                               const fastrnn_interruption *, int threads);

/* y (n) written: a function of x (n), as the cells compute it. x and y may be the same array. */
typedef enum {
    FASTRNN_ACTIVATE_SIGMOID = 0,
    FASTRNN_ACTIVATE_TANH = 1,
    FASTRNN_ACTIVATE_LOG_SIGMOID = 2, /* log(sigmoid(x)) */
} fastrnn_function;
void fastrnn_activate(const fastrnn_isa *, fastrnn_dtype, fastrnn_function, ptrdiff_t n, const void *x, void *y);

/* A fully connected layer over N rows, y = x weight^T + bias, with the order of sums of a recurrent layer's input
 * projection; the gradients of weight and bias are summed over rows as in a recurrent layer. N, I and O may be 0.
 * The other arguments are those of fastrnn_forward. */
typedef struct {
    ptrdiff_t N, I, O;
    const void *x;      /* (N, I) */
    const void *weight; /* (O, I) */
    const void *bias;   /* (O) or NULL for zeros */
    void *y;            /* (N, O) written */
} fastrnn_linear_args;
fastrnn_status fastrnn_linear(const fastrnn_isa *, fastrnn_dtype, const fastrnn_linear_args *, fastrnn_workspace *,
                              const fastrnn_interruption *, int threads);

typedef struct {
    ptrdiff_t N, I, O;
    const void *x, *weight, *d_y; /* (N, I), (O, I), (N, O) */
    void *d_x;                    /* (N, I) written; or NULL */
    void *d_weight, *d_bias;      /* (O, I), (O) written; d_bias may be NULL */
} fastrnn_linear_back_args;
fastrnn_status fastrnn_linear_backward(const fastrnn_isa *, fastrnn_dtype, const fastrnn_linear_back_args *,
                                       fastrnn_workspace *, const fastrnn_interruption *, int threads);

/* Losses of N rows. Each returns the sum of the losses of all rows, in double precision, added in the order of the
 * rows. d (N, C) written: `scale` times the gradient of the sum. */

/* -log(softmax(logits)[target]) of each row; a row whose target is negative counts as 0. losses: (N) written. */
double fastrnn_softmax_cross_entropy(const fastrnn_isa *, fastrnn_dtype, ptrdiff_t N, ptrdiff_t C, const void *logits,
                                     const int64_t *targets, double scale, void *d, double *losses, int threads);
/* (prediction - target)^2 of n numbers; blocks and `sums` are those of fastrnn_sum_squares. */
double fastrnn_squared_error(const fastrnn_isa *, fastrnn_dtype, ptrdiff_t n, const void *prediction,
                             const void *target, double scale, void *d, double *sums, int threads);

/* One step of an optimizer, in place, as torch.optim computes it: p (n) parameters, g (n) their gradients; the other
 * arrays (n) are its state, zeros before the first step. A number of the result depends only on the numbers at its
 * place, not on threads. The functions do not allocate. */
typedef struct {
    double rate, momentum, dampening, weight_decay;
    int nesterov;
    int is_first; /* whether it is the first step, which sets the buffer */
} fastrnn_sgd;
void fastrnn_sgd_step(const fastrnn_isa *, fastrnn_dtype, const fastrnn_sgd *, ptrdiff_t n, void *p, const void *g,
                      void *buffer, /* NULL without momentum */
                      int threads);
typedef struct {
    double rate, beta_1, beta_2, eps, weight_decay;
    int decoupled; /* whether the weight decay is AdamW's */
    int64_t step;  /* from 1 on */
} fastrnn_adam;
void fastrnn_adam_step(const fastrnn_isa *, fastrnn_dtype, const fastrnn_adam *, ptrdiff_t n, void *p, const void *g,
                       void *m, void *v, int threads);

/* a (n) in place: a * factor. */
void fastrnn_scale(const fastrnn_isa *, fastrnn_dtype, ptrdiff_t n, double factor, void *a, int threads);

/* The sum of the squares of a (n), in double precision. Each block of FASTRNN_SQUARES_BLOCK numbers has a sum; these
 * sums are added in the order of the blocks. sums (number of blocks): written. */
enum { FASTRNN_SQUARES_BLOCK = 1 << 14 };
double fastrnn_sum_squares(const fastrnn_isa *, fastrnn_dtype, ptrdiff_t n, const void *a, double *sums, int threads);

/* A hash of `bytes` bytes, by which a change of an array is detected: with a key of random words, different bytes have
 * different hashes with near certainty. It depends on the key and on the processor. */
enum { FASTRNN_KEY_WORDS = 129 };
uint64_t fastrnn_fingerprint(const uint64_t key[FASTRNN_KEY_WORDS], const void *data, size_t bytes);

FASTRNN_PUBLIC_END
#ifdef __cplusplus
}
#endif

#endif
