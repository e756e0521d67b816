/* The backward pass of a layer over time, in one precision, in phases as the forward pass. */

struct NAME(backward) {
    const fastrnn_backward_args *args;
    const fastrnn_packed *packed;
    const NAME(kernels) * kernel;
    const NAME(cell) * cell;
    steps steps;
    /* Steps are computed in chunks, the last chunk first. d_gates (rows of a chunk + B, d_gates_row): the gradients of
     * the chunk's steps, then those of the step after it. h_prev (rows, P): h_{t-1} of each row. With a projection, d_h
     * (rows, P) and m (rows, H): the gradient of h_t, and the hidden units before the projection. */
    ptrdiff_t chunk, d_gates_row;
    real *d_gates, *h_prev, *d_h, *m;
    real *gated; /* (rows of a chunk, H): of a cell of two parts, the left-hand side of the second product */
    real *d_m; /* (B, H): with a projection, the gradient of a step's hidden units; of a cell of two parts, of gated */
    real *d_hidden, *d_state[FASTRNN_MOST_STATES]; /* (B, P), (B, H): gradients of the states, step by step; not in the
                                                      results, as in forward. d_state[0]: along the bypass */
    /* If members share sequences, each has private rows of d_m, d_hidden, d_state, reset_state and own_d_gates
     * (own_backward). between_hidden (B, P) and between_state (B, H): the gradients of the states between two phases.
     * own_d_gates (2, B, d_gates_row): d_gates of steps t and t + 1 before they are copied to d_gates; NULL: the kernel
     * writes there. */
    real *between_hidden, *between_state[FASTRNN_MOST_STATES], *own_d_gates;
    int by_rows, keeps_own_d_gates; /* whether members share sequences, and whether there is own_d_gates */
    ptrdiff_t half_of_own_d_gates;  /* numbers between those of t and t + 1 */
    ptrdiff_t own_before;           /* the steps before this one have d_gates in own_d_gates */
    real *panels_x, *panels_h, *panels_m, *panels_g; /* packed rows of x, h_prev, m and gated: [panel][up to
                                                        BLOCK_ROWS][width] */
    const real *gates, *states[FASTRNN_MOST_STATES],
        *intermediate;                      /* in the tape: (N, G), (N, P) h, (N, H); NULL: not saved */
    real *reset_state[FASTRNN_MOST_STATES]; /* (B, H): states of the step before, zeros where reset */
    real *scratch;                          /* scratch_size numbers for each member, for outer_product */
    ptrdiff_t scratch_size;
    NAME(sums) sums;
    size_t at_d_gates, at_h_prev, at_d_h, at_m, at_gated, at_d_m, at_d_hidden, at_d_state[FASTRNN_MOST_STATES],
        at_reset_state[FASTRNN_MOST_STATES], at_panels_x, at_panels_h, at_panels_m, at_panels_g, at_scratch, at_block,
        at_groups, at_between_hidden, at_between_state[FASTRNN_MOST_STATES], at_own_d_gates;
};

/* The member's memory for packed tiles. */
static real *NAME(scratch_of)(const struct NAME(backward) * b, const fastrnn_member *me)
{
    return b->scratch + me->index * b->scratch_size;
}

/* Rows of h, in panels of each head. */
static fastrnn_matrix NAME(rows_of_head)(const struct NAME(backward) * b, ptrdiff_t rows, real *panels, ptrdiff_t head)
{
    const ptrdiff_t S = b->packed->S, width = b->kernel->width, numbers = fastrnn_panels(S, width) * width * rows;
    return (fastrnn_matrix){.K = rows, .N = S, .panels = panels + head * numbers};
}

static void NAME(pack_heads_of)(const struct NAME(backward) * b, const fastrnn_member *me, ptrdiff_t rows,
                                const real *h, ptrdiff_t stride, real *panels)
{
    const ptrdiff_t S = b->packed->S, of_head = fastrnn_panels(S, b->kernel->width);
    const fastrnn_range mine = fastrnn_share(b->packed->heads * of_head, me);
    for (ptrdiff_t p = mine.from, next; p < mine.to; p = next) {
        const ptrdiff_t head = p / of_head, first = head * of_head;
        next = mine.to < first + of_head ? mine.to : first + of_head;
        const fastrnn_matrix matrix = NAME(rows_of_head)(b, rows, panels, head);
        b->kernel->pack_rows(rows, p - first, next - first, h + head * S, stride, 0, &matrix);
    }
}

/* sum_products of weight_hh: of each head, its own columns of a and its own panels. */
static void NAME(recurrent_gradient)(const struct NAME(backward) * b, const fastrnn_member *me, fastrnn_block_part part,
                                     fastrnn_range columns, const real *a, ptrdiff_t a_row, real *panels,
                                     NAME(sum) gradient)
{
    const ptrdiff_t heads = b->packed->heads, S = b->packed->S;
    const fastrnn_range panels_of_head = {0, fastrnn_panels(S, b->kernel->width)};
    for (ptrdiff_t from = columns.from, to; from < columns.to; from = to) {
        to = heads > 1 && (from / S + 1) * S < columns.to ? (from / S + 1) * S : columns.to;
        const fastrnn_matrix matrix = NAME(rows_of_head)(b, part.rows, panels, heads > 1 ? from / S % heads : 0);
        NAME(sum_products)(&b->sums, b->kernel, me, part, (fastrnn_range){from, to}, panels_of_head, a, a_row, &matrix,
                           NAME(scratch_of)(b, me), NAME(sum_from)(gradient, (from - columns.from) * S));
    }
}

/* Adds to the gradient of a bias: the sum of some columns of a over the rows of a part. */
static void NAME(bias_gradient)(const struct NAME(backward) * b, fastrnn_block_part part, fastrnn_range columns,
                                const real *a, ptrdiff_t a_row, NAME(sum) gradient)
{
    sum_start start;
    real *sum = NAME(open_sum)(&b->sums, gradient, part, &start);
    b->kernel->sum_rows(columns.to - columns.from, part.rows, a + columns.from, a_row, start, sum);
    NAME(close_sum)(&b->sums, b->kernel, gradient, part, columns.to - columns.from);
}

/* Pointers to the states, except h, of row r of step t and of the step before it. */
static void NAME(states_at)(const struct NAME(backward) * b, ptrdiff_t t, ptrdiff_t r, const real **state,
                            const real **state_prev)
{
    const ptrdiff_t H = b->packed->H;
    for (int n = 1; n < b->cell->states; n++) {
        state[n] = b->states[n] + (first_row(&b->steps, t) + r) * H;
        state_prev[n] =
            (t ? b->states[n] + first_row(&b->steps, t - 1) * H : (const real *)b->args->state_0[n]) + r * H;
    }
}

/* Replaces pointers to states of the step before t, at row `first`, by pointers to copies with zeros where the states
 * are reset; copies some units of some rows. */
