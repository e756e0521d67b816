/* The table of one precision. Sizes: B sequences, I inputs, H hidden units; G = 4H gate columns, ordered i f g o.
 * A panel is `width` columns, two vectors; a block is `block` hidden units with all four gates, whole panels but for
 * the last block, which may have fewer units. The order of gates in a row of forward: see pack.inc.h. */

/* The cell of one step, for rows (sequences) and hidden units given with the call. Row b of a (B, n) array is at b * n.
 */
typedef struct {
    ptrdiff_t H;
    const real *panels; /* weight_hh, packed for forward */
    const real *h_prev; /* (B, H), rows h_prev_row apart */
    const real *c_prev; /* (B, H) */
    real *gates;        /* (B, 4H) in: bias and input's part; out, if keep: after activation */
    real *c;            /* (B, H) written; may be c_prev */
    real *h;            /* (B, H) written */
    real *h_next;       /* the same, rows h_next_row apart: for the product of the next step */
    ptrdiff_t h_prev_row, h_next_row;
    int keep;
} NAME(lstm_step);

typedef struct {
    ptrdiff_t H, d_gates_row; /* rows of d_gates and d_gates_next are this far apart */
    const real *panels;       /* weight_hh, packed for backward */
    const real *gates;        /* (B, 4H) of this step */
    const real *c, *c_prev;   /* (B, H) */
    const real *d_output;     /* (B, H) or NULL for zeros */
    const real *d_gates_next; /* (B, 4H) of the step after this one, or NULL: then d_h holds the gradient of h_n */
    real *d_h;                /* (B, H) written: what flows back from the step after this one */
    real *d_c;                /* (B, H) in: gradient of c_t from after this step; out: gradient of c_{t-1} */
    real *d_gates;            /* (B, 4H) written */
    real *h;                  /* (B, H) written: h_t again, for the gradient of weight_hh; or NULL */
} NAME(lstm_step_back);

typedef struct {
    int width;      /* columns of a panel */
    int block;      /* hidden units of a block */
    int depth;      /* a good K for outer_product, whose scratch is outer_rows * K numbers */
    int outer_rows; /* a multiple of tile_rows */
    int tile_rows;  /* rows of a product tile */

    /* forward panels [p0, p1) of weight (4H, K): [panel][K][columns], the columns being gates in blocks */
    void (*pack_gates)(ptrdiff_t H, ptrdiff_t K, ptrdiff_t p0, ptrdiff_t p1, const real *weight, real *panels);
    /* the sum of two biases (4H) in the same order, each NULL for zeros */
    void (*pack_bias)(ptrdiff_t H, ptrdiff_t p0, ptrdiff_t p1, const real *bias_ih, const real *bias_hh, real *packed);
    /* panels [p0, p1) of a (K, N) matrix whose row k is at source + k * stride: [panel][K][columns] */
    void (*pack_rows)(ptrdiff_t K, ptrdiff_t N, ptrdiff_t p0, ptrdiff_t p1, const real *source, ptrdiff_t stride,
                      real *panels);

    /* gates (M, 4H) = bias + x (M, I), rows x_row apart, times weight_ih^T, for blocks [b0, b1) of hidden units */
    void (*project)(ptrdiff_t M, ptrdiff_t I, ptrdiff_t H, ptrdiff_t b0, ptrdiff_t b1, const real *x, ptrdiff_t x_row,
                    const real *panels, const real *bias, real *gates);
    /* rows [r0, r1) and blocks [b0, b1) of hidden units of one step; back, panels [p0, p1) of hidden units */
    void (*lstm_step)(const NAME(lstm_step) *, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t b0, ptrdiff_t b1);
    void (*lstm_step_back)(const NAME(lstm_step_back) *, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t p0, ptrdiff_t p1);
    /* h = o tanh(c) for n rows of H, o among gates (n, 4H) */
    void (*lstm_hidden)(ptrdiff_t n, ptrdiff_t H, const real *gates, const real *c, real *h);

    /* c (M, N), rows c_row apart, = a (M, K), rows a_row apart, times panels [p0, p1) of (K, N) */
    void (*multiply)(ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, ptrdiff_t p0, ptrdiff_t p1, const real *a, ptrdiff_t a_row,
                     const real *panels, real *c, ptrdiff_t c_row);
    /* c (m1 - m0, N) = (or, unless fresh, +=) the sum over k of a[k, m0:m1]^T b[k], a's rows a_row apart (it may be
     * negative), b (K, N) in panels */
    void (*outer_product)(ptrdiff_t m0, ptrdiff_t m1, ptrdiff_t N, ptrdiff_t K, const real *a, ptrdiff_t a_row,
                          const real *panels, int fresh, real *c, real *scratch);
    /* sum[m0:m1] = (or, unless fresh, +=) the sum over k of a[k, m0:m1] */
    void (*sum_rows)(ptrdiff_t m0, ptrdiff_t m1, ptrdiff_t K, const real *a, ptrdiff_t a_row, int fresh, real *sum);

    void (*activate)(int use_tanh, ptrdiff_t n, const real *x, real *y);
} NAME(kernels);
