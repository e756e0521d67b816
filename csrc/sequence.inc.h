/* A layer over time, in one precision: what each member of the team does. Whatever a member is interrupted in, it comes
 * to every barrier: fastrnn_team_go() says of each piece of work whether it is still wanted. */

/* The plan of one of `count` calls, which share the start of a team. */
static plan NAME(plan_call)(steps s, const fastrnn_packed *packed, int threads, int count)
{
    const NAME(kernels) *kernel = packed->isa->SUFFIX;
    const NAME(cell) *cell = kernel->cells[packed->cell];
    return plan_steps(&s, packed->I, packed->H, packed->P, cell->gates, sizeof(real), kernel->width, cell->block,
                      threads, (double)TEAM_START / count);
}

struct NAME(forward) {
    const fastrnn_forward_args *args;
    const fastrnn_packed *packed;
    const NAME(kernels) * kernel;
    const NAME(cell) * cell;
    steps steps;
    real *gates; /* (rows of a chunk, G), or all of them in the tape */
    /* The chunk's x with rows x_row apart, where its own rows collide, else NULL. h_{t-1} and h_t in turn (2, B,
     * h_row). c_t (B, H) where no tape has it: not in c_n, which may share a cache line with that of a call on another
     * core. What is to be projected (B, m_row). The recurrent sums of a step (B, G) where the cell keeps them apart. */
    real *x_rows, *hidden, *c, *m, *recurrent;
    ptrdiff_t x_row, h_row, m_row;
    ptrdiff_t chunk; /* rows whose input is projected together, at least B; unused with split rows */
    int split_rows;
    linked linked;
    size_t at_gates, at_x_rows, at_hidden, at_c, at_m, at_recurrent; /* in the workspace */
};

static void NAME(forward_member)(void *context, const fastrnn_member *me)
{
    const struct NAME(forward) *f = context;
    const fastrnn_forward_args *args = f->args;
    const NAME(kernels) *kernel = f->kernel;
    const NAME(cell) *cell = f->cell;
    const ptrdiff_t T = args->T, B = args->B, I = f->packed->I, H = f->packed->H, P = f->packed->P, G = cell->gates * H;
    const int keep = args->state != NULL, is_lstm = f->packed->cell == FASTRNN_LSTM;
    const int width = kernel->width, of_block = cell->gates * cell->block; /* columns */
    const real *x = args->x;
    real *output = args->output, *state = args->state, *extra = args->extra, *c_n = args->c_n;
    fastrnn_range rows = {0, B}, blocks = {0, fastrnn_panels(H, cell->block)},
                  h_panels = {0, fastrnn_panels(P, kernel->width)};
    if (f->split_rows)
        rows = share_rows(&f->steps, me);
    else {
        blocks = fastrnn_share(blocks.to, me);
        h_panels = fastrnn_share(h_panels.to, me);
    }

    for (ptrdiff_t t0 = 0, t1; t0 < T; t0 = t1) {
        t1 = f->split_rows ? t0 + 1 : end_of_chunk(&f->steps, t0, f->chunk);
        const ptrdiff_t first = first_row(&f->steps, t0), n = first_row(&f->steps, t1) - first;
        real *gates = f->gates + (keep && args->gates ? first * G : 0);
        const fastrnn_range flat = f->split_rows ? first_of(rows, n) : (fastrnn_range){0, n};
        const real *x_chunk = x + first * I;
        wait_for_link(me, f->linked, t1);
        if (f->x_rows) {
            const fastrnn_range some = f->split_rows ? flat : fastrnn_share(n, me);
            for (ptrdiff_t r = some.from; r < some.to; r++)
                memcpy(f->x_rows + r * f->x_row, x_chunk + r * I, (size_t)I * sizeof(real));
            x_chunk = f->x_rows;
            if (!f->split_rows) fastrnn_team_barrier(me);
        }
        for (fastrnn_range piece = fastrnn_no_piece(blocks);
             fastrnn_next_piece(me, blocks, 2.0 * (flat.to - flat.from) * I * of_block, &piece);)
            kernel->project(cell, flat.to - flat.from, I, H, piece.from, piece.to, x_chunk + flat.from * f->x_row,
                            f->x_row, f->packed->panels_ih, f->packed->bias_ih, gates + flat.from * G);

        for (ptrdiff_t t = t0; t < t1; t++) {
            const ptrdiff_t at = first_row(&f->steps, t);
            const fastrnn_range now = first_of(rows, rows_of_step(&f->steps, t));
            real *h_next = f->hidden + (t + 1) % 2 * B * f->h_row;
            const NAME(step) step = {
                .H = H,
                .K = P,
                .panels = f->packed->panels_hh,
                .bias_hh = f->packed->bias_hh,
                .peephole = f->packed->peephole,
                .h_prev = t ? f->hidden + t % 2 * B * f->h_row : args->h_0,
                .h_prev_row = t ? f->h_row : P,
                .c_prev = !is_lstm ? NULL
                          : !t     ? args->c_0
                          : keep   ? state + first_row(&f->steps, t - 1) * H
                                   : f->c,
                .gates = gates + (at - first) * G,
                .recurrent = f->recurrent,
                .state = keep ? state + at * H : f->c,
                .extra = keep && extra ? extra + at * H : NULL,
                .h = f->m ? f->m : output + at * P,
                .h_row = f->m ? f->m_row : P,
                .h_next = f->m ? NULL : h_next,
                .h_next_row = f->h_row,
                .keep = keep,
            };
            for (fastrnn_range piece = fastrnn_no_piece(blocks);
                 fastrnn_next_piece(me, blocks, 2.0 * (now.to - now.from) * P * of_block, &piece);)
                cell->step(&step, now.from, now.to, piece.from, piece.to);
            if (f->m) {
                if (!f->split_rows) fastrnn_team_barrier(me); /* a projection reads all of m */
                for (fastrnn_range piece = fastrnn_no_piece(h_panels);
                     fastrnn_next_piece(me, h_panels, 2.0 * (now.to - now.from) * H * width, &piece);)
                    kernel->multiply(now.to - now.from, P, H, piece.from, piece.to, f->m + now.from * f->m_row,
                                     f->m_row, f->packed->panels_hr, h_next + now.from * f->h_row, f->h_row);
                const ptrdiff_t from = h_panels.from * kernel->width, to = h_panels.to * kernel->width;
                const size_t bytes = (size_t)((to < P ? to : P) - from) * sizeof(real);
                for (ptrdiff_t r = now.from; from < P && r < now.to; r++) {
                    memcpy(output + (at + r) * P + from, h_next + r * f->h_row + from, bytes);
                    if (keep) memcpy(extra + (at + r) * P + from, h_next + r * f->h_row + from, bytes);
                }
            }
            if (!f->split_rows && fastrnn_team_barrier(me)) return; /* the next step reads all of h_t */
        }
        tell_link(me, f->linked, t1);
    }
    if (me->index > 0 && !f->split_rows)
        return; /* the last barrier has shown the first member all that is left to copy */
    for (ptrdiff_t t = T - 1, done = 0; t >= 0 && done < B; t--) {
        const ptrdiff_t count = rows_of_step(&f->steps, t), at = first_row(&f->steps, t);
        const fastrnn_range ending = first_of(from_row(rows, done), count);
        done = count;
        if (ending.from >= ending.to) continue;
        copy_bytes((real *)args->h_n + ending.from * P, output + (at + ending.from) * P, ending.to - ending.from, P,
                   sizeof(real));
        if (is_lstm)
            copy_bytes(c_n + ending.from * H, (keep ? state + at * H : f->c) + ending.from * H, ending.to - ending.from,
                       H, sizeof(real));
    }
}

