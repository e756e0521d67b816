/* fastrnn: fused recurrent kernels. This header is the manual of the C interface; it needs neither Python nor NumPy.
 *
 * Arrays are row-major, contiguous and of one precision, `real` below: float for FASTRNN_F32, double for FASTRNN_F64.
 * T time steps, B sequences, I inputs, H hidden units; each may be 0 but H. Gate rows and columns (4H) are ordered
 * i f g o. The equations, torch's, stand in lstm.inc.h.
 *
 * Outputs overlap nothing else unless it is said. Inputs are only read, and may overlap each other. Nothing is kept
 * after a call but what it returns and the workspace it was given. Any number of threads may call at once. Each
 * function that computes sets the floating-point mode of its threads (round to nearest, denormals are zero, no
 * exception) and restores it before it returns.
 *
 * Every number of a result is a sum in one fixed order, with fused multiply-add: it depends on nothing but its inputs;
 * not on B, on how T is cut into calls (sums over time, which gradients of weights are, apart), on threads, or,
 * `generic` apart, on the instruction set. A NaN is a NaN under all of these, but its sign and payload may differ. */
#ifndef FASTRNN_H
#define FASTRNN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { FASTRNN_F32 = 0, FASTRNN_F64 = 1 } fastrnn_dtype;

typedef enum {
    FASTRNN_OK = 0,
    FASTRNN_OUT_OF_MEMORY = 1, /* or a size that no memory could hold; nothing was written */
} fastrnn_status;

/* An instruction set: its kernels. All are constants of the library. */
typedef struct fastrnn_isa fastrnn_isa;

const fastrnn_isa *fastrnn_isa_at(int index);      /* those built in, the slowest first; NULL past the last */
const char *fastrnn_isa_name(const fastrnn_isa *); /* "generic", "avx2", "avx512" */
int fastrnn_isa_is_supported(const fastrnn_isa *); /* by this processor and its operating system */

int fastrnn_has_openmp(void);
const char *fastrnn_compiler(void);

/* Weights in the order in which the kernels of one instruction set and precision read them: a copy, whatever becomes of
 * the arrays. Any number of calls may use one at a time. */
typedef struct fastrnn_packed fastrnn_packed;
typedef enum { FASTRNN_FORWARD = 0, FASTRNN_BACKWARD = 1 } fastrnn_pass;

typedef struct {
    ptrdiff_t I, H;
    const void *weight_ih;         /* (4H, I) */
    const void *weight_hh;         /* (4H, H) */
    const void *bias_ih, *bias_hh; /* (4H), each may be NULL for zeros */
} fastrnn_lstm_weights;

/* Packs for one pass. *packed: NULL, or what an earlier call left and nobody uses any more; its memory is used again
 * where it is large enough, and otherwise freed. Written only on success. */
fastrnn_status fastrnn_lstm_pack(const fastrnn_isa *, fastrnn_dtype, fastrnn_pass, const fastrnn_lstm_weights *,
                                 int threads, fastrnn_packed **packed);
size_t fastrnn_packed_bytes(const fastrnn_packed *); /* 0 for NULL */
void fastrnn_packed_free(fastrnn_packed *);          /* NULL is ignored */

typedef struct {
    ptrdiff_t T, B;
    const fastrnn_packed *packed; /* for forward: decides I, H, instruction set and precision */
    const void *x;                /* (T, B, I) */
    const void *h_0, *c_0;        /* (B, H) */
    void *output;                 /* (T, B, H) written: h_t */
    void *h_n, *c_n;              /* (B, H) written: the last h_t and c_t, or h_0 and c_0 if T is 0; they may be h_0
                                     and c_0 themselves */
    void *gates;                  /* (T, B, 4H) written: i f g o; NULL for inference */
    void *c;                      /* (T, B, H) written: c_t; NULL for inference */
} fastrnn_lstm_forward_args;

typedef struct {
    ptrdiff_t T, B;
    const fastrnn_packed *packed; /* for backward: the weights of the forward call */
    const void *x;                /* (T, B, I), and the next four too as forward had or left them */
    const void *h_0, *c_0;        /* (B, H) */
    const void *gates;            /* (T, B, 4H) */
    const void *c;                /* (T, B, H) */
    const void *d_output;         /* (T, B, H) or NULL for zeros */
    const void *d_h_n, *d_c_n;    /* (B, H), each may be NULL for zeros */
    void *d_x;                    /* (T, B, I) written; or NULL */
    void *d_h_0, *d_c_0;          /* (B, H) written */
    void *d_weight_ih;            /* (4H, I) written */
    void *d_weight_hh;            /* (4H, H) written */
    void *d_bias;                 /* (4H) written: of either bias; or NULL */
} fastrnn_lstm_backward_args;

/* Memory that calls use and leave behind for the next, at most 32 MiB. Used by one call at a time. */
typedef struct fastrnn_workspace fastrnn_workspace;
fastrnn_workspace *fastrnn_workspace_create(void); /* NULL if there is no memory */
void fastrnn_workspace_free(fastrnn_workspace *);  /* NULL is ignored */

/* workspace: may be NULL; then the memory is allocated and freed.
 * threads: at most so many are used; fewer where fewer are faster. 1 never enters OpenMP. */
fastrnn_status fastrnn_lstm_forward(const fastrnn_lstm_forward_args *, fastrnn_workspace *, int threads);
fastrnn_status fastrnn_lstm_backward(const fastrnn_lstm_backward_args *, fastrnn_workspace *, int threads);

/* y[k] = sigmoid(x[k]), or tanh(x[k]), as the cells compute them; k < n. x and y may be the same array. */
void fastrnn_activate(const fastrnn_isa *, fastrnn_dtype, int use_tanh, ptrdiff_t n, const void *x, void *y);

/* A 64-bit hash of `bytes` bytes: tells whether an array has changed. Not for adversaries, not for storage. */
uint64_t fastrnn_fingerprint(const void *data, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