static void NAME(reset_states)(const struct NAME(backward) * b, ptrdiff_t t, fastrnn_range rows, fastrnn_range units,
                               ptrdiff_t first, const real **state_prev)
{
    const ptrdiff_t H = b->packed->H;
    const uint8_t *resets = resets_of_step(&b->steps, t);
    for (int n = 0; resets && n < b->cell->states; n++) {
        if (!state_prev[n]) continue;
        copy_rows(b->reset_state[n], state_prev[n] - first * H, H, resets, rows, units, sizeof(real));
        state_prev[n] = b->reset_state[n] + first * H;
    }
}

/* Adds to the gradient of the peepholes, for units [from, to): the rows of steps [t0, t1), after `done` rows. */
static void NAME(peephole_gradient)(const struct NAME(backward) * b, const fastrnn_member *me, ptrdiff_t t0,
                                    ptrdiff_t t1, ptrdiff_t from, ptrdiff_t to, ptrdiff_t done)
{
    const ptrdiff_t H = b->packed->H, row = b->d_gates_row, first = first_row(&b->steps, t0);
    for (ptrdiff_t t = t1 - 1; t >= t0; t--) {
        const ptrdiff_t at = first_row(&b->steps, t), count = rows_of_step(&b->steps, t);
        if (!fastrnn_team_go(me, 20.0 * count * H)) return;
        fastrnn_block_part part;
        for (ptrdiff_t end = count, r; end > 0; end = r, done += part.rows) {
            const real *state[FASTRNN_MOST_STATES] = {NULL}, *state_prev[FASTRNN_MOST_STATES] = {NULL};
            part = fastrnn_next_part(done, end, b->sums.all);
            r = end - part.rows;
            NAME(states_at)(b, t, r, state, state_prev);
            NAME(reset_states)(b, t, (fastrnn_range){r, end}, (fastrnn_range){from, to}, r, state_prev);
            sum_start start;
            real *sum = NAME(open_sum)(&b->sums, b->sums.peephole, part, &start);
            b->cell->peephole_gradient(part.rows, H, from, to, b->d_gates + (at - first + r) * row, row, state,
                                       state_prev, start, sum);
            for (int p = 0; from < to && p < b->cell->peepholes; p++)
                NAME(close_sum)(&b->sums, b->kernel, NAME(sum_from)(b->sums.peephole, p * H + from), part, to - from);
        }
    }
}

/* Steps [from, to) of a chunk [t0, t1); or some of its rows, in `parts` parts. */
typedef struct {
    const struct NAME(backward) * b;
    ptrdiff_t t0, t1, from, to;
    ptrdiff_t end; /* the rows of `part` end here, in the chunk */
    fastrnn_block_part part;
    int parts;
} NAME(backward_phase);

/* A member's share of part `item` of the columns, in whole tiles. */
static fastrnn_range NAME(share_tiles)(ptrdiff_t columns, int tile, int parts, const fastrnn_member *me)
{
    const fastrnn_range mine = fastrnn_share_of_item(fastrnn_panels(columns, tile), parts, me);
    return first_of((fastrnn_range){mine.from * tile, mine.to * tile}, columns);
}

/* Packs the part's rows of x, h_prev, m and gated: the member's share of the panels of each. */
static void NAME(share_of_packing)(const void *context, const fastrnn_member *me)
{
    const NAME(backward_phase) *phase = context;
    const struct NAME(backward) *b = phase->b;
    const NAME(kernels) *kernel = b->kernel;
    const ptrdiff_t I = b->packed->I, H = b->packed->H, P = b->packed->P, rows = phase->part.rows;
    const ptrdiff_t last = phase->end - 1, width = kernel->width;
    const real *x = (const real *)b->args->x + (first_row(&b->steps, phase->t0) + last) * I;
    const fastrnn_range x_panels = fastrnn_share(fastrnn_panels(I, width), me),
                        m_panels = fastrnn_share(fastrnn_panels(H, width), me);
    const fastrnn_matrix of_x = {.K = rows, .N = I, .panels = b->panels_x},
                         of_m = {.K = rows, .N = H, .panels = b->panels_m};
    kernel->pack_rows(rows, x_panels.from, x_panels.to, x, -I, 0, &of_x);
    NAME(pack_heads_of)(b, me, rows, b->h_prev + last * P, -P, b->panels_h);
    if (b->m) kernel->pack_rows(rows, m_panels.from, m_panels.to, b->m + last * H, -H, 0, &of_m);
    if (b->gated) NAME(pack_heads_of)(b, me, rows, b->gated + last * H, -H, b->panels_g);
}

/* Adds the part's rows to the gradients of the member's share of the weights' rows, or of the columns of weight_ih. The
 * gradients of the recurrent sums are the first of d_gates, those of the input's sums the last: the same columns, or
 * `shift` further. */
static void NAME(share_of_sums)(const void *context, const fastrnn_member *me)
{
    const NAME(backward_phase) *phase = context;
    const struct NAME(backward) *b = phase->b;
    const fastrnn_backward_args *args = b->args;
    const NAME(kernels) *kernel = b->kernel;
    const NAME(sums) *sums = &b->sums;
    const fastrnn_block_part part = phase->part;
    const ptrdiff_t I = b->packed->I, H = b->packed->H, P = b->packed->P, G = b->cell->gates * H, row = b->d_gates_row;
    const ptrdiff_t S = b->packed->S;
    const ptrdiff_t shift = (b->cell->d_gates - b->cell->gates) * H;
    const fastrnn_range gates = NAME(share_tiles)(G, kernel->tile_rows, phase->parts, me);
    const fastrnn_range of_P = NAME(share_tiles)(P, kernel->tile_rows, phase->parts, me);
    /* Of the recurrent gradients, the first `shift` belong to the last rows of the weights. Those from second_part on
     * belong to the product of the second part. */
    const ptrdiff_t second_part = b->gated ? b->cell->parts[0] * H : G;
    const fastrnn_range low = first_of(gates, shift), high = from_row(gates, shift);
    const fastrnn_range of_h = first_of(high, second_part), of_g = from_row(high, second_part);
    const ptrdiff_t low_row = G - shift + low.from, high_row = high.from - shift;
    const int same_biases = shift == 0 && args->d_bias_ih && args->d_bias_hh;
    const real *d_gates = b->d_gates + (phase->end - 1) * row;
    const fastrnn_matrix x = {.K = part.rows, .N = I, .panels = b->panels_x},
                         m = {.K = part.rows, .N = H, .panels = b->panels_m};
    const ptrdiff_t x_panels = fastrnn_panels(I, kernel->width);
    const int by_columns = shares_columns(G, I);
    const fastrnn_range rows_ih = by_columns ? (fastrnn_range){0, G} : gates,
                        some = by_columns ? fastrnn_share_of_item(x_panels, phase->parts, me)
                                          : (fastrnn_range){0, x_panels};
    NAME(sum_products)(sums, kernel, me, part, rows_ih, some, d_gates + shift, -row, &x, NAME(scratch_of)(b, me),
                       NAME(sum_from)(sums->weight_ih, rows_ih.from * I));
    NAME(recurrent_gradient)(b, me, part, low, d_gates, -row, b->panels_h,
                             NAME(sum_from)(sums->weight_hh, low_row * S));
    NAME(recurrent_gradient)(b, me, part, of_h, d_gates, -row, b->panels_h,
                             NAME(sum_from)(sums->weight_hh, high_row * S));
    if (b->gated)
        NAME(recurrent_gradient)(b, me, part, of_g, d_gates, -row, b->panels_g,
                                 NAME(sum_from)(sums->weight_hh, of_g.from * S));
    if (b->m)
        NAME(sum_products)(sums, kernel, me, part, of_P, (fastrnn_range){0, fastrnn_panels(H, kernel->width)},
                           b->d_h + (phase->end - 1) * P, -P, &m, NAME(scratch_of)(b, me),
                           NAME(sum_from)(sums->weight_hr, of_P.from * H));
    if (args->d_bias_ih)
        NAME(bias_gradient)(b, part, gates, d_gates + shift, -row, NAME(sum_from)(sums->bias_ih, gates.from));
    if (args->d_bias_hh && !same_biases) {
        NAME(bias_gradient)(b, part, low, d_gates, -row, NAME(sum_from)(sums->bias_hh, low_row));
        NAME(bias_gradient)(b, part, high, d_gates, -row, NAME(sum_from)(sums->bias_hh, high_row));
    }
    if (same_biases && part.ends)
        copy_bytes((real *)args->d_bias_hh + gates.from, (real *)args->d_bias_ih + gates.from, gates.to - gates.from, 1,
                   sizeof(real));
}