/* Everything of f but its memory, which is reserved. */
static void NAME(prepare_forward)(struct NAME(forward) * f, const fastrnn_forward_args *args, plan p, linked linked,
                                  fastrnn_layout *layout)
{
    const fastrnn_packed *packed = args->packed;
    const NAME(kernels) *kernel = packed->isa->SUFFIX;
    const NAME(cell) *cell = kernel->cells[packed->cell];
    const ptrdiff_t B = args->B, I = packed->I, H = packed->H, P = packed->P, G = cell->gates * H;
    const int keep_gates = args->state && args->gates, copy_x = rows_collide(I, sizeof(real));
    const ptrdiff_t x_row = copy_x ? padded_row(I, sizeof(real)) : I;
    *f = (struct NAME(forward)){
        .args = args,
        .packed = packed,
        .kernel = kernel,
        .cell = cell,
        .steps = {args->T, B, args->offsets},
        .x_row = x_row,
        .h_row = padded_row(P, sizeof(real)),
        .m_row = padded_row(H, sizeof(real)),
        .split_rows = p.split_rows,
        .linked = linked,
    };
    const double bytes = projection_bytes(I, G, sizeof(real));
    const int chunks = linked.own == NO_LINK ? 1 : LINKED_CHUNKS; /* the call above waits for a chunk */
    f->chunk = p.split_rows ? B : chunk_rows(&f->steps, bytes, G + (copy_x ? x_row : 0), sizeof(real), chunks);
    f->at_gates = fastrnn_reserve(layout, sizeof(real), keep_gates ? 0 : f->chunk, G, 1);
    f->at_x_rows = fastrnn_reserve(layout, sizeof(real), copy_x ? f->chunk : 0, x_row, 1);
    f->at_hidden = fastrnn_reserve(layout, sizeof(real), 2, B, f->h_row);
    f->at_c = fastrnn_reserve(layout, sizeof(real), packed->cell == FASTRNN_LSTM && !args->state ? B : 0, H, 1);
    f->at_m = fastrnn_reserve(layout, sizeof(real), packed->has_projection ? B : 0, f->m_row, 1);
    f->at_recurrent = fastrnn_reserve(layout, sizeof(real), cell->recurrent ? B : 0, G, 1);
}

static void NAME(place_forward)(struct NAME(forward) * f, char *memory)
{
    const int keep_gates = f->args->state && f->args->gates;
    f->gates = keep_gates ? f->args->gates : (real *)(memory + f->at_gates);
    if (rows_collide(f->packed->I, sizeof(real))) f->x_rows = (real *)(memory + f->at_x_rows);
    f->hidden = (real *)(memory + f->at_hidden);
    if (f->packed->cell == FASTRNN_LSTM && !f->args->state) f->c = (real *)(memory + f->at_c);
    if (f->packed->has_projection) f->m = (real *)(memory + f->at_m);
    if (f->cell->recurrent) f->recurrent = (real *)(memory + f->at_recurrent);
}

struct NAME(forwards) {
    struct NAME(forward) * calls;
    int count;
};

/* Each call by one member, in the order of the calls: so whatever a call waits for is done or on its way. */
static void NAME(forwards_side_by_side)(void *context, const fastrnn_member *me)
{
    const struct NAME(forwards) *all = context;
    const fastrnn_member alone = fastrnn_alone(me);
    for (int k = me->index; k < all->count; k += me->size) NAME(forward_member)(&all->calls[k], &alone);
    fastrnn_team_finish(me);
}

