/* The table of one precision. Sizes: B sequences, I inputs, H hidden units, P columns of h (H, but for a recurrent
 * projection), G gate columns, which is H times the gates of the cell; D gradient columns. A panel is `width` columns,
 * two vectors. A block is some hidden units with all gates of a part: whole panels but for the last block, which may
 * have fewer units. pack.inc.h tells the order of the gates in a row. */

/* One step, for rows (sequences) and hidden units given with the call. Row b of a (B, n) array is at b * n, or at b
 * times its leading dimension, called NAME_row. Pointers for which a cell has no use may be NULL. States are those of
 * the cell without h, so that index 0 is not used. */
typedef struct {
    ptrdiff_t H;
    const fastrnn_options *options;              /* NULL for those of zeros */
    const fastrnn_matrix *weight_hh;             /* of each part, packed for forward */
    const real *const *bias_hh;                  /* of each part, where the recurrent sums are kept apart */
    const real *peephole;                        /* (peepholes, H), or NULL */
    const real *h_prev;                          /* (B, P), rows h_prev_row apart */
    const real *state_prev[FASTRNN_MOST_STATES]; /* (B, H) */
    real *gates;                                 /* (B, G) in: bias and input's part; out, if keep: after activation */
    real *recurrent; /* (B, G): scratch for h_{t-1} W_hh^T + b_hh, where it is kept apart from the input's part */
    real *gated;     /* (B, H), rows gated_row apart: the first part's result, which the product of the second reads */
    real *state[FASTRNN_MOST_STATES]; /* (B, H) written; may be state_prev */
    real *kept_h;                     /* (B, H) written: h_t; or NULL */
    real *extra;                      /* (B, H) written; or NULL */
    real *h;      /* (B, H) written, rows h_row apart: h_t, or the hidden units before a recurrent projection */
    real *h_next; /* the same, rows h_next_row apart: for the product of the next step; or NULL */
    ptrdiff_t h_prev_row, gated_row, h_row, h_next_row;
    int keep;
} NAME(step);

typedef struct {
    ptrdiff_t H;
    const fastrnn_options *options; /* NULL for those of zeros */
    /* sum (B, H) of rows before product_rows is a (B, K), rows a_row apart, times the matrix; of others it is there.
     * Part 0 makes the gradient d_h of the hidden units so; part 1 that of `gated`. */
    const fastrnn_matrix *matrix;
    const real *a;
    ptrdiff_t a_row, product_rows;
    real *sum;
    const uint8_t *no_product; /* (B) or NULL: 1 where the product counts as zeros, because the next step begins anew */
    const real *peephole;      /* (peepholes, H), or NULL */
    const real *gates, *kept_h, *extra;          /* (B, G) and (B, H) of this step, from the tape */
    const real *state[FASTRNN_MOST_STATES];      /* (B, H) of this step */
    const real *h_prev;                          /* (B, H), where the tape has h: h_{t-1} */
    const real *state_prev[FASTRNN_MOST_STATES]; /* (B, H) of the step before */
    const real *d_output;                        /* (B, H) or NULL for zeros: is added to d_h */
    real *d_state[FASTRNN_MOST_STATES]; /* (B, H) in: the gradients of this step's states; out: of the states of the
                                           step before. Index 0, where the cell has a bypass: the gradient along the
                                           element-wise path from h_t to h_{t-1}, bypassing W_hh */
    real *d_gates;                      /* (B, D) written, rows d_gates_row apart */
    ptrdiff_t d_gates_row;
    real *h; /* (B, H) written for rows before product_rows: the hidden units, recovered; or NULL */
} NAME(step_back);

