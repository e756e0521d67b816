/* The table of one precision. Sizes: B sequences, I inputs, H hidden units, P numbers in h (H, but for a projection), G
 * gate columns, which is H times the gates of the cell; D gradient columns. A panel is `width` columns, two vectors. A
 * block is some hidden units with all their gates, whole panels but for the last block, which may have fewer units. The
 * order of gates in a row of forward: see pack.inc.h. */

/* One step, for rows (sequences) and hidden units given with the call. Row b of a (B, n) array is at b * n, or at b
 * times what is called its row. Pointers that a cell has no use for may be NULL. */
typedef struct {
    ptrdiff_t H, K;       /* K: columns of weight_hh */
    const real *panels;   /* weight_hh, packed for forward */
    const real *bias_hh;  /* GRU: what the recurrent sums begin with */
    const real *peephole; /* LSTM (3, H), or NULL */
    const real *h_prev;   /* (B, K), rows h_prev_row apart */
    const real *c_prev;   /* LSTM (B, H) */
    real *gates;          /* (B, G) in: bias and input's part; out, if keep: after activation */
    real *recurrent;      /* GRU (B, G): scratch for h_{t-1} W_hh^T + b_hh */
    real *state;          /* (B, H) written: c_t of the LSTM, may be c_prev; h_t of others, or NULL */
    real *extra;          /* GRU (B, H) written: n's part of recurrent; or NULL */
    real *h;              /* (B, H) written, rows h_row apart: h_t, or o tanh(c_t) before a projection */
    real *h_next;         /* the same, rows h_next_row apart: for the product of the next step; or NULL */
    ptrdiff_t h_prev_row, h_row, h_next_row;
    int keep;
} NAME(step);

typedef struct {
    ptrdiff_t H;
    /* d_h (B, H) of rows before product_rows is a (B, K), rows a_row apart, times panels; of others it is there. */
    const real *a, *panels;
    ptrdiff_t a_row, K, product_rows;
    const real *peephole;      /* LSTM (3, H), or NULL */
    const real *gates;         /* (B, G) of this step */
    const real *state, *extra; /* (B, H) of this step */
    const real *c_prev;        /* (B, H): of the LSTM c_{t-1}, of the GRU h_{t-1} */
    const real *d_output;      /* (B, H) or NULL for zeros: is added to d_h */
    real *d_h;                 /* (B, H) */
    real *d_state;             /* (B, H) in: what reaches this step's state past the product; out: the step's before */
    real *d_gates;             /* (B, D) written, rows d_gates_row apart */
    ptrdiff_t d_gates_row;
    real *h; /* LSTM (B, H) written for rows before product_rows: o tanh(c_t) again; or NULL */
} NAME(step_back);

typedef struct {
    int gates;     /* rows of the weights for each hidden unit */
    int block;     /* hidden units of a block */
    int recurrent; /* whether the recurrent sums are kept apart from the input's */
    int d_gates; /* D / H; the gradients for the input's sums are its last `gates`, for the recurrent ones the first */
    /* rows [r0, r1) and blocks [b0, b1) of one step; back, panels [p0, p1) of hidden units */
    void (*step)(const NAME(step) *, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t b0, ptrdiff_t b1);
    void (*step_back)(const NAME(step_back) *, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t p0, ptrdiff_t p1);
} NAME(cell);

typedef struct {
    int width;      /* columns of a panel */
    int outer_rows; /* a multiple of tile_rows; the scratch of outer_product has outer_rows * K numbers */
    int tile_rows;  /* rows of a product tile */

    const NAME(cell) * cells[FASTRNN_CELLS];

    /* forward panels [p0, p1) of weight (gates * H, K): [panel][K][columns], the columns being gates in blocks. One
     * gate: the transposed weight. */
    void (*pack_gates)(int gates, int block, ptrdiff_t H, ptrdiff_t K, ptrdiff_t p0, ptrdiff_t p1, const real *weight,
                       real *panels);
    /* the sum of two biases in the same order, each NULL for zeros */
    void (*pack_bias)(int gates, int block, ptrdiff_t H, ptrdiff_t p0, ptrdiff_t p1, const real *bias_ih,
                      const real *bias_hh, real *packed);
    /* panels [p0, p1) of a (K, N) matrix whose row k is at source + k * stride: [panel][all rows][columns], from row
     * `first` of `all` on */
    void (*pack_rows)(ptrdiff_t K, ptrdiff_t N, ptrdiff_t p0, ptrdiff_t p1, const real *source, ptrdiff_t stride,
                      ptrdiff_t first, ptrdiff_t all, real *panels);

    /* gates (M, G) = bias + x (M, I), rows x_row apart, times weight_ih^T, for blocks [b0, b1) of hidden units */
    void (*project)(const NAME(cell) *, ptrdiff_t M, ptrdiff_t I, ptrdiff_t H, ptrdiff_t b0, ptrdiff_t b1,
                    const real *x, ptrdiff_t x_row, const real *panels, const real *bias, real *gates);
    /* LSTM: h = o tanh(c) for n rows of H, o among gates (n, G) */
    void (*lstm_hidden)(ptrdiff_t n, ptrdiff_t H, const real *gates, const real *c, real *h);
    /* LSTM: d_peephole (3, H), the sum over n rows, the last first, for units [j0, j1) */
    void (*lstm_peephole)(ptrdiff_t n, ptrdiff_t H, ptrdiff_t j0, ptrdiff_t j1, const real *d_gates, ptrdiff_t row,
                          const real *c, const real *c_prev, sum_start, real *d_peephole);

    /* c (M, N), rows c_row apart, = a (M, K), rows a_row apart, times panels [p0, p1) of (K, N) */
    void (*multiply)(ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, ptrdiff_t p0, ptrdiff_t p1, const real *a, ptrdiff_t a_row,
                     const real *panels, real *c, ptrdiff_t c_row);
    /* c (M, N), the sum over k < K <= BLOCK_ROWS of a[k, 0:M]^T b[k], a's rows a_row apart (it may be negative), b (K,
     * N) in panels */
    void (*outer_product)(ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, const real *a, ptrdiff_t a_row, const real *panels,
                          sum_start, real *c, real *scratch);
    /* sum (M), the sum over k of a[k, 0:M] */
    void (*sum_rows)(ptrdiff_t M, ptrdiff_t K, const real *a, ptrdiff_t a_row, sum_start, real *sum);
    /* c (n) = a + b; b may be NULL for zeros, c may be a */
    void (*add)(ptrdiff_t n, const real *a, const real *b, real *c);

    void (*activate)(int use_tanh, ptrdiff_t n, const real *x, real *y);
} NAME(kernels);