static void NAME(forwards_with_one_team)(void *context, const fastrnn_member *me)
{
    const struct NAME(forwards) *all = context;
    for (int k = 0; k < all->count; k++) {
        NAME(forward_member)(&all->calls[k], me);
        fastrnn_team_barrier(me); /* the next call uses the same memory, and may read this one's output */
    }
}

static fastrnn_status NAME(run_forward)(const fastrnn_forward_args *args, int count, int stacked,
                                        fastrnn_workspace *workspace, const fastrnn_interruption *interruption,
                                        int threads)
{
    struct NAME(forward) calls[FASTRNN_MOST_CALLS];
    plan plans[FASTRNN_MOST_CALLS];
    for (int k = 0; k < count; k++)
        plans[k] = NAME(plan_call)((steps){args[k].T, args[k].B, args[k].offsets}, args[k].packed, threads, count);
    const arrangement how = arrange(plans, count, stacked, args->T, threads);
    const int together = how == SIDE_BY_SIDE;
    fastrnn_layout layout = {0};
    for (int k = 0; k < count; k++) {
        fastrnn_layout own = {0}; /* one after the other, they use the same memory */
        const linked links = {together && stacked ? k : NO_LINK, together && stacked ? k - 1 : NO_LINK};
        NAME(prepare_forward)(&calls[k], &args[k], plans[k], links, together ? &layout : &own);
        if (!together) merge_layout(&layout, &own);
    }
    char *memory = fastrnn_borrow(workspace, &layout);
    if (!memory) return FASTRNN_OUT_OF_MEMORY;
    int complete = 1;
    for (int k = 0; k < count; k++) NAME(place_forward)(&calls[k], memory);
    const int steps = args->T > 0 && rows_of_step(&calls->steps, 0) > 0; /* all have the same */
    struct NAME(forwards) all = {calls, count};
    if (steps && how == SIDE_BY_SIDE)
        complete = fastrnn_team_run(threads < count ? threads : count, NAME(forwards_side_by_side), &all, interruption);
    else if (steps && how == WITH_ONE_TEAM)
        complete = fastrnn_team_run(plans->threads, NAME(forwards_with_one_team), &all, interruption);
    else if (steps)
        for (int k = 0; k < count && complete; k++)
            complete = fastrnn_team_run(plans[k].threads, NAME(forward_member), &calls[k], interruption);
    for (int k = 0; k < count; k++) { /* of the sequences that have no step */
        const ptrdiff_t some = steps ? rows_of_step(&calls[k].steps, 0) : 0, none = args[k].B - some;
        const ptrdiff_t H = args[k].packed->H, P = args[k].packed->P;
        copy_bytes((real *)args[k].h_n + some * P, (const real *)args[k].h_0 + some * P, none, P, sizeof(real));
        if (args[k].c_n)
            copy_bytes((real *)args[k].c_n + some * H, (const real *)args[k].c_0 + some * H, none, H, sizeof(real));
    }
    fastrnn_give_back(workspace, memory);
    return complete ? FASTRNN_OK : FASTRNN_INTERRUPTED;
}

struct NAME(backward) {
    const fastrnn_backward_args *args;
    const fastrnn_packed *packed;
    const NAME(kernels) * kernel;
    const NAME(cell) * cell;
    steps steps;
    /* Steps are taken in chunks, the last chunk first. d_gates (rows of a chunk, then B, d_gates_row): the gradients of
     * the chunk's steps, then those of the step after it. h_prev (rows, P): h_{t-1} of each row. With a projection, d_h
     * (rows, P) and m (rows, H): the gradient of h_t, and what was projected to it. */
    ptrdiff_t chunk, d_gates_row;
    real *d_gates, *h_prev, *d_h, *m;
    real *d_m;                            /* (B, H): with a projection, the gradient of a step's m */
    real *d_hidden, *d_state;             /* (B, P), (B, H): run back through time; not in the results, as in forward */
    real *panels_x, *panels_h, *panels_m; /* packed rows of x, h_prev and m: [panel][up to BLOCK_ROWS][width] */
    real *scratch;                        /* per member, for outer_product */
    ptrdiff_t scratch_size;
    NAME(sums) sums;
    int split_rows;
    linked linked;
    size_t at_d_gates, at_h_prev, at_d_h, at_m, at_d_m, at_d_hidden, at_d_state, at_panels_x, at_panels_h, at_panels_m,
        at_scratch, at_block, at_groups;
};

/* A weight's gradient, a row of N for each of some columns of a: a[r]^T b[r] of the part's rows, b in panels; the rows
 * in descending order of time. */
static void NAME(weight_gradient)(const struct NAME(backward) * b, const fastrnn_member *me, fastrnn_block_part part,
                                  fastrnn_range columns, ptrdiff_t N, const real *a, ptrdiff_t a_row,
                                  const real *panels, NAME(sum) gradient)
{
    const ptrdiff_t most = b->kernel->outer_rows;
    for (ptrdiff_t from = columns.from, to; from < columns.to; from = to) {
        to = columns.to - from < most ? columns.to : from + most;
        if (!fastrnn_team_go(me, 2.0 * (to - from) * N * part.rows)) return;
        const NAME(sum) some = NAME(sum_from)(gradient, (from - columns.from) * N);
        sum_start start;
        real *sum = NAME(open_sum)(&b->sums, some, part, &start);
        b->kernel->outer_product(to - from, N, part.rows, a + from, a_row, panels, start, sum,
                                 b->scratch + me->index * b->scratch_size);
        NAME(close_sum)(&b->sums, b->kernel, some, part, (to - from) * N);
    }
}

