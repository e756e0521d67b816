/* One step of any cell: its products, and the time at which the cell's own functions see their numbers. A cell is one
 * file that includes nothing: two functions forward and one backward on a vector of hidden units of one sequence, and a
 * line that makes a NAME(cell) of them. */

INLINE vec NAME(load_lanes)(const real *p, int lanes) { return lanes == VL ? v_load(p) : v_load_n(p, lanes); }
INLINE void NAME(store_lanes)(real *p, vec a, int lanes)
{
    if (lanes == VL)
        v_store(p, a);
    else
        v_store_n(p, a, lanes);
}

INLINE vec NAME(begin_sum)(sum_start start, const real *sum, int lanes)
{
    return start == SUM_ON ? NAME(load_lanes)(sum, lanes) : v_set1(0);
}
INLINE void NAME(end_sum)(sum_start start, real *sum, vec s, int lanes)
{
    NAME(store_lanes)(sum, start == SUM_ADDED ? v_add(NAME(load_lanes)(sum, lanes), s) : s, lanes);
}

/* A vector of hidden units, or the last of them, of one sequence: pointers as in NAME(step), moved there. The gates are
 * `apart` from each other, in gates and in recurrent; those of peephole and d_gates are H apart. */
typedef struct {
    ptrdiff_t H, apart;
    int lanes, keep;
    real *gates;
    const real *recurrent, *peephole, *h_prev, *c_prev;
    real *state, *extra, *h, *h_next;
} NAME(units);

typedef struct {
    ptrdiff_t H, apart;
    int lanes;
    const real *gates, *state, *extra, *peephole, *c_prev, *d_output;
    const real *d_h;
    real *d_state, *d_gates, *h;
} NAME(units_back);

#define LOAD(p) NAME(load_lanes)(p, u->lanes)
#define STORE(p, a) NAME(store_lanes)(p, a, u->lanes)

/* Where the gates of hidden unit j are in a row, the first unit of a vector, and how far from each other: see
 * pack.inc.h. */
INLINE ptrdiff_t NAME(place)(const int gates, const int block, ptrdiff_t H, ptrdiff_t j, ptrdiff_t *apart)
{
    const ptrdiff_t first = j / block * block;
    *apart = H - first < block ? H - first : block;
    return gates * first + (j - first);
}

/* Columns whose product is taken before their cell, so that it is a few kilobytes: but at least four panels, for a
 * single row wants so many. */
INLINE ptrdiff_t NAME(some_blocks)(const int columns, ptrdiff_t rows)
{
    enum { BYTES = 16 * 1024, FEWEST = 4 * NR };
    const ptrdiff_t fit = BYTES / (ptrdiff_t)sizeof(real) / (rows < 1 ? 1 : rows);
    return ((fit < FEWEST ? FEWEST : fit) + columns - 1) / columns;
}

/* The gates of a step are a product and two functions: the second waits for the first, and the processor with it, so it
 * has a pass of its own. */
INLINE void NAME(step_forward)(const NAME(step) * s, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t b0, ptrdiff_t b1,
                               const int gates, const int block, void (*const first)(const NAME(units) *),
                               void (*const second)(const NAME(units) *))
{
    const ptrdiff_t H = s->H, G = gates * H, some = NAME(some_blocks)(gates * block, r1 - r0);
    real *sums = s->recurrent ? s->recurrent : s->gates;
    for (ptrdiff_t b = b0, next; b < b1; b = next) {
        next = b1 - b < some ? b1 : b + some;
        NAME(product)(r1 - r0, G, NAME(panel_of_block)(gates, block, H, b), NAME(panel_of_block)(gates, block, H, next),
                      s->K, s->h_prev + r0 * s->h_prev_row, s->h_prev_row, 1, s->panels,
                      s->recurrent ? s->bias_hh : NULL, sums + r0 * G, G);
        const ptrdiff_t begin = b * block, end = next * block < H ? next * block : H;
        for (int pass = first ? 1 : 2; pass <= 2; pass++)
            for (ptrdiff_t r = r0; r < r1; r++)
                for (ptrdiff_t j = begin; j < end; j += VL) {
                    NAME(units) u = {.H = H, .lanes = H - j < VL ? (int)(H - j) : VL, .keep = s->keep};
                    const ptrdiff_t at = r * G + NAME(place)(gates, block, H, j, &u.apart), k = r * H + j;
                    u.gates = s->gates + at;
                    u.recurrent = s->recurrent ? s->recurrent + at : NULL;
                    u.peephole = s->peephole ? s->peephole + j : NULL;
                    u.h_prev = s->h_prev + r * s->h_prev_row + j;
                    u.c_prev = s->c_prev ? s->c_prev + k : NULL;
                    u.state = s->state ? s->state + k : NULL;
                    u.extra = s->extra ? s->extra + k : NULL;
                    u.h = s->h + r * s->h_row + j;
                    u.h_next = s->h_next ? s->h_next + r * s->h_next_row + j : NULL;
                    if (pass == 1)
                        first(&u);
                    else
                        second(&u);
                }
    }
}