/* The number of rows that were summed before those of the chunk that ends with step t1. */
static ptrdiff_t NAME(rows_done)(const struct NAME(backward) * b, ptrdiff_t t1)
{
    return b->sums.done + first_row(&b->steps, b->steps.T) - first_row(&b->steps, t1);
}

/* Adds the chunk's rows to the gradients of the peepholes of the member's share of hidden units. */
static void NAME(share_of_peepholes)(const void *context, const fastrnn_member *me)
{
    const NAME(backward_phase) *phase = context;
    const struct NAME(backward) *b = phase->b;
    const ptrdiff_t H = b->packed->H, width = b->kernel->width;
    const fastrnn_range panels = fastrnn_share(fastrnn_panels(H, width), me);
    const fastrnn_range units = first_of((fastrnn_range){panels.from * width, panels.to * width}, H);
    NAME(peephole_gradient)(b, me, phase->t0, phase->t1, units.from, units.to, NAME(rows_done)(b, phase->t1));
}

/* Adds the chunk's rows, from the last to the first, to the gradients of the weights: d_gates[r]^T x[r] and
 * d_gates[r]^T h_prev[r]. Because rows descend, as time does here, the sums do not depend on the chunks. alone: the
 * member that computes all of it, or NULL for the team. Returns 0 if the call is cancelled. */
static int NAME(weight_gradients)(const struct NAME(backward) * b, fastrnn_team *team, const fastrnn_member *alone,
                                  int most, NAME(backward_phase) * phase)
{
    const ptrdiff_t I = b->packed->I, H = b->packed->H, P = b->packed->P, G = b->cell->gates * H;
    const ptrdiff_t n = first_row(&b->steps, phase->t1) - first_row(&b->steps, phase->t0);
    for (phase->end = n; phase->end > 0; phase->end -= phase->part.rows) {
        phase->part = fastrnn_next_part(NAME(rows_done)(b, phase->t1) + n - phase->end, phase->end, b->sums.all);
        const double rows = (double)phase->part.rows,
                     operations = 2 * rows * ((double)G * (I + b->packed->S) + (b->m ? P * H : 0));
        if (!phase_of(team, alone, most, 4 * rows * (I + P), NAME(share_of_packing), phase, 0)) return 0;
        phase->parts = fastrnn_phases(operations, fastrnn_panels(G, b->kernel->outer_rows) / (2 * most));
        for (int k = 0; k < phase->parts; k++)
            if (!phase_of(team, alone, most, operations / phase->parts, NAME(share_of_sums), phase, k)) return 0;
    }
    return !b->args->d_peephole || phase_of(team, alone, most, 20.0 * n * H, NAME(share_of_peepholes), phase, 0);
}

/* d_x (rows, I) from row `first` on, for some panels: d_gates of these rows times W_ih. */
static void NAME(input_gradient)(const struct NAME(backward) * b, const fastrnn_member *me, ptrdiff_t first,
                                 ptrdiff_t rows, fastrnn_range panels, const real *d_gates)
{
    const ptrdiff_t I = b->packed->I, H = b->packed->H, G = b->cell->gates * H;
    for (fastrnn_range piece = fastrnn_no_piece(panels);
         fastrnn_next_piece(me, panels, 2.0 * rows * G * b->kernel->width, &piece);)
        b->kernel->multiply(rows, piece.from, piece.to, d_gates + (b->cell->d_gates * H - G), b->d_gates_row,
                            &b->packed->weight_ih[0], NULL, (real *)b->args->d_x + first * I, I);
}

/* d_gates (rows of the step, d_gates_row) of step t of a chunk that begins with step t0, as steps t and t - 1 read and
 * write them. */
static real *NAME(d_gates_of)(const struct NAME(backward) * b, ptrdiff_t t0, ptrdiff_t t)
{
    if (b->own_d_gates && t < b->own_before) return b->own_d_gates + t % 2 * b->half_of_own_d_gates;
    return b->d_gates + (first_row(&b->steps, t) - first_row(&b->steps, t0)) * b->d_gates_row;
}

/* With a projection: d_h of step t, for some sequences and some panels. */
static void NAME(hidden_gradient)(const struct NAME(backward) * b, const fastrnn_member *me, ptrdiff_t t0, ptrdiff_t t,
                                  fastrnn_range rows, fastrnn_range panels)
{
    const NAME(kernels) *kernel = b->kernel;
    const ptrdiff_t P = b->packed->P, G = b->cell->gates * b->packed->H, row = b->d_gates_row;
    const ptrdiff_t first = first_row(&b->steps, t0), at = first_row(&b->steps, t);
    const real *d_gates_next = NAME(d_gates_of)(b, t0, t + 1);
    const real *d_output = b->args->d_output;
    real *d_h = b->d_h + (at - first) * P;
    const fastrnn_range now = first_of(rows, rows_of_step(&b->steps, t)),
                        both = first_of(now, rows_of_step(&b->steps, t + 1));
    const ptrdiff_t from = panels.from * kernel->width,
                    to = panels.to * kernel->width < P ? panels.to * kernel->width : P;
    for (fastrnn_range piece = fastrnn_no_piece(panels);
         fastrnn_next_piece(me, panels, 2.0 * (both.to - both.from) * G * kernel->width, &piece);)
        kernel->multiply(both.to - both.from, piece.from, piece.to, d_gates_next + both.from * row, row,
                         &b->packed->weight_hh[0], NULL, b->d_hidden + both.from * P, P);
    clear_rows(b->d_hidden, P, resets_of_step(&b->steps, t + 1), both, (fastrnn_range){from, to}, sizeof(real));
    for (ptrdiff_t r = now.from; from < to && r < now.to; r++)
        kernel->add(to - from, b->d_hidden + r * P + from, d_output ? d_output + (at + r) * P + from : NULL,
                    d_h + r * P + from);
}