/* A bias's: the sum of some columns of a. */
static void NAME(bias_gradient)(const struct NAME(backward) * b, fastrnn_block_part part, fastrnn_range columns,
                                const real *a, ptrdiff_t a_row, NAME(sum) gradient)
{
    sum_start start;
    real *sum = NAME(open_sum)(&b->sums, gradient, part, &start);
    b->kernel->sum_rows(columns.to - columns.from, part.rows, a + columns.from, a_row, start, sum);
    NAME(close_sum)(&b->sums, b->kernel, gradient, part, columns.to - columns.from);
}

/* The peepholes', for units [from, to): of the steps [t0, t1), whose d_gates begin with row `first`. */
static void NAME(peephole_gradient)(const struct NAME(backward) * b, const fastrnn_member *me, ptrdiff_t t0,
                                    ptrdiff_t t1, ptrdiff_t from, ptrdiff_t to, ptrdiff_t done)
{
    const ptrdiff_t H = b->packed->H, row = b->d_gates_row, first = first_row(&b->steps, t0);
    const real *c = b->args->state;
    for (ptrdiff_t t = t1 - 1; t >= t0; t--) {
        const ptrdiff_t at = first_row(&b->steps, t), count = rows_of_step(&b->steps, t);
        const real *c_prev = t ? c + first_row(&b->steps, t - 1) * H : b->args->c_0;
        if (!fastrnn_team_go(me, 20.0 * count * H)) return;
        fastrnn_block_part part;
        for (ptrdiff_t end = count, r; end > 0; end = r, done += part.rows) {
            part = fastrnn_next_part(done, end, b->sums.all);
            r = end - part.rows;
            sum_start start;
            real *sum = NAME(open_sum)(&b->sums, b->sums.peephole, part, &start);
            b->kernel->lstm_peephole(part.rows, H, from, to, b->d_gates + (at - first + r) * row, row, c + (at + r) * H,
                                     c_prev + r * H, start, sum);
            for (int p = 0; from < to && p < 3; p++)
                NAME(close_sum)(&b->sums, b->kernel, NAME(sum_from)(b->sums.peephole, p * H + from), part, to - from);
        }
    }
}

/* A member's share of columns, in whole tiles. */
static fastrnn_range NAME(share_tiles)(ptrdiff_t columns, int tile, const fastrnn_member *me)
{
    fastrnn_range part = fastrnn_share(fastrnn_panels(columns, tile), me);
    part.from *= tile;
    part.to = part.to * tile < columns ? part.to * tile : columns;
    return part;
}

/* The chunk's rows, from the last to the first, go into the gradients of the weights: d_gates[r]^T x[r] (and
 * h_prev[r]). With rows in descending order, as time runs here, the sums do not depend on the chunks. The gradients of
 * the recurrent sums are the first of d_gates, those of the input's sums the last: the same, or `shift` further. */
static void NAME(weight_gradients)(const struct NAME(backward) * b, const fastrnn_member *me, ptrdiff_t t0,
                                   ptrdiff_t t1)
{
    const fastrnn_backward_args *args = b->args;
    const NAME(kernels) *kernel = b->kernel;
    const NAME(sums) *sums = &b->sums;
    const ptrdiff_t I = b->packed->I, H = b->packed->H, P = b->packed->P, G = b->cell->gates * H, row = b->d_gates_row;
    const ptrdiff_t shift = (b->cell->d_gates - b->cell->gates) * H;
    const fastrnn_range x_panels = fastrnn_share(fastrnn_panels(I, kernel->width), me);
    const fastrnn_range h_panels = fastrnn_share(fastrnn_panels(P, kernel->width), me);
    const fastrnn_range m_panels = fastrnn_share(fastrnn_panels(H, kernel->width), me);
    const fastrnn_range gates = NAME(share_tiles)(G, kernel->tile_rows, me);
    const fastrnn_range of_P = NAME(share_tiles)(P, kernel->tile_rows, me);
    /* Of the recurrent gradients, the first `shift` are those of the last rows of the weights. */
    const fastrnn_range low = first_of(gates, shift), high = from_row(gates, shift);
    const ptrdiff_t low_row = G - shift + low.from, high_row = high.from - shift;
    const int same_biases = shift == 0 && args->d_bias_ih && args->d_bias_hh;
    const ptrdiff_t first = first_row(&b->steps, t0), n = first_row(&b->steps, t1) - first;
    const ptrdiff_t done = sums->done + first_row(&b->steps, b->steps.T) - first - n; /* rows of the chunks before */

    fastrnn_block_part part;
    for (ptrdiff_t end = n; end > 0; end -= part.rows) {
        part = fastrnn_next_part(done + n - end, end, sums->all);
        const real *d_gates = b->d_gates + (end - 1) * row;
        kernel->pack_rows(part.rows, I, x_panels.from, x_panels.to, (const real *)args->x + (first + end - 1) * I, -I,
                          0, part.rows, b->panels_x);
        kernel->pack_rows(part.rows, P, h_panels.from, h_panels.to, b->h_prev + (end - 1) * P, -P, 0, part.rows,
                          b->panels_h);
        if (b->m)
            kernel->pack_rows(part.rows, H, m_panels.from, m_panels.to, b->m + (end - 1) * H, -H, 0, part.rows,
                              b->panels_m);
        fastrnn_team_barrier(me);
        NAME(weight_gradient)(b, me, part, gates, I, d_gates + shift, -row, b->panels_x,
                              NAME(sum_from)(sums->weight_ih, gates.from * I));
        NAME(weight_gradient)(b, me, part, low, P, d_gates, -row, b->panels_h,
                              NAME(sum_from)(sums->weight_hh, low_row * P));
        NAME(weight_gradient)(b, me, part, high, P, d_gates, -row, b->panels_h,
                              NAME(sum_from)(sums->weight_hh, high_row * P));
        if (b->m)
            NAME(weight_gradient)(b, me, part, of_P, H, b->d_h + (end - 1) * P, -P, b->panels_m,
                                  NAME(sum_from)(sums->weight_hr, of_P.from * H));
        if (args->d_bias_ih)
            NAME(bias_gradient)(b, part, gates, d_gates + shift, -row, NAME(sum_from)(sums->bias_ih, gates.from));
        if (args->d_bias_hh && !same_biases) {
            NAME(bias_gradient)(b, part, low, d_gates, -row, NAME(sum_from)(sums->bias_hh, low_row));
            NAME(bias_gradient)(b, part, high, d_gates, -row, NAME(sum_from)(sums->bias_hh, high_row));
        }
        if (same_biases && part.ends)
            copy_bytes((real *)args->d_bias_hh + gates.from, (real *)args->d_bias_ih + gates.from,
                       gates.to - gates.from, 1, sizeof(real));
        fastrnn_team_barrier(me);
    }
    if (args->d_peephole) {
        const ptrdiff_t from = m_panels.from * kernel->width, to = m_panels.to * kernel->width;
        NAME(peephole_gradient)(b, me, t0, t1, from, to < H ? to : H, done);
        fastrnn_team_barrier(me);
    }
}