/* The specification of a cell: all that the rest of the library knows of it. */
typedef struct {
    const char *name;
    int gates;             /* rows of the weights for each hidden unit */
    int parts[MOST_PARTS]; /* gates of each part of the recurrent product, in the order of the weights' rows */
    int block;             /* hidden units of a block, the same for all instruction sets */
    int states;            /* h is state 0 */
    int recurrent;         /* whether the recurrent sums are kept apart from the input's */
    int d_gates; /* D / H; the gradients of the input's sums are its last `gates`, those of the recurrent sums the first
                    `gates`: of the last rows of weight_hh, and then of the others */
    int peepholes;   /* rows of peephole weights, or 0 */
    int saves_gates; /* whether the tape has the gates, and h; all other states it has */
    int saves_h;
    int saves_extra; /* whether a step has a further array (B, H) for its backward */
    int bypass;      /* whether the gradient of h_t reaches h_{t-1} besides W_hh */
    /* One step: rows [r0, r1), blocks [b0, b1) of one part; back, panels [p0, p1) of hidden units. */
    void (*step)(const NAME(step) *, int part, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t b0, ptrdiff_t b1);
    void (*step_back)(const NAME(step_back) *, int part, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t p0, ptrdiff_t p1);
    /* h (n, H) of n rows of gates and states from the tape. NULL: the tape has h. */
    void (*recover_h)(ptrdiff_t n, ptrdiff_t H, const fastrnn_options *, const real *gates, const real *const *states,
                      real *h);
    /* d_peephole (peepholes, H), the sum over n rows, the last first, for units [j0, j1); states as in a step_back */
    void (*peephole_gradient)(ptrdiff_t n, ptrdiff_t H, ptrdiff_t j0, ptrdiff_t j1, const real *d_gates, ptrdiff_t row,
                              const real *const *state, const real *const *state_prev, sum_start, real *d_peephole);
} NAME(cell);

typedef struct {
    int width;      /* columns of a panel */
    int outer_rows; /* a multiple of tile_rows; the scratch of outer_product has outer_rows * K numbers */
    int tile_rows;  /* rows of a register tile */

    const NAME(cell) *const *cells; /* (FASTRNN_MOST_CELLS), NULL past the last */

    /* forward panels [p0, p1) of weight (gates * H, K), those gates of a part: [panel][K][columns], the columns being
     * gates in blocks. One gate: the transposed weight. */
    void (*pack_gates)(int gates, int block, ptrdiff_t H, ptrdiff_t p0, ptrdiff_t p1, const real *weight,
                       const fastrnn_matrix *);
    /* panels [p0, p1) of a block-diagonal matrix: of each segment, the transposed blocks of a gate. Gates [g0, g1) of
     * weight (gates * H, head) become the segments from `first` on. */
    void (*pack_heads)(ptrdiff_t g0, ptrdiff_t g1, ptrdiff_t p0, ptrdiff_t p1, const real *weight, ptrdiff_t first,
                       const fastrnn_matrix *);
    /* the sum of two biases (gates * H) in the same order, each NULL for zeros */
    void (*pack_bias)(int gates, int block, ptrdiff_t H, ptrdiff_t p0, ptrdiff_t p1, const real *bias_ih,
                      const real *bias_hh, real *packed);
    /* columns (G): where gate g of unit j is in a row of gates, g * H + j the index */
    void (*gate_columns)(const NAME(cell) *, ptrdiff_t H, ptrdiff_t *columns);
    /* panels [p0, p1) of a (K, N) matrix whose row k is at source + k * stride, as the rows from `first` on */
    void (*pack_rows)(ptrdiff_t K, ptrdiff_t p0, ptrdiff_t p1, const real *source, ptrdiff_t stride, ptrdiff_t first,
                      const fastrnn_matrix *);

    /* gates (M, G) = bias + x (M, I), rows x_row apart, times weight_ih^T, for blocks [b0, b1); of each part a weight
     * and a bias */
    void (*project)(const NAME(cell) *, ptrdiff_t M, ptrdiff_t H, ptrdiff_t b0, ptrdiff_t b1, const real *x,
                    ptrdiff_t x_row, const fastrnn_matrix *weight_ih, const real *const *bias, real *gates);
    /* c (M, N), rows c_row apart, = a (M, K), rows a_row apart, times panels [p0, p1) of the matrix (K, N) */
    void (*multiply)(ptrdiff_t M, ptrdiff_t p0, ptrdiff_t p1, const real *a, ptrdiff_t a_row, const fastrnn_matrix *,
                     real *c, ptrdiff_t c_row);
    /* c (M, N), the sum over k < K <= BLOCK_ROWS of a[k, 0:M]^T b[k], a's rows a_row apart (it may be negative), b the
     * matrix (K, N) */
    void (*outer_product)(ptrdiff_t M, const real *a, ptrdiff_t a_row, const fastrnn_matrix *, sum_start, real *c,
                          real *scratch);
    /* sum (M), the sum over k of a[k, 0:M] */
    void (*sum_rows)(ptrdiff_t M, ptrdiff_t K, const real *a, ptrdiff_t a_row, sum_start, real *sum);
    /* c (n) = a + b; b may be NULL for zeros, c may be a */
    void (*add)(ptrdiff_t n, const real *a, const real *b, real *c);

    void (*activate)(fastrnn_function, ptrdiff_t n, const real *x, real *y);
} NAME(kernels);