/* Part 0 of step t of a chunk from t0 to t1, or part 1 after it, for some sequences and some panels of hidden units.
 * Copies h_t, which is h_prev of the step after, from the tape for the sequences `next`, unless the cell recovers it;
 * and private d_gates to those of all rows. */
static void NAME(backward_step)(const struct NAME(backward) * b, const fastrnn_member *me, int part, ptrdiff_t t0,
                                ptrdiff_t t1, ptrdiff_t t, fastrnn_range rows, fastrnn_range units, fastrnn_range next)
{
    const fastrnn_backward_args *args = b->args;
    const fastrnn_packed *packed = b->packed;
    const ptrdiff_t H = packed->H, P = packed->P, G = b->cell->gates * H, row = b->d_gates_row;
    const real *h = b->states[0], *d_output = args->d_output;
    const ptrdiff_t first = first_row(&b->steps, t0), at = first_row(&b->steps, t);
    const ptrdiff_t count = rows_of_step(&b->steps, t), after = rows_of_step(&b->steps, t + 1);
    const fastrnn_range now = first_of(rows, count);
    real *h_next = t == t1 - 1 ? NULL : b->h_prev + (at + count - first) * P;
    const fastrnn_range columns = {units.from * b->kernel->width,
                                   units.to * b->kernel->width < H ? units.to * b->kernel->width : H};
    const uint8_t *resets = resets_of_step(&b->steps, t), *next_resets = resets_of_step(&b->steps, t + 1);
    NAME(step_back)
    step = {
        .H = H,
        .options = packed->has_options ? &packed->options : NULL,
        .matrix = &packed->weight_hh[part],
        .a = NAME(d_gates_of)(b, t0, t + 1),
        .a_row = row,
        .product_rows = after,
        .sum = b->d_hidden,
        .no_product = next_resets,
        .peephole = packed->peephole,
        .gates = b->gates ? b->gates + at * G : NULL,
        .kept_h = h ? h + at * H : NULL,
        .intermediate = b->intermediate ? b->intermediate + at * H : NULL,
        .h_prev = !h || packed->has_projection ? NULL
                  : t                          ? h + first_row(&b->steps, t - 1) * H
                                               : args->state_0[0],
        .d_output = d_output ? d_output + at * P : NULL,
        .d_gates = NAME(d_gates_of)(b, t0, t),
        .d_gates_row = row,
        .h = h ? NULL : h_next,
    };
    NAME(states_at)(b, t, 0, step.state, step.state_prev);
    step.state_prev[0] = step.h_prev;
    NAME(reset_states)(b, t, now, columns, 0, step.state_prev);
    step.h_prev = step.state_prev[0];
    for (int n = 0; n < b->cell->states; n++) step.d_state[n] = b->d_state[n];
    if (packed->has_projection) {
        step.matrix = &packed->weight_hr, step.a = b->d_h + (at - first) * P, step.a_row = P;
        step.product_rows = count, step.sum = b->d_m, step.no_product = NULL;
        step.kept_h = step.d_output = NULL, step.h = b->m + (at - first) * H;
    } else if (part == 1) {
        step.a = step.d_gates + b->cell->parts[0] * H;
        step.product_rows = count, step.sum = b->d_m, step.no_product = NULL, step.h = b->gated + (at - first) * H;
    }
    if (columns.to - columns.from < H && packed->heads == 1)
        fetch_rows(step.a, step.product_rows, step.matrix->K, step.a_row, sizeof(real));
    const double operations = 2.0 * (now.to - now.from) * step.matrix->K * b->kernel->width;
    for (fastrnn_range piece = fastrnn_no_piece(units); fastrnn_next_piece(me, units, operations, &piece);)
        for (fastrnn_range left = piece; left.from < left.to;) {
            const int width = b->kernel->width;
            const fastrnn_range some = take_part(&left, width, step.matrix->K, width, t % 2);
            b->cell->step_back(&step, part, now.from, now.to, some.from, some.to);
        }
    if (part == 0 && h_next && h) {
        const fastrnn_range kept = first_of(next, after);
        copy_bytes(h_next + kept.from * P, h + (at + kept.from) * P, kept.to - kept.from, P, sizeof(real));
        clear_rows(h_next, P, next_resets, kept, (fastrnn_range){0, P}, sizeof(real));
    } else if (h_next && !h)
        clear_rows(h_next, P, next_resets, first_of(now, after), columns, sizeof(real));
    for (int n = 0; part == packed->parts - 1 && n < b->cell->states; n++)
        if (b->d_state[n]) clear_rows(b->d_state[n], H, resets, now, columns, sizeof(real));
    if (b->own_d_gates && part == packed->parts - 1)
        copy_bytes(b->d_gates + (at - first + now.from) * row, step.d_gates + now.from * row, now.to - now.from, row,
                   sizeof(real));
}

/* Steps [from, to) of a chunk from t0 to t1, the last first, for some sequences, by one member. If these are all
 * sequences, d_x is computed for all steps together. */
static void NAME(backward_rows)(const struct NAME(backward) * b, const fastrnn_member *me, fastrnn_range rows,
                                ptrdiff_t t0, ptrdiff_t t1, ptrdiff_t from, ptrdiff_t to)
{
    const ptrdiff_t row = b->d_gates_row, first = first_row(&b->steps, t0);
    const fastrnn_range units = {0, fastrnn_panels(b->packed->H, b->kernel->width)},
                        h_panels = {0, fastrnn_panels(b->packed->P, b->kernel->width)},
                        x_panels = {0, fastrnn_panels(b->packed->I, b->kernel->width)};
    const int all = rows.from == 0 && rows.to == b->args->B;
    for (ptrdiff_t t = to - 1; t >= from; t--) {
        if (b->packed->has_projection) NAME(hidden_gradient)(b, me, t0, t, rows, h_panels);
        for (int part = 0; part < b->packed->parts; part++)
            NAME(backward_step)(b, me, part, t0, t1, t, rows, units, rows);
        if (!b->args->d_x || (all && t > from)) continue;
        const ptrdiff_t at = first_row(&b->steps, t);
        const fastrnn_range now =
            all ? (fastrnn_range){0, first_row(&b->steps, to) - at} : first_of(rows, rows_of_step(&b->steps, t));
        NAME(input_gradient)(b, me, at + now.from, now.to - now.from, x_panels,
                             all ? b->d_gates + (at - first) * row : NAME(d_gates_of)(b, t0, t) + now.from * row);
    }
}