/* d_x, `rows` rows of it from row `first` on, from d_gates of these rows. */
static void NAME(input_gradient)(const struct NAME(backward) * b, const fastrnn_member *me, ptrdiff_t first,
                                 ptrdiff_t rows, const real *d_gates)
{
    const ptrdiff_t I = b->packed->I, H = b->packed->H, G = b->cell->gates * H;
    const fastrnn_range panels = {0, fastrnn_panels(I, b->kernel->width)};
    for (fastrnn_range piece = fastrnn_no_piece(panels);
         fastrnn_next_piece(me, panels, 2.0 * rows * G * b->kernel->width, &piece);)
        b->kernel->multiply(rows, I, G, piece.from, piece.to, d_gates + (b->cell->d_gates * H - G), b->d_gates_row,
                            b->packed->panels_ih, (real *)b->args->d_x + first * I, I);
}

/* h_prev of the chunk's first step, for some sequences: h of the step before it, or h_0. */
static void NAME(first_h_prev)(const struct NAME(backward) * b, ptrdiff_t t0, fastrnn_range rows)
{
    const ptrdiff_t H = b->packed->H, P = b->packed->P, n = rows.to - rows.from;
    if (n <= 0) return;
    const ptrdiff_t before = t0 ? first_row(&b->steps, t0 - 1) + rows.from : 0;
    const real *gates = b->args->gates, *state = b->args->state, *extra = b->args->extra;
    real *h_prev = b->h_prev + rows.from * P;
    if (t0 == 0)
        copy_bytes(h_prev, (const real *)b->args->h_0 + rows.from * P, n, P, sizeof(real));
    else if (b->packed->has_projection)
        copy_bytes(h_prev, extra + before * P, n, P, sizeof(real));
    else if (b->packed->cell == FASTRNN_LSTM)
        b->kernel->lstm_hidden(n, H, gates + before * 4 * H, state + before * H, h_prev);
    else
        copy_bytes(h_prev, state + before * H, n, H, sizeof(real));
}