/* Some panels of the product at a time, because each goes through all of a. */
INLINE void NAME(step_backward)(const NAME(step_back) * s, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t p0, ptrdiff_t p1,
                                const int gates, const int block, void (*const back)(const NAME(units_back) *))
{
    const ptrdiff_t H = s->H, G = gates * H, some = 4;
    const ptrdiff_t product_end = r1 < s->product_rows ? r1 : s->product_rows;
    for (ptrdiff_t q = p0, next; q < p1; q = next) {
        next = p1 - q < some ? p1 : q + some;
        if (r0 < product_end)
            NAME(product)(product_end - r0, H, q, next, s->K, s->a + r0 * s->a_row, s->a_row, 1, s->panels, NAME(zeros),
                          s->d_h + r0 * H, H);
        const ptrdiff_t end = next * NR < H ? next * NR : H;
        for (ptrdiff_t r = r0; r < r1; r++)
            for (ptrdiff_t j = q * NR; j < end; j += VL) {
                NAME(units_back) u = {.H = H, .lanes = H - j < VL ? (int)(H - j) : VL};
                const ptrdiff_t k = r * H + j;
                const ptrdiff_t at = r * G + NAME(place)(gates, block, H, j, &u.apart);
                u.gates = s->gates ? s->gates + at : NULL;
                u.state = s->state + k;
                u.extra = s->extra ? s->extra + k : NULL;
                u.peephole = s->peephole ? s->peephole + j : NULL;
                u.c_prev = s->c_prev ? s->c_prev + k : NULL;
                u.d_output = s->d_output ? s->d_output + k : NULL;
                u.d_h = s->d_h + k;
                u.d_state = s->d_state ? s->d_state + k : NULL;
                u.d_gates = s->d_gates + r * s->d_gates_row + j;
                u.h = s->h && r < s->product_rows ? s->h + k : NULL;
                back(&u);
            }
    }
}

/* Makes NAME(cell_NAME) of a cell's functions. GATES and so on are constants, so the loops above are compiled for each
 * cell with its functions in place. */
#define DEFINE_CELL(CELL, GATES, BLOCK, RECURRENT, D_GATES, FIRST, SECOND, BACK)                                       \
    static void NAME(CELL##_step)(const NAME(step) * s, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t b0, ptrdiff_t b1)        \
    {                                                                                                                  \
        NAME(step_forward)(s, r0, r1, b0, b1, GATES, BLOCK, FIRST, SECOND);                                            \
    }                                                                                                                  \
    static void NAME(CELL##_step_back)(const NAME(step_back) * s, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t p0,            \
                                       ptrdiff_t p1)                                                                   \
    {                                                                                                                  \
        NAME(step_backward)(s, r0, r1, p0, p1, GATES, BLOCK, BACK);                                                    \
    }                                                                                                                  \
    static const NAME(cell) NAME(cell_##CELL) = {                                                                      \
        .gates = GATES,                                                                                                \
        .block = BLOCK,                                                                                                \
        .recurrent = RECURRENT,                                                                                        \
        .d_gates = D_GATES,                                                                                            \
        .step = NAME(CELL##_step),                                                                                     \
        .step_back = NAME(CELL##_step_back),                                                                           \
    };