/* b with private rows, as in own_memory, for the steps before step `end`. */
static struct NAME(backward)
    NAME(own_backward)(const struct NAME(backward) * b, const fastrnn_member *me, ptrdiff_t end)
{
    const ptrdiff_t apart = APART / (ptrdiff_t)sizeof(real) * me->index;
    struct NAME(backward) own = *b;
    own.d_m += apart;
    own.d_hidden += apart;
    if (own.own_d_gates) own.own_d_gates += apart;
    for (int n = 0; n < FASTRNN_MOST_STATES; n++) {
        if (own.d_state[n]) own.d_state[n] += apart;
        own.reset_state[n] += apart;
    }
    own.own_before = end;
    return own;
}

/* Copies the gradients of the states of some sequences from the arrays between phases to the private rows, or back. */
static void NAME(move_gradients)(const struct NAME(backward) * own, fastrnn_range rows, int back)
{
    const ptrdiff_t H = own->packed->H, P = own->packed->P;
    real *hidden[] = {own->between_hidden + rows.from * P, own->d_hidden + rows.from * P};
    copy_bytes(hidden[!back], hidden[back], rows.to - rows.from, P, sizeof(real));
    for (int n = 0; n < own->cell->states; n++) {
        if (!own->d_state[n]) continue;
        real *state[] = {own->between_state[n] + rows.from * H, own->d_state[n] + rows.from * H};
        copy_bytes(state[!back], state[back], rows.to - rows.from, H, sizeof(real));
    }
}

static void NAME(backward_share_of_rows)(const void *context, const fastrnn_member *me)
{
    const NAME(backward_phase) *phase = context;
    const fastrnn_range rows = share_rows(&phase->b->steps, phase->from, phase->to, me);
    if (rows.from >= rows.to) return;
    const struct NAME(backward) own = NAME(own_backward)(phase->b, me, phase->to);
    NAME(move_gradients)(&own, rows, 0);
    NAME(backward_rows)(&own, me, rows, phase->t0, phase->t1, phase->from, phase->to);
    NAME(move_gradients)(&own, rows, 1);
}

static void NAME(backward_share_of_hidden)(const void *context, const fastrnn_member *me)
{
    const NAME(backward_phase) *phase = context;
    const fastrnn_range all = {0, phase->b->args->B};
    NAME(hidden_gradient)(phase->b, me, phase->t0, me->item, all,
                          fastrnn_share(fastrnn_panels(phase->b->packed->P, phase->b->kernel->width), me));
}

static void NAME(backward_share_of_step)(const void *context, const fastrnn_member *me)
{
    const NAME(backward_phase) *phase = context;
    const struct NAME(backward) *b = phase->b;
    const fastrnn_range all = {0, b->args->B};
    NAME(backward_step)(b, me, 0, phase->t0, phase->t1, me->item, all,
                        fastrnn_share(fastrnn_panels(b->packed->H, b->kernel->width), me),
                        fastrnn_share(b->args->B, me));
}

static void NAME(backward_share_of_part_1)(const void *context, const fastrnn_member *me)
{
    const NAME(backward_phase) *phase = context;
    const struct NAME(backward) *b = phase->b;
    const fastrnn_range all = {0, b->args->B}, none = {0, 0};
    NAME(backward_step)(b, me, 1, phase->t0, phase->t1, me->item, all,
                        fastrnn_share(fastrnn_panels(b->packed->H, b->kernel->width), me), none);
}

/* d_x of the member's share of the rows, for part `item` of the panels. */
static void NAME(backward_share_of_input)(const void *context, const fastrnn_member *me)
{
    const NAME(backward_phase) *phase = context;
    const struct NAME(backward) *b = phase->b;
    const ptrdiff_t at = first_row(&b->steps, phase->t0), x_panels = fastrnn_panels(b->packed->I, b->kernel->width);
    const fastrnn_range rows = fastrnn_share(first_row(&b->steps, phase->t1) - at, me);
    NAME(input_gradient)(b, me, at + rows.from, rows.to - rows.from, fastrnn_part(x_panels, me->item, phase->parts),
                         b->d_gates + rows.from * b->d_gates_row);
}

/* Writes h_prev of the chunk's first step: h of the step before it, or h_0. */
static void NAME(first_h_prev)(const struct NAME(backward) * b, ptrdiff_t t0)
{
    const ptrdiff_t H = b->packed->H, P = b->packed->P, n = rows_of_step(&b->steps, t0);
    const ptrdiff_t before = t0 ? first_row(&b->steps, t0 - 1) : 0;
    if (t0 == 0)
        copy_bytes(b->h_prev, b->args->state_0[0], n, P, sizeof(real));
    else if (b->states[0])
        copy_bytes(b->h_prev, b->states[0] + before * P, n, P, sizeof(real));
    else {
        const real *state[FASTRNN_MOST_STATES] = {NULL};
        for (int k = 1; k < b->cell->states; k++) state[k] = b->states[k] + before * H;
        b->cell->recover_h(n, H, b->packed->has_options ? &b->packed->options : NULL,
                           b->gates + before * b->cell->gates * H, state, b->h_prev);
    }
    clear_rows(b->h_prev, P, resets_of_step(&b->steps, t0), (fastrnn_range){0, n}, (fastrnn_range){0, P}, sizeof(real));
}

/* Copies d_gates of the chunk's first step to the place of the step after the next chunk, which begins at `next`. */
static void NAME(keep_first_step)(const struct NAME(backward) * b, ptrdiff_t t0, ptrdiff_t next)
{
    const ptrdiff_t row = b->d_gates_row, last = first_row(&b->steps, t0) - first_row(&b->steps, next);
    copy_bytes(b->d_gates + last * row, b->d_gates, rows_of_step(&b->steps, t0), row, sizeof(real));
}

/* d_h_0, for the member's share of the panels. */
static void NAME(backward_share_of_h_0)(const void *context, const fastrnn_member *me)
{
    const struct NAME(backward) *b = ((const NAME(backward_phase) *)context)->b;
    const ptrdiff_t P = b->packed->P, G = b->cell->gates * b->packed->H, count = rows_of_step(&b->steps, 0);
    const fastrnn_range panels = fastrnn_share(fastrnn_panels(P, b->kernel->width), me);
    for (fastrnn_range piece = fastrnn_no_piece(panels);
         fastrnn_next_piece(me, panels, 2.0 * count * G * b->kernel->width, &piece);)
        b->kernel->multiply(count, piece.from, piece.to, b->d_gates, b->d_gates_row, &b->packed->weight_hh[0], NULL,
                            b->args->d_state_0[0], P);
    const ptrdiff_t to = panels.to * b->kernel->width;
    clear_rows(b->args->d_state_0[0], P, resets_of_step(&b->steps, 0), (fastrnn_range){0, count},
               (fastrnn_range){panels.from * b->kernel->width, to < P ? to : P}, sizeof(real));
}

static void NAME(end_backward)(const struct NAME(backward) * b)
{
    const ptrdiff_t H = b->packed->H, count = rows_of_step(&b->steps, 0);
    real *d_h_0 = b->args->d_state_0[0];
    real *const *d_state = b->by_rows ? b->between_state : b->d_state;
    for (int n = 1; n < b->cell->states; n++) copy_bytes(b->args->d_state_0[n], d_state[n], count, H, sizeof(real));
    if (b->cell->bypass) b->kernel->add(count * H, d_h_0, d_state[0], d_h_0);
}