static void NAME(backward_member)(void *context, const fastrnn_member *me)
{
    const struct NAME(backward) *b = context;
    const fastrnn_backward_args *args = b->args;
    const fastrnn_packed *packed = b->packed;
    const NAME(kernels) *kernel = b->kernel;
    const ptrdiff_t T = args->T, B = args->B, H = packed->H, P = packed->P, G = b->cell->gates * H,
                    row = b->d_gates_row;
    const int is_lstm = packed->cell == FASTRNN_LSTM, width = kernel->width;
    const real *state = args->state, *gates = args->gates, *extra = args->extra, *d_output = args->d_output;
    const fastrnn_range all_h = {0, fastrnn_panels(P, kernel->width)}, some_h = fastrnn_share(all_h.to, me);
    const fastrnn_range some_rows = fastrnn_share(B, me);
    fastrnn_range rows = {0, B}, units = {0, fastrnn_panels(H, kernel->width)}, h_panels = all_h;
    if (b->split_rows)
        rows = share_rows(&b->steps, me);
    else {
        units = fastrnn_share(units.to, me);
        h_panels = some_h;
    }

    for (ptrdiff_t t1 = T, t0; t1 > 0; t1 = t0) {
        t0 = start_of_chunk(&b->steps, t1, b->chunk);
        const ptrdiff_t first = first_row(&b->steps, t0);
        /* Linked calls tell each other of d_x some steps at a time; others make it for the whole chunk. */
        const ptrdiff_t some_steps = b->linked.own == NO_LINK ? t1 - t0 : fastrnn_panels(T, LINKED_CHUNKS);
        ptrdiff_t end = t1; /* of the steps whose d_x is still to be made */
        NAME(first_h_prev)(b, t0, first_of(some_rows, rows_of_step(&b->steps, t0)));
        for (ptrdiff_t t = t1 - 1; t >= t0; t--) {
            if (t == end - 1) wait_for_link(me, b->linked, T - (end - t0 < some_steps ? t0 : end - some_steps));
            const ptrdiff_t at = first_row(&b->steps, t), after = rows_of_step(&b->steps, t + 1);
            const fastrnn_range now = first_of(rows, rows_of_step(&b->steps, t));
            const real *d_gates_next = b->d_gates + (first_row(&b->steps, t + 1) - first) * row;
            real *h_next = t == t1 - 1 ? NULL : b->h_prev + (at + rows_of_step(&b->steps, t) - first) * P;
            /* clang-format off */
            NAME(step_back) step = {
                .H = H,
                .a = d_gates_next,
                .a_row = row,
                .K = G,
                .panels = packed->panels_hh,
                .product_rows = after,
                .peephole = packed->peephole,
                .gates = gates ? gates + at * G : NULL,
                .state = state + at * H,
                .extra = extra && !is_lstm ? extra + at * H : NULL,
                .c_prev = t         ? state + first_row(&b->steps, t - 1) * H
                          : is_lstm ? args->c_0
                                    : args->h_0,
                .d_output = d_output ? d_output + at * P : NULL,
                .d_h = b->d_hidden,
                .d_state = b->d_state,
                .d_gates = b->d_gates + (at - first) * row,
                .d_gates_row = row,
                .h = is_lstm ? h_next : NULL,
            };
            /* clang-format on */
            if (packed->has_projection) {
                real *d_h = b->d_h + (at - first) * P;
                const fastrnn_range both = first_of(now, after);
                const ptrdiff_t from = h_panels.from * kernel->width,
                                to = h_panels.to * kernel->width < P ? h_panels.to * kernel->width : P;
                for (fastrnn_range piece = fastrnn_no_piece(h_panels);
                     fastrnn_next_piece(me, h_panels, 2.0 * (both.to - both.from) * G * width, &piece);)
                    kernel->multiply(both.to - both.from, P, G, piece.from, piece.to, d_gates_next + both.from * row,
                                     row, packed->panels_hh, b->d_hidden + both.from * P, P);
                for (ptrdiff_t r = now.from; from < to && r < now.to; r++)
                    kernel->add(to - from, b->d_hidden + r * P + from, d_output ? d_output + (at + r) * P + from : NULL,
                                d_h + r * P + from);
                if (!b->split_rows) fastrnn_team_barrier(me); /* the cell reads all of d_h */
                step.a = d_h, step.a_row = P, step.K = P, step.panels = packed->panels_hr;
                step.product_rows = rows_of_step(&b->steps, t);
                step.d_output = NULL, step.d_h = b->d_m, step.h = b->m + (at - first) * H;
            }
            for (fastrnn_range piece = fastrnn_no_piece(units);
                 fastrnn_next_piece(me, units, 2.0 * (now.to - now.from) * step.K * width, &piece);)
                b->cell->step_back(&step, now.from, now.to, piece.from, piece.to);
            if (h_next && (!is_lstm || packed->has_projection)) {
                const fastrnn_range next = first_of(b->split_rows ? rows : some_rows, after);
                const real *h = is_lstm ? extra : state;
                copy_bytes(h_next + next.from * P, h + (at + next.from) * P, next.to - next.from, P, sizeof(real));
            }
            if (b->split_rows) {
                if (args->d_x)
                    NAME(input_gradient)(b, me, at + now.from, now.to - now.from, step.d_gates + now.from * row);
                continue;
            }
            if (fastrnn_team_barrier(me)) return; /* the step before reads all of d_gates */
            if (t > t0 && end - t < some_steps) continue;
            if (args->d_x) {
                const fastrnn_range flat = fastrnn_share(first_row(&b->steps, end) - at, me);
                NAME(input_gradient)(b, me, at + flat.from, flat.to - flat.from,
                                     b->d_gates + (at - first + flat.from) * row);
            }
            end = t;
            tell_link(me, b->linked, T - t);
        }
        if (b->split_rows) fastrnn_team_barrier(me);
        NAME(weight_gradients)(b, me, t0, t1);
        if (t0 > 0) { /* this chunk's first step is the one after the next chunk */
            const fastrnn_range some = first_of(some_rows, rows_of_step(&b->steps, t0));
            const ptrdiff_t last = first - first_row(&b->steps, start_of_chunk(&b->steps, t0, b->chunk));
            copy_bytes(b->d_gates + (last + some.from) * row, b->d_gates + some.from * row, some.to - some.from, row,
                       sizeof(real));
            fastrnn_team_barrier(me);
        }
    }
    const ptrdiff_t count = rows_of_step(&b->steps, 0);
    const fastrnn_range some = first_of(some_rows, count);
    real *d_h_0 = args->d_h_0;
    for (fastrnn_range piece = fastrnn_no_piece(some_h);
         fastrnn_next_piece(me, some_h, 2.0 * count * G * width, &piece);)
        kernel->multiply(count, P, G, piece.from, piece.to, b->d_gates, row, packed->panels_hh, d_h_0, P);
    if (is_lstm)
        copy_bytes((real *)args->d_c_0 + some.from * H, b->d_state + some.from * H, some.to - some.from, H,
                   sizeof(real));
    if (packed->cell == FASTRNN_GRU) { /* what passed by the product */
        fastrnn_team_barrier(me);
        kernel->add((some.to - some.from) * H, d_h_0 + some.from * H, b->d_state + some.from * H,
                    d_h_0 + some.from * H);
    }
}

