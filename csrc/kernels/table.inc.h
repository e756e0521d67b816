/* The table of one precision. Sizes: B sequences, I inputs, H hidden units, P columns of h (H without a
 * recurrent projection), G gate columns: H times the gates of the cell; D gradient columns. A panel is `width` columns,
 * two vectors. A block is some hidden units with all gates of a part: whole panels, except for the last block, which
 * may have fewer units. columns.h defines the order of the gates in a row. */

/* The arrays of one time step forward. Row b of a (B, n) array is at b * n, or at b times its leading dimension, called
 * NAME_row. Pointers that the cell does not use may be NULL. state and state_prev have no h: index 0 is unused. */
typedef struct {
    ptrdiff_t H;
    const fastrnn_options *options;  /* NULL for the defaults */
    const fastrnn_matrix *weight_hh; /* of each part, packed for forward */
    const real *const *bias_hh;      /* of each part, if the recurrent sums are kept apart */
    const real *peephole;            /* (peepholes, H), or NULL */
    const real
        *operand[MOST_PARTS]; /* (B, P) and (B, H), rows operand_row apart: the operand of the product of each part:
                                 h_prev, or gated; rounded, if the format of weight_hh rounds its operand */
    const real *h_prev;       /* (B, P), rows h_prev_row apart */
    const real *state_prev[FASTRNN_MOST_STATES]; /* (B, H) */
    real *gates;     /* (B, G) in: bias and input projection; out, if keep: after activation */
    real *recurrent; /* (B, G): scratch for h_{t-1} W_hh^T + b_hh, if the cell keeps it apart from the input's part */
    real *gated;     /* (B, H), rows gated_row apart: the first part's result, for the product of the second */
    real *state[FASTRNN_MOST_STATES]; /* (B, H) written; may be state_prev */
    real *kept_h;                     /* (B, H) written: h_t; or NULL */
    real *intermediate; /* (B, H) written: a further result that the backward of the cell needs; or NULL */
    real *h;            /* (B, H) written, rows h_row apart: h_t, or the hidden units before a recurrent projection */
    real *h_next;       /* the same, rows h_next_row apart: for the product of the next step; or NULL */
    ptrdiff_t operand_row[MOST_PARTS], h_prev_row, gated_row, h_row, h_next_row;
    int keep;
} NAME(step);

/* The arrays of one time step backward; rows and states as in NAME(step). */
typedef struct {
    ptrdiff_t H;
    const fastrnn_options *options; /* NULL for the defaults */
    /* sum (B, H): rows before product_rows become a (B, K), with leading dimension a_row, times the matrix (K, H); the
     * other rows keep their values. Part 0 computes the gradient d_h of the hidden units, part 1 that of `gated`. */
    const fastrnn_matrix *matrix;
    const real *a;
    ptrdiff_t a_row, product_rows;
    real *sum;
    const uint8_t
        *no_product;      /* (B) or NULL: 1 if the product counts as zeros: the states are reset before the next step */
    const real *peephole; /* (peepholes, H), or NULL */
    const real *gates, *kept_h, *intermediate;   /* (B, G) and (B, H) of this step, from the tape */
    const real *state[FASTRNN_MOST_STATES];      /* (B, H) of this step */
    const real *h_prev;                          /* (B, H), if the tape has h: h_{t-1} */
    const real *state_prev[FASTRNN_MOST_STATES]; /* (B, H) of the step before */
    const real *d_output;                        /* (B, H) or NULL for zeros: is added to d_h */
    real *d_state[FASTRNN_MOST_STATES]; /* (B, H) in: the gradients of this step's states; out: of the states of the
                                           step before. Index 0, if the cell has a bypass: the gradient along the
                                           element-wise path from h_t to h_{t-1}, bypassing W_hh */
    real *d_gates;                      /* (B, D) written, rows d_gates_row apart */
    ptrdiff_t d_gates_row;
    real *h; /* (B, H) written for rows before product_rows: the hidden units, recovered; or NULL */
} NAME(step_back);

/* The specification of a cell: its only description outside its own file. */
typedef struct {
    const char *name;
    int gates;             /* rows of the weights for each hidden unit */
    int parts[MOST_PARTS]; /* gates of each part of the recurrent product, in the order of the weights' rows */
    int block;             /* hidden units of a block, the same for all instruction sets */
    int states;            /* h is state 0 */
    int recurrent;         /* whether the recurrent sums are kept apart from the input's */
    int d_gates;   /* D / H; the gradients of the input's sums are the last `gates` of them, those of the recurrent sums
                      the first `gates`: of the last rows of weight_hh, then of the others */
    int peepholes; /* rows of peephole weights, or 0 */
    int saves_gates; /* whether the tape has the gates, and h; it has all other states */
    int saves_h;
    int bounded;            /* whether |h_t| <= max(1, |h_{t-1}|) with the activation tanh, but for rounding */
    int saves_intermediate; /* whether the tape has a further result (B, H) of a step, for its backward */
    int bypass;             /* whether the gradient of h_t reaches h_{t-1} on a path that bypasses W_hh */
    /* One part of a step, for rows [r0, r1): forward, blocks [b0, b1) of hidden units; backward, panels [p0, p1). */
    void (*step)(const NAME(step) *, int part, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t b0, ptrdiff_t b1);
    void (*step_back)(const NAME(step_back) *, int part, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t p0, ptrdiff_t p1);
    /* One step of one sequence, from x (I): the state of the layer is updated. numbers: of the stream; scratch:
     * fastrnn_stream_scratch() numbers */
    void (*stream)(const fastrnn_stream_layer *, const real *numbers, const real *x, real *state, real *scratch);
    /* h (n, H) written: the hidden units of n rows, from their gates (n, G) and states (n, H) in the tape. NULL: the
     * tape has h. */
    void (*recover_h)(ptrdiff_t n, ptrdiff_t H, const fastrnn_options *, const real *gates, const real *const *states,
                      real *h);
    /* d_peephole (peepholes, H) written for units [j0, j1): the sum over n rows, the last first, of d_gates (n, D) with
     * leading dimension `row` times the states (n, H) */
    void (*peephole_gradient)(ptrdiff_t n, ptrdiff_t H, ptrdiff_t j0, ptrdiff_t j1, const real *d_gates, ptrdiff_t row,
                              const real *const *state, const real *const *state_prev, sum_start, real *d_peephole);
} NAME(cell);