/* The steps of a chunk, then d_x: the team shares d_x, and the hidden units unless the plan leaves the steps to the
 * caller. Returns 0 if the call is cancelled. */
static int NAME(backward_steps)(const struct NAME(backward) * b, fastrnn_team *team, fastrnn_plan p,
                                NAME(backward_phase) * phase)
{
    const int most = p.sharing == FASTRNN_SHARE_PRODUCTS ? 1 : p.threads;
    const ptrdiff_t I = b->packed->I, H = b->packed->H, P = b->packed->P;
    const double G = b->cell->gates * (double)H;
    for (ptrdiff_t t = phase->t1 - 1; t >= phase->t0; t--) {
        const double now = (double)rows_of_step(&b->steps, t);
        const int projected = b->packed->has_projection;
        if (projected && !fastrnn_team_phase(team, most, 2 * now * P * G, NAME(backward_share_of_hidden), phase, t))
            return 0;
        const double operations = 2 * now * H * (projected ? (double)P : G / (double)b->packed->heads);
        if (!fastrnn_team_phase(team, most, operations, NAME(backward_share_of_step), phase, t)) return 0;
        if (b->packed->parts > 1 && !fastrnn_team_phase(team, most, 2 * now * H * b->cell->parts[1] * H,
                                                        NAME(backward_share_of_part_1), phase, t))
            return 0;
    }
    if (!b->args->d_x) return 1;
    const double operations = 2.0 * (first_row(&b->steps, phase->t1) - first_row(&b->steps, phase->t0)) * I * G;
    phase->parts = fastrnn_phases(operations, fastrnn_panels(I, b->kernel->width) / 4);
    for (int k = 0; k < phase->parts; k++)
        if (!fastrnn_team_phase(team, p.threads, operations / phase->parts, NAME(backward_share_of_input), phase, k))
            return 0;
    return 1;
}

/* One call, run by its plan. Returns 0 if it is cancelled. */
static int NAME(backward_call)(const struct NAME(backward) * b, fastrnn_team *team, fastrnn_plan p)
{
    const double operations = 2.0 * b->cell->gates * b->packed->H * (b->packed->I + b->packed->S);
    const ptrdiff_t T = b->args->T;
    const fastrnn_member caller = fastrnn_caller(team), *alone = p.threads == 1 ? &caller : NULL;
    const fastrnn_range all = {0, b->args->B};
    NAME(backward_phase) phase = {.b = b};
    for (phase.t1 = T; phase.t1 > 0; phase.t1 = phase.t0) {
        phase.t0 = start_of_chunk(&b->steps, phase.t1, b->chunk);
        NAME(first_h_prev)(b, phase.t0);
        if (alone)
            NAME(backward_rows)(b, alone, all, phase.t0, phase.t1, phase.t0, phase.t1);
        else if (p.sharing == FASTRNN_SHARE_ROWS) {
            const ptrdiff_t n = phase.t1 - phase.t0;
            const int pieces = fastrnn_pieces(p.alone * n / T, PIECE, n);
            for (int k = pieces - 1; k >= 0; k--) {
                phase.from = phase.t0 + fastrnn_part(n, k, pieces).from,
                phase.to = phase.t0 + fastrnn_part(n, k, pieces).to;
                const ptrdiff_t rows = first_row(&b->steps, phase.to) - first_row(&b->steps, phase.from);
                if (!fastrnn_team_phase(team, p.threads, operations * rows, NAME(backward_share_of_rows), &phase, 0))
                    return 0;
            }
        } else if (!NAME(backward_steps)(b, team, p, &phase))
            return 0;
        if (!NAME(weight_gradients)(b, team, alone, p.threads, &phase)) return 0;
        if (phase.t0 > 0) NAME(keep_first_step)(b, phase.t0, start_of_chunk(&b->steps, phase.t0, b->chunk));
    }
    if (!phase_of(team, alone, p.threads, 2.0 * b->args->B * b->packed->S * b->packed->H * b->cell->gates,
                  NAME(backward_share_of_h_0), &phase, 0))
        return 0;
    NAME(end_backward)(b);
    return 1;
}

/* Calls side by side: chunk by chunk, one member computes a call's steps and then its weight gradients. */
typedef struct {
    const struct NAME(backward) * calls;
    int count;
    ptrdiff_t t0, t1;
} NAME(backwards);

static void NAME(backward_pieces)(const void *context, const fastrnn_member *me, int k, int from, int to, int items)
{
    const NAME(backwards) *all = context;
    const struct NAME(backward) *b = &all->calls[k];
    const fastrnn_range rows = {0, b->args->B};
    const ptrdiff_t n = all->t1 - all->t0, t0 = all->t0 + fastrnn_part(n, items - to, items).from;
    const ptrdiff_t t1 = all->t0 + fastrnn_part(n, items - 1 - from, items).to;
    if (from == 0) NAME(first_h_prev)(b, all->t0);
    NAME(backward_rows)(b, me, rows, all->t0, all->t1, t0, t1);
}

static void NAME(backwards_end_chunk)(const void *context, const fastrnn_member *me)
{
    const NAME(backwards) *all = context;
    const fastrnn_member alone = fastrnn_alone(me);
    for (int k = me->index; k < all->count; k += me->size) {
        const struct NAME(backward) *b = &all->calls[k];
        NAME(backward_phase) phase = {.b = b, .t0 = all->t0, .t1 = all->t1};
        if (!NAME(weight_gradients)(b, me->team, &alone, 1, &phase)) return;
        if (all->t0 > 0)
            NAME(keep_first_step)(b, all->t0, start_of_chunk(&b->steps, all->t0, b->chunk));
        else {
            NAME(backward_share_of_h_0)(&phase, &alone);
            NAME(end_backward)(b);
        }
    }
}

static int NAME(backward_side_by_side)(const struct NAME(backward) * calls, int count, int stacked,
                                       fastrnn_arrangement how, double operations, fastrnn_team *team)
{
    NAME(backwards) all = {calls, count, 0, calls->args->T};
    const double T = (double)calls->args->T;
    for (; all.t1 > 0; all.t1 = all.t0) {
        all.t0 = start_of_chunk(&calls->steps, all.t1, calls->chunk);
        const double part = (double)(all.t1 - all.t0) / T;
        fastrnn_arrangement now = how;
        now.items = fastrnn_pieces(how.items * part, 1, all.t1 - all.t0);
        if (!run_side_by_side(team, now, count, stacked, 2 * operations * part, NAME(backward_pieces), &all)) return 0;
        if (!fastrnn_team_phase_by_index(team, how.members, operations * part, NAME(backwards_end_chunk), &all, 0))
            return 0;
    }
    return 1;
}

/* The columns of a row of a chunk, and the rows of a chunk. A chunk ends with a block of the sums if possible. It has
 * all rows if that takes less memory than the sums of a block would. */