/* The sums of b, whose chunk, of rows of so many columns, is made to end with a block where that is possible. */
static void NAME(prepare_sums)(struct NAME(backward) * b, ptrdiff_t columns, fastrnn_layout *layout)
{
    const fastrnn_backward_args *args = b->args;
    const fastrnn_packed *packed = b->packed;
    const ptrdiff_t B = args->B, I = packed->I, H = packed->H, P = packed->P, G = b->cell->gates * H;
    const ptrdiff_t N = first_row(&b->steps, args->T), all = args->rows_after + N + args->rows_before;
    NAME(sums) *sums = &b->sums;
    *sums = (NAME(sums)){.levels = fastrnn_sum_levels(all), .done = args->rows_after, .all = all};
    sums->size = packed->peephole ? 3 * H : 0;
    sums->peephole = (NAME(sum)){args->d_peephole, 0}; /* the first, see below */
    sums->bias_ih = (NAME(sum)){args->d_bias_ih, sums->size};
    sums->bias_hh = (NAME(sum)){args->d_bias_hh, sums->size += G};
    sums->weight_ih = (NAME(sum)){args->d_weight_ih, sums->size += G};
    sums->weight_hh = (NAME(sum)){args->d_weight_hh, sums->size += G * I};
    sums->weight_hr = (NAME(sum)){args->d_weight_hr, sums->size += G * P};
    sums->size = gradient_numbers(packed);
    if (sums->levels == 0 || all > N) return; /* nothing needed, or in args->sums */

    if (!args->offsets && N > b->chunk) {
        ptrdiff_t steps = 1; /* whose rows are whole blocks */
        while (steps < BLOCK_ROWS && steps * B % BLOCK_ROWS != 0) steps *= 2;
        if (steps <= b->chunk / B) b->chunk -= b->chunk % (steps * B);
    }
    /* Only parts of blocks are summed in the memory of a block; those of peepholes are parts always. */
    int in_parts = N > b->chunk && (args->offsets || b->chunk % BLOCK_ROWS != 0);
    if (in_parts && N - b->chunk <= sums->size / columns) {
        b->chunk = N; /* takes less memory than the sums of a block */
        in_parts = 0;
    }
    b->at_block = fastrnn_reserve(layout, sizeof(real), in_parts ? sums->size : packed->peephole ? 3 * H : 0, 1, 1);
    b->at_groups = fastrnn_reserve(layout, sizeof(real), sums->levels - 1, sums->size, 1);
}

static void NAME(place_sums)(struct NAME(backward) * b, char *memory)
{
    if (b->sums.levels == 0) return;
    const int several_calls = b->args->rows_after > 0 || b->args->rows_before > 0;
    b->sums.block = several_calls ? b->args->sums : (real *)(memory + b->at_block);
    b->sums.groups = several_calls ? b->sums.block + b->sums.size : (real *)(memory + b->at_groups);
}

/* Everything of b but its memory, which is reserved. */
static void NAME(prepare_backward)(struct NAME(backward) * b, const fastrnn_backward_args *args, plan p, linked linked,
                                   fastrnn_layout *layout)
{
    const fastrnn_packed *packed = args->packed;
    const NAME(kernels) *kernel = packed->isa->SUFFIX;
    const NAME(cell) *cell = kernel->cells[packed->cell];
    const ptrdiff_t B = args->B, I = packed->I, H = packed->H, P = packed->P, width = kernel->width;
    const ptrdiff_t row = padded_row(cell->d_gates * H, sizeof(real)), projected = packed->has_projection ? 1 : 0;
    const int has_state = packed->cell == FASTRNN_LSTM || packed->cell == FASTRNN_GRU;
    *b = (struct NAME(backward)){
        .args = args,
        .packed = packed,
        .kernel = kernel,
        .cell = cell,
        .steps = {args->T, B, args->offsets},
        .d_gates_row = row,
        .scratch_size = (ptrdiff_t)kernel->outer_rows * BLOCK_ROWS,
        .split_rows = p.split_rows,
        .linked = linked,
    };
    const ptrdiff_t columns = row + P + projected * (P + H);
    b->chunk = chunk_rows(&b->steps, BACKWARD_CHUNK_BYTES, columns, sizeof(real), 1);
    NAME(prepare_sums)(b, columns, layout);
    b->at_d_gates = fastrnn_reserve(layout, sizeof(real), b->chunk + B, row, 1);
    b->at_h_prev = fastrnn_reserve(layout, sizeof(real), b->chunk, P, 1);
    b->at_d_h = fastrnn_reserve(layout, sizeof(real), projected * b->chunk, P, 1);
    b->at_m = fastrnn_reserve(layout, sizeof(real), projected * b->chunk, H, 1);
    b->at_d_m = fastrnn_reserve(layout, sizeof(real), projected * B, H, 1);
    b->at_d_hidden = fastrnn_reserve(layout, sizeof(real), B, P, 1);
    b->at_d_state = fastrnn_reserve(layout, sizeof(real), has_state ? B : 0, H, 1);
    b->at_panels_x = fastrnn_reserve(layout, sizeof(real), BLOCK_ROWS, fastrnn_panels(I, width), width);
    b->at_panels_h = fastrnn_reserve(layout, sizeof(real), BLOCK_ROWS, fastrnn_panels(P, width), width);
    b->at_panels_m = fastrnn_reserve(layout, sizeof(real), projected * BLOCK_ROWS, fastrnn_panels(H, width), width);
    b->at_scratch = fastrnn_reserve(layout, sizeof(real), b->scratch_size, p.threads, 1);
}