/* The kernels of one instruction set in one precision. */
typedef struct {
    int width;      /* columns of a panel */
    int outer_rows; /* a multiple of tile_rows; the scratch of outer_product has outer_rows * K numbers */
    int tile_rows;  /* rows of a register tile */
    int stream_lanes, stream_vectors; /* VL, and the vectors of a tile, see stream_types.h */

    const NAME(cell) *const *cells; /* (FASTRNN_MOST_CELLS), NULL past the last */

    /* Panels [p0, p1) of the matrix (K, gates * H) written: weight (gates * H, K) transposed, for forward, its columns
     * in the order of the gates of a part. */
    void (*pack_gates)(int gates, int block, ptrdiff_t H, ptrdiff_t p0, ptrdiff_t p1, const real *weight,
                       const fastrnn_matrix *);
    /* panels [p0, p1) of a block-diagonal matrix: of each segment, the transposed blocks of a gate. Gates [g0, g1) of
     * weight (gates * H, head) become the segments from `first` on. */
    void (*pack_heads)(ptrdiff_t g0, ptrdiff_t g1, ptrdiff_t p0, ptrdiff_t p1, const real *weight, ptrdiff_t first,
                       const fastrnn_matrix *);
    /* packed (gates * H, zero-padded to panels) written for panels [p0, p1): the sum of two biases (gates * H) in the
     * same order, each NULL for zeros */
    void (*pack_bias)(int gates, int block, ptrdiff_t H, ptrdiff_t p0, ptrdiff_t p1, const real *bias_ih,
                      const real *bias_hh, real *packed);
    /* columns (G) written: columns[g * H + j] is the column of gate g of hidden unit j in a row of gates */
    void (*gate_columns)(const NAME(cell) *, ptrdiff_t H, ptrdiff_t *columns);
    /* Panels [p0, p1) of K rows of the matrix written, from row `first` on: row k is the N numbers at source + k *
     * stride */
    void (*pack_rows)(ptrdiff_t K, ptrdiff_t p0, ptrdiff_t p1, const real *source, ptrdiff_t stride, ptrdiff_t first,
                      const fastrnn_matrix *);

    /* The input projection: gates (M, G) written for blocks [b0, b1): bias + x (M, I), with leading dimension x_row,
     * times weight_ih^T; a matrix (I, gates * H) and a bias (gates * H) of each part */
    void (*project)(const NAME(cell) *, ptrdiff_t M, ptrdiff_t H, ptrdiff_t b0, ptrdiff_t b1, const real *x,
                    ptrdiff_t x_row, const fastrnn_matrix *weight_ih, const real *const *bias, real *gates);
    /* c (M, N) written for panels [p0, p1): a (M, K) times the matrix (K, N), plus a packed bias or NULL; c_row and
     * a_row are leading dimensions */
    void (*multiply)(ptrdiff_t M, ptrdiff_t p0, ptrdiff_t p1, const real *a, ptrdiff_t a_row, const fastrnn_matrix *,
                     const real *bias, real *c, ptrdiff_t c_row);
    /* c (M, N) for panels [p0, p1): the sum over k < K of a[k, 0:M]^T b[k], with a (K, M) of leading dimension a_row,
     * which may be negative, and b the matrix (K, N), K <= BLOCK_ROWS; sum_start: how the sum begins. scratch:
     * outer_rows * K numbers */
    void (*outer_product)(ptrdiff_t M, ptrdiff_t p0, ptrdiff_t p1, const real *a, ptrdiff_t a_row,
                          const fastrnn_matrix *, sum_start, real *c, real *scratch);
    /* sum (M): the sum over k < K of a[k, 0:M], with a (K, M) of leading dimension a_row */
    void (*sum_rows)(ptrdiff_t M, ptrdiff_t K, const real *a, ptrdiff_t a_row, sum_start, real *sum);
    /* c (n) written: a + b; b may be NULL for zeros, c may be a */
    void (*add)(ptrdiff_t n, const real *a, const real *b, real *c);

    /* y (n) written: a function of x (n); y may be x */
    void (*activate)(fastrnn_function, ptrdiff_t n, const real *x, real *y);

    /* One step of an optimizer for parameters p (n) with gradients g (n), which the arrays of fastrnn.h describe */
    void (*sgd)(const fastrnn_sgd *, ptrdiff_t n, real *p, const real *g, real *b);
    void (*adam)(const fastrnn_adam *, ptrdiff_t n, real *p, const real *g, real *m, real *v);
    /* a (n) in place: a * factor */
    void (*scale)(ptrdiff_t n, double factor, real *a);
    /* the sum of the squares of a (n) */
    double (*sum_squares)(ptrdiff_t n, const real *a);

    /* The loss of one row of logits z (C), or of n numbers, and d (C) or d (n) written, as fastrnn.h describes */
    double (*softmax_cross_entropy)(ptrdiff_t C, const real *z, int64_t target, double scale, real *d);
    double (*squared_error)(ptrdiff_t n, const real *p, const real *t, double scale, real *d);
} NAME(kernels);