static ptrdiff_t NAME(backward_columns)(const fastrnn_packed *packed)
{
    const ptrdiff_t H = packed->H, P = packed->P, d_gates = packed->isa->SUFFIX->cells[packed->cell]->d_gates;
    return padded_row(d_gates * H, sizeof(real)) + P + (packed->has_projection ? P + H : 0);
}
static ptrdiff_t NAME(backward_chunk)(const fastrnn_backward_args *args)
{
    const steps s = {args->T, args->B, args->offsets, args->resets};
    const ptrdiff_t columns = NAME(backward_columns)(args->packed), N = first_row(&s, s.T), B = args->B;
    ptrdiff_t chunk = chunk_rows(&s, BACKWARD_CHUNK_BYTES, columns, sizeof(real)), steps_of_blocks = 1;
    if (N <= chunk || args->rows_after > 0 || args->rows_before > 0) return chunk;
    while (steps_of_blocks < BLOCK_ROWS && steps_of_blocks * B % BLOCK_ROWS != 0) steps_of_blocks *= 2;
    if (!args->offsets && steps_of_blocks <= chunk / B) chunk -= chunk % (steps_of_blocks * B);
    const int in_parts = args->offsets || chunk % BLOCK_ROWS != 0;
    return in_parts && N - chunk <= gradient_numbers(args->packed) / columns ? N : chunk;
}

/* Fills the sums of b, except for their memory, which it reserves. */
static void NAME(prepare_sums)(struct NAME(backward) * b, fastrnn_layout *layout)
{
    const fastrnn_backward_args *args = b->args;
    const fastrnn_packed *packed = b->packed;
    const ptrdiff_t I = packed->I, H = packed->H, G = b->cell->gates * H;
    const ptrdiff_t N = first_row(&b->steps, args->T), all = args->rows_after + N + args->rows_before;
    NAME(sums) *sums = &b->sums;
    *sums = (NAME(sums)){.levels = fastrnn_sum_levels(all), .done = args->rows_after, .all = all};
    sums->size = packed->peephole ? b->cell->peepholes * H : 0;
    sums->peephole = (NAME(sum)){args->d_peephole, 0}; /* the first, see below */
    sums->bias_ih = (NAME(sum)){args->d_bias_ih, sums->size};
    sums->bias_hh = (NAME(sum)){args->d_bias_hh, sums->size += G};
    sums->weight_ih = (NAME(sum)){args->d_weight_ih, sums->size += G};
    sums->weight_hh = (NAME(sum)){args->d_weight_hh, sums->size += G * I};
    sums->weight_hr = (NAME(sum)){args->d_weight_hr, sums->size += G * packed->S};
    sums->size = gradient_numbers(packed);
    if (sums->levels == 0 || all > N) return; /* no memory needed, or it is args->sums */

    /* Only blocks in several parts are summed in the memory of a block; those of the peepholes always are. */
    const int in_parts = N > b->chunk && (args->offsets || b->chunk % BLOCK_ROWS != 0);
    b->at_block = fastrnn_reserve(layout, sizeof(real),
                                  in_parts           ? sums->size
                                  : packed->peephole ? b->cell->peepholes * H
                                                     : 0,
                                  1, 1);
    b->at_groups = fastrnn_reserve(layout, sizeof(real), sums->levels - 1, sums->size, 1);
}

static void NAME(place_sums)(struct NAME(backward) * b, char *memory)
{
    if (b->sums.levels == 0) return;
    const int several_calls = b->args->rows_after > 0 || b->args->rows_before > 0;
    b->sums.block = several_calls ? b->args->sums : (real *)(memory + b->at_block);
    b->sums.groups = several_calls ? b->sums.block + b->sums.size : (real *)(memory + b->at_groups);
}

/* Fills b, except for pointers into the workspace, for which it reserves memory. */
static void NAME(prepare_backward)(struct NAME(backward) * b, const fastrnn_backward_args *args, ptrdiff_t chunk,
                                   fastrnn_plan p, fastrnn_layout *layout)
{
    const int by_rows = shares_sequences(p);
    const ptrdiff_t apart = between_members(p, sizeof(real));
    const fastrnn_packed *packed = args->packed;
    const NAME(kernels) *kernel = packed->isa->SUFFIX;
    const NAME(cell) *cell = kernel->cells[packed->cell];
    const ptrdiff_t B = args->B, I = packed->I, H = packed->H, P = packed->P, width = kernel->width;
    const ptrdiff_t row = padded_row(cell->d_gates * H, sizeof(real)), projected = packed->has_projection ? 1 : 0;
    const ptrdiff_t two_parts = packed->parts > 1 ? 1 : 0;
    *b = (struct NAME(backward)){
        .args = args,
        .packed = packed,
        .kernel = kernel,
        .cell = cell,
        .steps = {args->T, B, args->offsets, args->resets},
        .d_gates_row = row,
        .scratch_size = (ptrdiff_t)kernel->outer_rows * BLOCK_ROWS,
        .chunk = chunk,
        .by_rows = by_rows,
        .keeps_own_d_gates = is_private_first(p, B, cell->d_gates * H, sizeof(real)),
        .half_of_own_d_gates = B * row + apart,
    };
    NAME(prepare_sums)(b, layout);
    b->at_d_gates = fastrnn_reserve(layout, sizeof(real), b->chunk + B, row, 1);
    b->at_h_prev = fastrnn_reserve(layout, sizeof(real), b->chunk, P, 1);
    b->at_d_h = fastrnn_reserve(layout, sizeof(real), projected * b->chunk, P, 1);
    b->at_m = fastrnn_reserve(layout, sizeof(real), projected * b->chunk, H, 1);
    b->at_gated = fastrnn_reserve(layout, sizeof(real), two_parts * b->chunk, H, 1);
    b->at_own_d_gates = fastrnn_reserve(layout, sizeof(real), b->keeps_own_d_gates ? 2 : 0, b->half_of_own_d_gates, 1);
    b->at_d_m = NAME(reserve_rows)(layout, projected || two_parts ? B : 0, H, apart);
    b->at_d_hidden = NAME(reserve_rows)(layout, B, P, apart);
    b->at_between_hidden = fastrnn_reserve(layout, sizeof(real), by_rows ? B : 0, P, 1);
    for (int n = 0; n < cell->states; n++) {
        const int has_gradient = n > 0 || cell->bypass;
        b->at_d_state[n] = NAME(reserve_rows)(layout, has_gradient ? B : 0, H, apart);
        b->at_between_state[n] = fastrnn_reserve(layout, sizeof(real), has_gradient && by_rows ? B : 0, H, 1);
        b->at_reset_state[n] = NAME(reserve_rows)(layout, args->resets ? B : 0, H, apart);
    }
    b->at_panels_x = fastrnn_reserve(layout, sizeof(real), BLOCK_ROWS, fastrnn_panels(I, width), width);
    const ptrdiff_t h_panels = packed->heads * fastrnn_panels(packed->S, width);
    b->at_panels_h = fastrnn_reserve(layout, sizeof(real), BLOCK_ROWS, h_panels, width);
    b->at_panels_m = fastrnn_reserve(layout, sizeof(real), projected * BLOCK_ROWS, fastrnn_panels(H, width), width);
    b->at_panels_g = fastrnn_reserve(layout, sizeof(real), two_parts * BLOCK_ROWS, h_panels, width);
    b->at_scratch = fastrnn_reserve(layout, sizeof(real), b->scratch_size, p.threads, 1);
}