static void NAME(place_backward)(struct NAME(backward) * b, char *memory)
{
    NAME(place_sums)(b, memory);
    b->d_gates = (real *)(memory + b->at_d_gates);
    b->h_prev = (real *)(memory + b->at_h_prev);
    b->panels_x = (real *)(memory + b->at_panels_x);
    b->panels_h = (real *)(memory + b->at_panels_h);
    b->scratch = (real *)(memory + b->at_scratch);
    if (b->packed->has_projection) {
        b->d_h = (real *)(memory + b->at_d_h);
        b->m = (real *)(memory + b->at_m);
        b->d_m = (real *)(memory + b->at_d_m);
        b->panels_m = (real *)(memory + b->at_panels_m);
    }
    b->d_hidden = (real *)(memory + b->at_d_hidden);
    if (b->packed->cell == FASTRNN_LSTM || b->packed->cell == FASTRNN_GRU)
        b->d_state = (real *)(memory + b->at_d_state);
}

/* What d_hidden and d_state begin with, and the results of sequences without any step. Where none has one, the
 * gradients of the weights are zero. */
static void NAME(begin_backward)(const struct NAME(backward) * b)
{
    const fastrnn_backward_args *args = b->args;
    const ptrdiff_t B = args->B, I = b->packed->I, H = b->packed->H, P = b->packed->P, G = b->cell->gates * H;
    const ptrdiff_t some = rows_of_step(&b->steps, 0);
    const real *d_h_n = args->d_h_n, *d_c_n = args->d_c_n;
    copy_bytes(b->d_hidden, d_h_n, some, P, sizeof(real));
    copy_bytes((real *)args->d_h_0 + some * P, d_h_n ? d_h_n + some * P : NULL, B - some, P, sizeof(real));
    if (b->d_state) copy_bytes(b->d_state, d_c_n, some, H, sizeof(real));
    if (args->d_c_0)
        copy_bytes((real *)args->d_c_0 + some * H, d_c_n ? d_c_n + some * H : NULL, B - some, H, sizeof(real));
    if (b->sums.all > 0) return;
    copy_bytes(args->d_weight_ih, NULL, G, I, sizeof(real));
    copy_bytes(args->d_weight_hh, NULL, G, P, sizeof(real));
    copy_bytes(args->d_bias_ih, NULL, args->d_bias_ih ? G : 0, 1, sizeof(real));
    copy_bytes(args->d_bias_hh, NULL, args->d_bias_hh ? G : 0, 1, sizeof(real));
    copy_bytes(args->d_weight_hr, NULL, args->d_weight_hr ? P : 0, H, sizeof(real));
    copy_bytes(args->d_peephole, NULL, args->d_peephole ? 3 : 0, H, sizeof(real));
}

struct NAME(backwards) {
    struct NAME(backward) * calls;
    int count;
};

static void NAME(backwards_side_by_side)(void *context, const fastrnn_member *me)
{
    const struct NAME(backwards) *all = context;
    const fastrnn_member alone = fastrnn_alone(me);
    for (int k = me->index; k < all->count; k += me->size) {
        NAME(begin_backward)(&all->calls[k]);
        NAME(backward_member)(&all->calls[k], &alone);
    }
    fastrnn_team_finish(me);
}

static void NAME(backwards_with_one_team)(void *context, const fastrnn_member *me)
{
    const struct NAME(backwards) *all = context;
    for (int k = 0; k < all->count; k++) {
        if (me->index == 0) NAME(begin_backward)(&all->calls[k]);
        fastrnn_team_barrier(me);
        NAME(backward_member)(&all->calls[k], me);
        fastrnn_team_barrier(me); /* the next call uses the same memory, and may read this one's d_x */
    }
}

static fastrnn_status NAME(run_backward)(const fastrnn_backward_args *args, int count, int stacked,
                                         fastrnn_workspace *workspace, const fastrnn_interruption *interruption,
                                         int threads)
{
    struct NAME(backward) calls[FASTRNN_MOST_CALLS];
    plan plans[FASTRNN_MOST_CALLS];
    for (int k = 0; k < count; k++)
        plans[k] = NAME(plan_call)((steps){args[k].T, args[k].B, args[k].offsets}, args[k].packed, threads, count);
    const arrangement how = arrange(plans, count, stacked, args->T, threads);
    const int together = how == SIDE_BY_SIDE;
    fastrnn_layout layout = {0};
    for (int k = 0; k < count; k++) {
        fastrnn_layout own = {0};
        const linked links = {together && stacked ? k : NO_LINK, together && stacked ? k - 1 : NO_LINK};
        NAME(prepare_backward)(&calls[k], &args[k], plans[k], links, together ? &layout : &own);
        if (!together) merge_layout(&layout, &own);
    }
    char *memory = fastrnn_borrow(workspace, &layout);
    if (!memory) return FASTRNN_OUT_OF_MEMORY;
    int complete = 1;
    const int steps = args->T > 0 && rows_of_step(&calls->steps, 0) > 0;
    for (int k = 0; k < count; k++) NAME(place_backward)(&calls[k], memory);
    struct NAME(backwards) all = {calls, count};
    if (steps && how == SIDE_BY_SIDE)
        complete =
            fastrnn_team_run(threads < count ? threads : count, NAME(backwards_side_by_side), &all, interruption);
    else if (steps && how == WITH_ONE_TEAM)
        complete = fastrnn_team_run(plans->threads, NAME(backwards_with_one_team), &all, interruption);
    else
        for (int k = 0; k < count && complete; k++) {
            NAME(begin_backward)(&calls[k]);
            if (steps) complete = fastrnn_team_run(plans[k].threads, NAME(backward_member), &calls[k], interruption);
        }
    fastrnn_give_back(workspace, memory);
    return complete ? FASTRNN_OK : FASTRNN_INTERRUPTED;
}