static void NAME(place_backward)(struct NAME(backward) * b, char *memory)
{
    const fastrnn_packed *packed = b->packed;
    NAME(place_sums)(b, memory);
    b->d_gates = (real *)(memory + b->at_d_gates);
    b->h_prev = (real *)(memory + b->at_h_prev);
    b->panels_x = (real *)(memory + b->at_panels_x);
    b->panels_h = (real *)(memory + b->at_panels_h);
    b->scratch = (real *)(memory + b->at_scratch);
    if (packed->has_projection) {
        b->d_h = (real *)(memory + b->at_d_h);
        b->m = (real *)(memory + b->at_m);
        b->panels_m = (real *)(memory + b->at_panels_m);
    }
    if (packed->parts > 1) {
        b->gated = (real *)(memory + b->at_gated);
        b->panels_g = (real *)(memory + b->at_panels_g);
    }
    b->d_m = (real *)(memory + b->at_d_m);
    for (int n = 0; n < b->cell->states; n++) b->reset_state[n] = (real *)(memory + b->at_reset_state[n]);
    b->d_hidden = (real *)(memory + b->at_d_hidden);
    if (b->keeps_own_d_gates) b->own_d_gates = (real *)(memory + b->at_own_d_gates);
    if (b->by_rows) b->between_hidden = (real *)(memory + b->at_between_hidden);
    for (int n = 0; n < b->cell->states; n++) {
        if (n == 0 && !b->cell->bypass) continue;
        b->d_state[n] = (real *)(memory + b->at_d_state[n]);
        if (b->by_rows) b->between_state[n] = (real *)(memory + b->at_between_state[n]);
    }
    const fastrnn_tape at = fastrnn_tape_layout(packed->dtype, packed->cell, first_row(&b->steps, b->steps.T),
                                                packed->H, packed->has_projection ? packed->P : 0);
    b->gates = fastrnn_in_tape(b->args->tape, at.gates);
    for (int n = 0; n < b->cell->states; n++) b->states[n] = fastrnn_in_tape(b->args->tape, at.states[n]);
    b->intermediate = fastrnn_in_tape(b->args->tape, at.intermediate);
}

/* Writes the first values of d_hidden and d_state, and d_state_0 of sequences without a step. If no sequence has a
 * step, the gradients of the weights become zero. */
static void NAME(begin_backward)(const struct NAME(backward) * b)
{
    const fastrnn_backward_args *args = b->args;
    const ptrdiff_t B = args->B, I = b->packed->I, H = b->packed->H, P = b->packed->P, G = b->cell->gates * H;
    const ptrdiff_t some = rows_of_step(&b->steps, 0);
    real *const *d_state = b->by_rows ? b->between_state : b->d_state;
    copy_bytes(b->by_rows ? b->between_hidden : b->d_hidden, args->d_state_n[0], some, P, sizeof(real));
    if (b->cell->bypass) copy_bytes(d_state[0], NULL, some, H, sizeof(real));
    for (int n = 0; n < b->cell->states; n++) {
        const ptrdiff_t columns = n ? H : P;
        const real *d_state_n = args->d_state_n[n];
        if (n > 0) copy_bytes(d_state[n], d_state_n, some, H, sizeof(real));
        copy_bytes((real *)args->d_state_0[n] + some * columns, d_state_n ? d_state_n + some * columns : NULL, B - some,
                   columns, sizeof(real));
    }
    if (b->sums.all > 0) return;
    copy_bytes(args->d_weight_ih, NULL, G, I, sizeof(real));
    copy_bytes(args->d_weight_hh, NULL, G, b->packed->S, sizeof(real));
    copy_bytes(args->d_bias_ih, NULL, args->d_bias_ih ? G : 0, 1, sizeof(real));
    copy_bytes(args->d_bias_hh, NULL, args->d_bias_hh ? G : 0, 1, sizeof(real));
    copy_bytes(args->d_weight_hr, NULL, args->d_weight_hr ? P : 0, H, sizeof(real));
    copy_bytes(args->d_peephole, NULL, args->d_peephole ? b->cell->peepholes : 0, H, sizeof(real));
}

static fastrnn_status NAME(run_backward)(const fastrnn_backward_args *args, int count, int stacked,
                                         fastrnn_workspace *workspace, const fastrnn_interruption *interruption,
                                         int threads)
{
    struct NAME(backward) calls[FASTRNN_MOST_CALLS];
    fastrnn_plan plans[FASTRNN_MOST_CALLS];
    const steps s = {args->T, args->B, args->offsets, args->resets}; /* the same for all calls */
    const fastrnn_packed *packed[FASTRNN_MOST_CALLS] = {NULL};
    for (int k = 0; k < count; k++) packed[k] = args[k].packed;
    double operations;
    const fastrnn_arrangement how =
        NAME(plan_calls)(s, packed, FASTRNN_BACKWARD, count, stacked, threads, plans, &operations);
    ptrdiff_t chunk = NAME(backward_chunk)(args);
    for (int k = 1; how.side_by_side && k < count; k++) {
        const ptrdiff_t own = NAME(backward_chunk)(&args[k]);
        if (own < chunk) chunk = own;
    }
    fastrnn_layout layout = {0};
    for (int k = 0; k < count; k++) {
        fastrnn_layout own = {0}; /* calls one after the other use the same memory */
        NAME(prepare_backward)(&calls[k], &args[k], how.side_by_side ? chunk : NAME(backward_chunk)(&args[k]), plans[k],
                               how.side_by_side ? &layout : &own);
        if (!how.side_by_side) merge_layout(&layout, &own);
    }
    char *memory = fastrnn_borrow(workspace, &layout);
    if (!memory) return FASTRNN_OUT_OF_MEMORY;
    for (int k = 0; k < count; k++) NAME(place_backward)(&calls[k], memory);
    const int any = args->T > 0 && rows_of_step(&s, 0) > 0;
    fastrnn_team team;
    fastrnn_team_open(&team, how.members, how.alone, interruption);
    if (how.side_by_side) {
        for (int k = 0; k < count; k++) NAME(begin_backward)(&calls[k]);
        if (any) NAME(backward_side_by_side)(calls, count, stacked, how, operations, &team);
    } else
        for (int k = 0; k < count; k++) {
            NAME(begin_backward)(&calls[k]);
            if (any && !NAME(backward_call)(&calls[k], &team, plans[k])) break;
        }
    const int complete = fastrnn_team_close(&team);
    fastrnn_give_back(workspace, memory);
    return complete ? FASTRNN_OK : FASTRNN_INTERRUPTED;
}
