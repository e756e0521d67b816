/* The forward pass of a layer over time, in one precision. A call is cut into phases (runtime/team.h), whose shares are
 * functions of a member: its share of the hidden units or of the sequences, or the whole of one call among several. */

struct NAME(forward) {
    const fastrnn_forward_args *args;
    const fastrnn_packed *packed;
    const NAME(kernels) * kernel;
    const NAME(cell) * cell;
    steps steps;
    real *gates;                                    /* (rows of a chunk, G), or (N, G) in the tape */
    real *kept_gates;                               /* in the tape: (N, G); NULL: not saved */
    real *kept[FASTRNN_MOST_STATES], *intermediate; /* in the tape: (N, P) h, (N, H) other states; NULL: not saved */
    real *state[FASTRNN_MOST_STATES]; /* (B, H): the states of step t except h; NULL: in the tape. Not state_n, which
                                         may share a cache line with that of a call on another core */
    const fastrnn_narrow *rounding;   /* the format that rounds the operands of products, or NULL */
    int bounded;                      /* whether |h_t| <= max(1, |h_{t-1}|), but for rounding */
    int whole_h, whole_m;             /* whether the scale of an operand, h or m, depends on all its units */
    int has_rest;                     /* whether the operand m has a second part */
    real *x_rows; /* (rows of a chunk, x_row): a copy of the chunk's x, rounded, or if its rows collide in the cache;
                     else NULL */
    real *hidden; /* (2, B, h_row): h_{t-1} and h_t, alternating, as the products read them */
    /* If members share sequences, each has private rows of the arrays it writes (own_memory). between_hidden (B, h_row)
     * and between_state (B, H): the states between two phases. own_h (2, B, P): h_{t-1} and h_t before they are copied
     * to the output; NULL: the kernel writes to the output. */
    real *between_hidden, *between_state[FASTRNN_MOST_STATES], *own_h;
    ptrdiff_t half_of_hidden, half_of_own_h; /* numbers between h_{t-1} and h_t */
    int by_rows, keeps_own_h;                /* whether members share sequences, and whether there is own_h */
    int in_tape; /* whether a step's gates and states except h are written to the tape; else, if there is a tape, they
                    are copied there at the end of the step */
    ptrdiff_t own_from;              /* the first step whose h is in own_h */
    real *m;                         /* (B, unit_row): the hidden units before a recurrent projection, or NULL */
    real *gated;                     /* (B, unit_row): the first part's result, of a cell of two parts */
    real *rounded_m, *rounded_gated; /* (B, rounded_row): m and gated as the products read them, if they are rounded */
    real *rest_of_m; /* (B, rounded_row): the second part of the operand m, or NULL. Without it, 8 bits of m
                      * would add an error to h_t nearly as large as all others together */
    real *recurrent; /* (B, G): the recurrent sums of a step, if the cell keeps them apart */
    real *reset_state[FASTRNN_MOST_STATES]; /* (B, H): states of the step before except h, zeros where reset */
    ptrdiff_t x_row, h_row, unit_row, rounded_row;
    ptrdiff_t chunk; /* rows whose input projection is one product, at least B */
    size_t at_gates, at_x_rows, at_hidden, at_state[FASTRNN_MOST_STATES], at_reset_state[FASTRNN_MOST_STATES], at_m,
        at_gated, at_rounded, at_rest, at_recurrent, at_between_hidden, at_between_state[FASTRNN_MOST_STATES],
        at_own_h; /* offsets in the workspace */
};

/* Steps [t0, t1). parts: the phases of their input projection; 0: it is computed in the phase of the first step. The
 * members share the rows of a phase, or its hidden units; such a phase has some of the rows, or some of the units. */
typedef struct {
    const struct NAME(forward) * f;
    ptrdiff_t t0, t1;
    int parts, shares_rows, has_some_rows;
} NAME(forward_phase);
enum { NAME(ROWS_OF_PHASE) = 64, NAME(BLOCKS_OF_PHASE) = 8 }; /* at least; the blocks for each member */

/* Whether the gates are in the tape, of all steps, rather than in the workspace, of a chunk. */
static int NAME(gates_in_tape)(const struct NAME(forward) * f) { return f->in_tape && f->cell->saves_gates; }

/* The gates (rows, G) of the steps from t0 on. */
static real *NAME(gates_from)(const struct NAME(forward) * f, ptrdiff_t t0)
{
    const ptrdiff_t G = f->cell->gates * f->packed->H;
    return f->gates + (NAME(gates_in_tape)(f) ? first_row(&f->steps, t0) * G : 0);
}

/* Copies rows of x, counted from step t0, to x_rows. */
static void NAME(copy_x)(const struct NAME(forward) * f, ptrdiff_t t0, fastrnn_range rows)
{
    const ptrdiff_t I = f->packed->I;
    const real *x = (const real *)f->args->x + first_row(&f->steps, t0) * I;
    if (f->rounding) {
        f->rounding->round_rows(rows.to - rows.from, I, 0, x + rows.from * I, I, NULL, f->x_rows + rows.from * f->x_row,
                                f->x_row);
        return;
    }
    for (ptrdiff_t r = rows.from; r < rows.to; r++)
        memcpy(f->x_rows + r * f->x_row, x + r * I, (size_t)I * sizeof(real));
}

/* The input projection into gates, for some rows of the steps from t0 on and some blocks of hidden units. */
static void NAME(project_rows)(const struct NAME(forward) * f, const fastrnn_member *me, ptrdiff_t t0,
                               fastrnn_range rows, fastrnn_range blocks)
{
    const fastrnn_packed *packed = f->packed;
    const ptrdiff_t I = packed->I, H = packed->H, G = f->cell->gates * H, n = rows.to - rows.from;
    const real *x = f->x_rows ? f->x_rows : (const real *)f->args->x + first_row(&f->steps, t0) * I;
    const double operations = 2.0 * n * I * f->cell->gates * f->cell->block;
    for (fastrnn_range piece = fastrnn_no_piece(blocks); fastrnn_next_piece(me, blocks, operations, &piece);)
        f->kernel->project(f->cell, n, H, piece.from, piece.to, x + rows.from * f->x_row, f->x_row, packed->weight_ih,
                           (const real *const *)packed->bias_ih, NAME(gates_from)(f, t0) + rows.from * G);
}

/* h_t as the products of step t + 1 read it, and the flags of the sequences that are reset before. */
static real *NAME(h_after)(const struct NAME(forward) * f, ptrdiff_t t)
{
    return f->hidden + (t + 1) % 2 * f->half_of_hidden;
}

/* h_t (rows of the step, P). */
static real *NAME(h_of)(const struct NAME(forward) * f, ptrdiff_t t)
{
    if (f->own_h && t >= f->own_from) return f->own_h + t % 2 * f->half_of_own_h;
    return (real *)f->args->output + first_row(&f->steps, t) * f->packed->P;
}

/* Rounds the rows of h_t that step t + 1 reads: some columns, or whole rows. */
static void NAME(round_h)(const struct NAME(forward) * f, ptrdiff_t t, fastrnn_range rows, fastrnn_range columns)
{
    const ptrdiff_t P = f->packed->P;
    const fastrnn_range next = first_of(rows, rows_of_step(&f->steps, t + 1));
    const uint8_t *resets = resets_of_step(&f->steps, t + 1);
    const real *h = NAME(h_of)(f, t) + next.from * P;
    real *to = NAME(h_after)(f, t) + next.from * f->h_row;
    if (resets) resets += next.from;
    if (f->whole_h)
        f->rounding->round_rows(next.to - next.from, P, f->bounded && !f->m, h, P, resets, to, f->h_row);
    else
        f->rounding->round_units(next.to - next.from, columns.from, columns.to, h, P, resets, to, f->h_row);
}

/* Begins the rows that step t will round in parts. */
static void NAME(begin_step)(const struct NAME(forward) * f, ptrdiff_t t, fastrnn_range rows)
{
    if (!f->rounding || !f->rounding->begin_rows) return;
    const ptrdiff_t n = rows.to - rows.from, at = rows.from * f->rounded_row;
    if (!f->whole_h) f->rounding->begin_rows(n, NAME(h_after)(f, t) + rows.from * f->h_row, f->h_row);
    if (f->gated && !f->whole_h) f->rounding->begin_rows(n, f->rounded_gated + at, f->rounded_row);
}

/* Rounds m for some sequences: some units, or whole rows if the scales depend on them. */
static void NAME(round_m)(const struct NAME(forward) * f, fastrnn_range rows, fastrnn_range units)
{
    const fastrnn_narrow *rounding = f->rounding;
    const ptrdiff_t n = rows.to - rows.from, H = f->packed->H, at = rows.from * f->rounded_row;
    real *m = f->m + rows.from * f->unit_row;
    if (!f->whole_m) {
        rounding->round_units(n, units.from, units.to, m, f->unit_row, NULL, f->rounded_m + at, f->rounded_row);
        return;
    }
    rounding->round_rows(n, H, 0, m, f->unit_row, NULL, f->rounded_m + at, f->rounded_row);
    if (!f->rest_of_m) return;
    rounding->subtract_rounded(n, H, m, f->unit_row);
    rounding->round_rows(n, H, 0, m, f->unit_row, NULL, f->rest_of_m + at, f->rounded_row);
}

/* Rounds the results of a part for the next product, if that needs no whole rows: r h_{t-1}, m or h_t. */
static void NAME(round_results)(const struct NAME(forward) * f, int last, ptrdiff_t t, fastrnn_range now,
                                fastrnn_range units)
{
    const ptrdiff_t n = now.to - now.from;
    if (!last && !f->whole_h)
        f->rounding->round_units(n, units.from, units.to, f->gated + now.from * f->unit_row, f->unit_row, NULL,
                                 f->rounded_gated + now.from * f->rounded_row, f->rounded_row);
    else if (last && f->rounded_m && !f->whole_m)
        NAME(round_m)(f, now, units);
    else if (last && !f->m && !f->whole_h)
        NAME(round_h)(f, t, now, units);
}

/* Copies the gates of step t, and its states except h, to the tape. */
static void NAME(fill_tape)(const struct NAME(forward) * f, ptrdiff_t t, const real *gates, fastrnn_range rows)
{
    const ptrdiff_t H = f->packed->H, G = f->cell->gates * H, n = rows.to - rows.from;
    const ptrdiff_t at = first_row(&f->steps, t) + rows.from;
    if (f->kept_gates) copy_bytes(f->kept_gates + at * G, gates + rows.from * G, n, G, sizeof(real));
    for (int k = 1; k < f->cell->states; k++)
        copy_bytes(f->kept[k] + at * H, f->state[k] + rows.from * H, n, H, sizeof(real));
}

/* One part of step t, whose gates (rows of the step, G) are given, for some sequences and some blocks. After the last
 * part private rows are copied to the output and the tape. */
static void NAME(forward_step)(const struct NAME(forward) * f, const fastrnn_member *me, int part, ptrdiff_t t,
                               real *gates, fastrnn_range rows, fastrnn_range blocks)
{
    const fastrnn_forward_args *args = f->args;
    const ptrdiff_t H = f->packed->H, P = f->packed->P, at = first_row(&f->steps, t);
    const fastrnn_range now = first_of(rows, rows_of_step(&f->steps, t)),
                        units = {blocks.from * f->cell->block,
                                 blocks.to * f->cell->block < H ? blocks.to * f->cell->block : H};
    const uint8_t *resets = resets_of_step(&f->steps, t);
    const int copied = f->rounding || t || f->steps.resets; /* whether `hidden` has h_{t-1} */
    const int as_read = copied && !f->rounding;             /* and in the precision of the call */
    NAME(step)
    step = {
        .H = H,
        .options = f->packed->has_options ? &f->packed->options : NULL,
        .weight_hh = f->packed->weight_hh,
        .bias_hh = (const real *const *)f->packed->bias_hh,
        .peephole = f->packed->peephole,
        .operand = {copied ? f->hidden + t % 2 * f->half_of_hidden : args->state_0[0],
                    f->rounding ? f->rounded_gated : f->gated},
        .operand_row = {copied ? f->h_row : P, f->rounding ? f->rounded_row : f->unit_row},
        .h_prev = as_read ? f->hidden + t % 2 * f->half_of_hidden
                  : t     ? NAME(h_of)(f, t - 1)
                          : args->state_0[0],
        .h_prev_row = as_read ? f->h_row : P,
        .gates = gates,
        .recurrent = f->recurrent,
        .gated = f->gated,
        .gated_row = f->unit_row,
        .kept_h = f->kept[0] && !f->m ? f->kept[0] + at * H : NULL,
        .intermediate = f->intermediate ? f->intermediate + at * H : NULL,
        .h = f->m ? f->m : NAME(h_of)(f, t),
        .h_row = f->m ? f->unit_row : P,
        .h_next = f->m || f->rounding ? NULL : NAME(h_after)(f, t),
        .h_next_row = f->h_row,
        .keep = args->tape != NULL,
    };
    if (resets && f->rounding && !f->m) {
        if (part == 0) copy_rows(f->reset_state[0], step.h_prev, H, resets, now, units, sizeof(real));
        step.h_prev = f->reset_state[0];
    }
    for (int n = 1; n < f->cell->states; n++) {
        step.state[n] = f->state[n] ? f->state[n] : f->kept[n] + at * H;
        step.state_prev[n] = !t            ? args->state_0[n]
                             : f->state[n] ? f->state[n]
                                           : f->kept[n] + first_row(&f->steps, t - 1) * H;
        if (resets && part == 0) copy_rows(f->reset_state[n], step.state_prev[n], H, resets, now, units, sizeof(real));
        if (resets) step.state_prev[n] = f->reset_state[n];
    }
    const int last = part == f->packed->parts - 1;
    const ptrdiff_t columns = f->cell->parts[part] * f->cell->block, K = step.weight_hh[part].K;
    if (units.to - units.from < H && f->packed->heads == 1) {
        const ptrdiff_t row = step.operand_row[part]; /* fewer floats if it is rounded */
        fetch_rows(step.operand[part], now.to - now.from, K < row ? K : row, row, sizeof(real));
    }
    const double operations = 2.0 * (now.to - now.from) * f->packed->S * f->cell->parts[part] * f->cell->block;
    for (fastrnn_range piece = fastrnn_no_piece(blocks); fastrnn_next_piece(me, blocks, operations, &piece);)
        for (fastrnn_range left = piece; left.from < left.to;) {
            const fastrnn_range some = take_part(&left, columns, K, f->kernel->width, t % 2);
            f->cell->step(&step, part, now.from, now.to, some.from, some.to);
        }
    if (step.h_next && last)
        clear_rows(step.h_next, f->h_row, resets_of_step(&f->steps, t + 1),
                   first_of(rows, rows_of_step(&f->steps, t + 1)), units, sizeof(real));
    if (f->rounding) NAME(round_results)(f, last, t, now, units);
    if (f->own_h && last)
        memcpy((real *)args->output + (at + now.from) * P, NAME(h_of)(f, t) + now.from * P,
               (size_t)(now.to - now.from) * (size_t)P * sizeof(real));
    if (args->tape && !f->in_tape && last) NAME(fill_tape)(f, t, gates, now);
}

/* After a part of step t, or after its recurrent projection (part MOST_PARTS): the operands whose scales depend on
 * whole rows, for some sequences. */
static int NAME(rounds_whole_rows)(const struct NAME(forward) * f, int part)
{
    return part == f->packed->parts - 1 && f->m ? f->whole_m : f->whole_h;
}
static void NAME(round_whole_rows)(const struct NAME(forward) * f, int part, ptrdiff_t t, fastrnn_range rows)
{
    const ptrdiff_t H = f->packed->H;
    const fastrnn_range now = first_of(rows, rows_of_step(&f->steps, t));
    if (!NAME(rounds_whole_rows)(f, part)) return;
    if (part < f->packed->parts - 1)
        f->rounding->round_rows(now.to - now.from, H, f->bounded, f->gated + now.from * f->unit_row, f->unit_row, NULL,
                                f->rounded_gated + now.from * f->rounded_row, f->rounded_row);
    else if (f->m && part != MOST_PARTS)
        NAME(round_m)(f, now, (fastrnn_range){0, H});
    else
        NAME(round_h)(f, t, now, (fastrnn_range){0, f->packed->P});
}

/* The recurrent projection of step t: h_t = m W_hr^T, for some sequences and some panels of h_t. */
static void NAME(project_hidden)(const struct NAME(forward) * f, const fastrnn_member *me, ptrdiff_t t,
                                 fastrnn_range rows, fastrnn_range panels)
{
    const fastrnn_forward_args *args = f->args;
    const ptrdiff_t H = f->packed->H, P = f->packed->P, at = first_row(&f->steps, t);
    const int width = f->kernel->width;
    const fastrnn_range now = first_of(rows, rows_of_step(&f->steps, t));
    real *output = (real *)args->output + (at + now.from) * P, *h_next = NAME(h_after)(f, t);
    real *to = f->rounding ? output : h_next + now.from * f->h_row;
    const real *m = f->rounded_m ? f->rounded_m : f->m;
    const ptrdiff_t m_row = f->rounded_m ? f->rounded_row : f->unit_row, to_row = f->rounding ? P : f->h_row;
    const double operations = 2.0 * (now.to - now.from) * H * width;
    for (fastrnn_range piece = fastrnn_no_piece(panels); fastrnn_next_piece(me, panels, operations, &piece);) {
        f->kernel->multiply(now.to - now.from, piece.from, piece.to, m + now.from * m_row, m_row, &f->packed->weight_hr,
                            NULL, to, to_row);
        if (f->rest_of_m)
            f->rounding->product(now.to - now.from, &f->packed->weight_hr, piece.from, piece.to,
                                 f->rest_of_m + now.from * m_row, m_row, NULL, to, to_row);
    }
    const ptrdiff_t from = panels.from * width, end = panels.to * width < P ? panels.to * width : P;
    if (from >= end) return;
    if (f->rounding) {
        if (!f->whole_h) NAME(round_h)(f, t, now, (fastrnn_range){from, end});
        return;
    }
    const size_t bytes = (size_t)(end - from) * sizeof(real);
    for (ptrdiff_t r = 0; r < now.to - now.from; r++) {
        memcpy(output + r * P + from, to + r * f->h_row + from, bytes);
        if (f->kept[0]) memcpy(f->kept[0] + (at + now.from + r) * P + from, to + r * f->h_row + from, bytes);
    }
    clear_rows(h_next, f->h_row, resets_of_step(&f->steps, t + 1), first_of(rows, rows_of_step(&f->steps, t + 1)),
               (fastrnn_range){from, end}, sizeof(real));
}

/* Writes state_n of some sequences, after the last step. */
static void NAME(end_forward)(const struct NAME(forward) * f, fastrnn_range rows)
{
    const fastrnn_forward_args *args = f->args;
    const ptrdiff_t H = f->packed->H, P = f->packed->P;
    const real *output = args->output;
    for (ptrdiff_t t = args->T - 1, done = 0; t >= 0 && done < args->B; t--) {
        const ptrdiff_t count = rows_of_step(&f->steps, t), at = first_row(&f->steps, t);
        const fastrnn_range ending = first_of(from_row(rows, done), count);
        done = count;
        if (ending.from >= ending.to) continue;
        copy_bytes((real *)args->state_n[0] + ending.from * P, output + (at + ending.from) * P, ending.to - ending.from,
                   P, sizeof(real));
        for (int n = 1; n < f->cell->states; n++)
            copy_bytes((real *)args->state_n[n] + ending.from * H,
                       (f->kept[n] ? f->kept[n] + at * H : f->state[n]) + ending.from * H, ending.to - ending.from, H,
                       sizeof(real));
    }
}

/* Steps [from, to) of some sequences, by one member. If these are all sequences, the input projection is computed for
 * several steps at a time. */
static void NAME(forward_rows)(const struct NAME(forward) * f, const fastrnn_member *me, fastrnn_range rows,
                               ptrdiff_t from, ptrdiff_t to)
{
    const ptrdiff_t B = f->args->B, G = f->cell->gates * f->packed->H;
    const fastrnn_range blocks = {0, fastrnn_panels(f->packed->H, f->cell->block)},
                        h_panels = {0, fastrnn_panels(f->packed->P, f->kernel->width)};
    const int all = rows.from == 0 && rows.to == B;
    for (ptrdiff_t t0 = from, t1; t0 < to; t0 = t1) {
        t1 = all ? end_of_chunk(&f->steps, t0, f->chunk) : t0 + 1;
        if (t1 > to) t1 = to;
        const ptrdiff_t first = first_row(&f->steps, t0);
        const fastrnn_range flat =
            all ? (fastrnn_range){0, first_row(&f->steps, t1) - first} : first_of(rows, rows_of_step(&f->steps, t0));
        if (f->x_rows) NAME(copy_x)(f, t0, flat);
        NAME(project_rows)(f, me, t0, flat, blocks);
        for (ptrdiff_t t = t0; t < t1; t++) {
            real *gates = NAME(gates_from)(f, t0) + (first_row(&f->steps, t) - first) * G;
            NAME(begin_step)(f, t, rows);
            for (int part = 0; part < f->packed->parts; part++) {
                NAME(forward_step)(f, me, part, t, gates, rows, blocks);
                NAME(round_whole_rows)(f, part, t, rows);
            }
            if (f->m) {
                NAME(project_hidden)(f, me, t, rows, h_panels);
                NAME(round_whole_rows)(f, MOST_PARTS, t, rows);
            }
        }
    }
    if (to == f->args->T) NAME(end_forward)(f, rows);
}

/* f with private rows of the arrays that the member writes. Row r has its usual offset plus APART bytes for each member
 * before this one: the hardware prefetches a few rows ahead, and would take their cache lines from the next member. */
static struct NAME(forward) NAME(own_memory)(const struct NAME(forward) * f, const fastrnn_member *me, ptrdiff_t t0)
{
    const ptrdiff_t apart = APART / (ptrdiff_t)sizeof(real) * me->index;
    struct NAME(forward) own = *f;
    real **arrays[] = {&own.x_rows,    &own.hidden,        &own.m,         &own.gated, &own.rounded_m,
                       &own.rest_of_m, &own.rounded_gated, &own.recurrent, &own.own_h};
    for (size_t k = 0; k < sizeof arrays / sizeof arrays[0]; k++)
        if (*arrays[k]) *arrays[k] += apart;
    for (int n = 0; n < FASTRNN_MOST_STATES; n++) {
        if (own.state[n]) own.state[n] += apart;
        if (own.reset_state[n]) own.reset_state[n] += apart;
    }
    if (!NAME(gates_in_tape)(f)) own.gates += apart;
    own.own_from = t0;
    return own;
}

/* Copies the states before step t of some sequences from the arrays between phases to the private rows, or back. */
static void NAME(move_states)(const struct NAME(forward) * own, ptrdiff_t t, fastrnn_range rows, int back)
{
    const ptrdiff_t H = own->packed->H, h_row = own->h_row;
    const fastrnn_range now = first_of(rows, rows_of_step(&own->steps, t));
    real *hidden[] = {own->between_hidden + now.from * h_row,
                      own->hidden + t % 2 * own->half_of_hidden + now.from * h_row};
    copy_bytes(hidden[!back], hidden[back], now.to - now.from, h_row, sizeof(real));
    for (int n = 1; n < own->cell->states; n++) {
        if (!own->state[n]) continue;
        real *state[] = {own->between_state[n] + rows.from * H, own->state[n] + rows.from * H};
        copy_bytes(state[!back], state[back], rows.to - rows.from, H, sizeof(real));
    }
}

static void NAME(forward_share_of_rows)(const void *context, const fastrnn_member *me)
{
    const NAME(forward_phase) *phase = context;
    const fastrnn_range rows = share_rows(&phase->f->steps, phase->t0, phase->t1, me);
    if (rows.from >= rows.to) return;
    const struct NAME(forward) own = NAME(own_memory)(phase->f, me, phase->t0);
    NAME(move_states)(&own, phase->t0, rows, 0);
    NAME(forward_rows)(&own, me, rows, phase->t0, phase->t1);
    NAME(move_states)(&own, phase->t1, rows, 1);
}

static void NAME(forward_share_of_copies)(const void *context, const fastrnn_member *me)
{
    const NAME(forward_phase) *phase = context;
    const steps *s = &phase->f->steps;
    NAME(copy_x)(phase->f, phase->t0, fastrnn_share(first_row(s, phase->t1) - first_row(s, phase->t0), me));
}

static void NAME(forward_share_of_input)(const void *context, const fastrnn_member *me)
{
    const NAME(forward_phase) *phase = context;
    const steps *s = &phase->f->steps;
    fastrnn_range rows = {0, first_row(s, phase->t1) - first_row(s, phase->t0)},
                  blocks = {0, fastrnn_panels(phase->f->packed->H, phase->f->cell->block)};
    if (phase->shares_rows)
        rows = fastrnn_share_of_item(rows.to, phase->parts, me);
    else if (phase->has_some_rows)
        rows = fastrnn_part(rows.to, me->item, phase->parts), blocks = fastrnn_share(blocks.to, me);
    else
        blocks = fastrnn_share_of_item(blocks.to, phase->parts, me);
    NAME(project_rows)(phase->f, me, phase->t0, rows, blocks);
}

/* Part 0 of step `item`. */
static void NAME(forward_share_of_step)(const void *context, const fastrnn_member *me)
{
    const NAME(forward_phase) *phase = context;
    const struct NAME(forward) *f = phase->f;
    const ptrdiff_t G = f->cell->gates * f->packed->H;
    const fastrnn_range blocks = fastrnn_share(fastrnn_panels(f->packed->H, f->cell->block), me), all = {0, f->args->B};
    const ptrdiff_t first = first_row(&f->steps, phase->t0), at = first_row(&f->steps, me->item) - first;
    if (me->item == phase->t0 && phase->parts == 0)
        NAME(project_rows)(f, me, phase->t0, (fastrnn_range){0, first_row(&f->steps, phase->t1) - first}, blocks);
    NAME(forward_step)(f, me, 0, me->item, NAME(gates_from)(f, phase->t0) + at * G, all, blocks);
}

/* Part 1 of step `item`. */
static void NAME(forward_share_of_part_1)(const void *context, const fastrnn_member *me)
{
    const NAME(forward_phase) *phase = context;
    const struct NAME(forward) *f = phase->f;
    const ptrdiff_t at = first_row(&f->steps, me->item) - first_row(&f->steps, phase->t0);
    const fastrnn_range blocks = fastrnn_share(fastrnn_panels(f->packed->H, f->cell->block), me), all = {0, f->args->B};
    NAME(forward_step)(f, me, 1, me->item, NAME(gates_from)(f, phase->t0) + at * f->cell->gates * f->packed->H, all,
                       blocks);
}

static void NAME(forward_share_of_hidden)(const void *context, const fastrnn_member *me)
{
    const NAME(forward_phase) *phase = context;
    const struct NAME(forward) *f = phase->f;
    const fastrnn_range all = {0, f->args->B};
    NAME(project_hidden)(f, me, me->item, all, fastrnn_share(fastrnn_panels(f->packed->P, f->kernel->width), me));
}

/* The whole rows of an operand after a part of step `item`. */
typedef struct {
    const struct NAME(forward) * f;
    int part;
} NAME(forward_rounding_phase);
static void NAME(forward_share_of_rounding)(const void *context, const fastrnn_member *me)
{
    const NAME(forward_rounding_phase) *phase = context;
    const ptrdiff_t rows = rows_of_step(&phase->f->steps, me->item);
    NAME(round_whole_rows)(phase->f, phase->part, me->item, fastrnn_share(rows, me));
}
static int NAME(forward_rounding)(const struct NAME(forward) * f, fastrnn_team *team, int most, int part, ptrdiff_t t)
{
    const NAME(forward_rounding_phase) phase = {f, part};
    const double numbers = (double)rows_of_step(&f->steps, t) * (double)f->packed->H;
    return !NAME(rounds_whole_rows)(f, part) ||
           fastrnn_team_phase(team, most, 4 * numbers, NAME(forward_share_of_rounding), &phase, t);
}

/* Steps [t0, t1), a chunk: the team shares the input projection, and the hidden units unless the plan leaves the steps
 * to the caller. Returns 0 if the call is cancelled. */
static int NAME(forward_steps)(const struct NAME(forward) * f, fastrnn_team *team, fastrnn_plan p, ptrdiff_t t0,
                               ptrdiff_t t1)
{
    const ptrdiff_t I = f->packed->I, H = f->packed->H, P = f->packed->P, blocks = fastrnn_panels(H, f->cell->block);
    const double rows = (double)(first_row(&f->steps, t1) - first_row(&f->steps, t0)), G = f->cell->gates * (double)H;
    const int products_only = p.sharing == FASTRNN_SHARE_PRODUCTS, most = products_only ? 1 : p.threads;
    const int shares_rows = products_only && fastrnn_shares_rows((ptrdiff_t)rows, p.threads);
    const ptrdiff_t phases_of_rows = (ptrdiff_t)rows / NAME(ROWS_OF_PHASE) / (shares_rows ? p.threads : 1),
                    phases_of_blocks = shares_rows ? 0 : blocks / (NAME(BLOCKS_OF_PHASE) * p.threads);
    const int has_some_rows = phases_of_rows > phases_of_blocks;
    const int parts = fastrnn_phases(2 * rows * I * G, has_some_rows ? phases_of_rows : phases_of_blocks);
    const int with_first_step = parts == 1 && !products_only;
    const NAME(forward_phase) phase = {f, t0, t1, with_first_step ? 0 : parts, shares_rows, has_some_rows};
    const double input = 2 * rows * I * G / parts;
    if (f->x_rows && !fastrnn_team_phase(team, p.threads, rows * I, NAME(forward_share_of_copies), &phase, 0)) return 0;
    for (int k = 0; k < phase.parts; k++)
        if (!fastrnn_team_phase(team, p.threads, input, NAME(forward_share_of_input), &phase, k)) return 0;
    for (ptrdiff_t t = t0; t < t1; t++) {
        const double now = (double)rows_of_step(&f->steps, t);
        const double recurrent = 2 * now * f->packed->S * H, first = t == t0 && with_first_step ? input : 0;
        NAME(begin_step)(f, t, (fastrnn_range){0, f->args->B});
        if (!fastrnn_team_phase(team, most, recurrent * f->cell->parts[0] + first, NAME(forward_share_of_step), &phase,
                                t) ||
            !NAME(forward_rounding)(f, team, most, 0, t))
            return 0;
        if (f->packed->parts > 1 &&
            (!fastrnn_team_phase(team, most, recurrent * f->cell->parts[1], NAME(forward_share_of_part_1), &phase, t) ||
             !NAME(forward_rounding)(f, team, most, 1, t)))
            return 0;
        if (f->m && (!fastrnn_team_phase(team, most, 2 * now * P * H, NAME(forward_share_of_hidden), &phase, t) ||
                     !NAME(forward_rounding)(f, team, most, MOST_PARTS, t)))
            return 0;
    }
    return 1;
}

/* Copies h_0 to `hidden`, if it is rounded or if there are resets, with zeros for the sequences that are reset before
 * their first step. */
static void NAME(begin_forward)(const struct NAME(forward) * f)
{
    const ptrdiff_t P = f->packed->P;
    const fastrnn_range rows = {0, rows_of_step(&f->steps, 0)}, columns = {0, P};
    const uint8_t *resets = resets_of_step(&f->steps, 0);
    const real *h_0 = f->args->state_0[0];
    real *hidden = f->between_hidden ? f->between_hidden : f->hidden;
    if (f->rounding) {
        f->rounding->round_rows(rows.to, P, f->bounded && !f->m, h_0, P, resets, hidden, f->h_row);
    } else if (f->steps.resets) {
        for (ptrdiff_t b = 0; b < rows.to; b++) copy_bytes(hidden + b * f->h_row, h_0 + b * P, 1, P, sizeof(real));
        clear_rows(hidden, f->h_row, resets, rows, columns, sizeof(real));
    }
}

/* One call, run by its plan. Returns 0 if it is cancelled. */
static int NAME(forward_call)(const struct NAME(forward) * f, fastrnn_team *team, fastrnn_plan p)
{
    const ptrdiff_t T = f->args->T;
    const fastrnn_range all = {0, f->args->B};
    const fastrnn_member caller = fastrnn_caller(team);
    NAME(begin_forward)(f);
    if (p.threads == 1) {
        NAME(forward_rows)(f, &caller, all, 0, T);
        return fastrnn_team_go(&caller, 0);
    }
    if (p.sharing == FASTRNN_SHARE_ROWS) {
        const double operations = 2.0 * f->cell->gates * f->packed->H * (f->packed->I + f->packed->S);
        const ptrdiff_t piece = fastrnn_panels(first_row(&f->steps, T), fastrnn_pieces(p.alone, PIECE, T));
        for (ptrdiff_t t0 = 0, t1; t0 < T; t0 = t1) { /* short phases until the team is complete */
            const int members = fastrnn_team_gather(team, p.threads, 0);
            t1 = end_of_chunk(&f->steps, t0, members < p.threads ? piece / 4 : piece);
            const NAME(forward_phase) phase = {f, t0, t1, 0, 0, 0};
            const double rows = (double)(first_row(&f->steps, t1) - first_row(&f->steps, t0));
            if (!fastrnn_team_phase(team, p.threads, operations * rows, NAME(forward_share_of_rows), &phase, 0))
                return 0;
        }
        return 1;
    }
    for (ptrdiff_t t0 = 0, t1; t0 < T; t0 = t1) {
        t1 = end_of_chunk(&f->steps, t0, f->chunk);
        if (!NAME(forward_steps)(f, team, p, t0, t1)) return 0;
    }
    NAME(end_forward)(f, all);
    return 1;
}

/* Whether any of n numbers is beyond the bound of a bounded operand. */
static int NAME(exceeds_bound)(const real *a, ptrdiff_t n)
{
    int exceeds = 0;
    for (ptrdiff_t k = 0; k < n; k++) exceeds |= a[k] > (real)FASTRNN_BOUND || a[k] < -(real)FASTRNN_BOUND;
    return exceeds;
}

/* Reserves (rows, columns) numbers, and `apart` more for the distances between members; nothing for no rows. */
static size_t NAME(reserve_rows)(fastrnn_layout *layout, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t apart)
{
    const size_t at = fastrnn_reserve(layout, sizeof(real), rows, columns, 1);
    if (rows > 0) fastrnn_reserve(layout, sizeof(real), apart, 1, 1);
    return at;
}

/* Fills f, except for pointers into the workspace, for which it reserves memory. */
static void NAME(prepare_forward)(struct NAME(forward) * f, const fastrnn_forward_args *args, fastrnn_plan p,
                                  fastrnn_layout *layout)
{
    const int by_rows = shares_sequences(p);
    const ptrdiff_t apart = between_members(p, sizeof(real));
    const fastrnn_packed *packed = args->packed;
    const NAME(kernels) *kernel = packed->isa->SUFFIX;
    const NAME(cell) *cell = kernel->cells[packed->cell];
    const ptrdiff_t B = args->B, I = packed->I, H = packed->H, P = packed->P, G = cell->gates * H;
    const fastrnn_narrow *narrow = packed->narrow, *rounding = narrow && narrow->bytes ? narrow : NULL;
    const int copy_x = rounding || rows_collide(I, sizeof(real));
    const int has_scales = rounding && rounding->begin_rows;
    const int rounds_m = rounding && packed->weight_hr.narrow;
    const int bounded = cell->bounded && packed->options.activation == FASTRNN_TANH;
    const ptrdiff_t x_row = rounding ? fastrnn_operand_row(rounding, I) : copy_x ? padded_row(I, sizeof(real)) : I;
    *f = (struct NAME(forward)){
        .args = args,
        .packed = packed,
        .kernel = kernel,
        .cell = cell,
        .steps = {args->T, B, args->offsets, args->resets},
        .rounding = rounding,
        .bounded = bounded,
        .whole_m = has_scales && rounds_m,
        .has_rest = rounds_m && rounding->subtract_rounded,
        .x_row = x_row,
        .h_row = rounding ? fastrnn_operand_row(rounding, P) : padded_row(P, sizeof(real)),
        .unit_row = padded_row(H, sizeof(real)),
        .rounded_row = rounding ? fastrnn_operand_row(rounding, H) : 0,
    };
    f->in_tape = args->tape && !is_private_first(p, B, G, sizeof(real));
    f->whole_h = has_scales && (!bounded || packed->has_projection || NAME(exceeds_bound)(args->state_0[0], B * P));
    f->chunk = chunk_rows(&f->steps, projection_bytes(I, G, sizeof(real)), G + (copy_x ? x_row : 0), sizeof(real));
    f->half_of_hidden = B * f->h_row + apart;
    f->half_of_own_h = B * P + apart;
    f->at_gates = NAME(reserve_rows)(layout, NAME(gates_in_tape)(f) ? 0 : f->chunk, G, apart);
    f->at_x_rows = NAME(reserve_rows)(layout, copy_x ? f->chunk : 0, x_row, apart);
    f->at_hidden = fastrnn_reserve(layout, sizeof(real), 2, f->half_of_hidden, 1);
    for (int n = 1; n < cell->states; n++) f->at_state[n] = NAME(reserve_rows)(layout, f->in_tape ? 0 : B, H, apart);
    for (int n = rounding ? 0 : 1; n < cell->states; n++)
        f->at_reset_state[n] = NAME(reserve_rows)(layout, args->resets ? B : 0, H, apart);
    f->at_m = NAME(reserve_rows)(layout, packed->has_projection ? B : 0, f->unit_row, apart);
    f->at_gated = NAME(reserve_rows)(layout, packed->parts > 1 ? B : 0, f->unit_row, apart);
    f->at_rounded = NAME(reserve_rows)(layout, rounds_m || packed->parts > 1 ? B : 0, f->rounded_row,
                                       apart); /* no cell of two parts has a projection */
    f->at_rest = NAME(reserve_rows)(layout, f->has_rest ? B : 0, f->rounded_row, apart);
    f->at_recurrent = NAME(reserve_rows)(layout, cell->recurrent ? B : 0, G, apart);
    f->at_between_hidden = fastrnn_reserve(layout, sizeof(real), by_rows ? B : 0, f->h_row, 1);
    for (int n = 1; n < cell->states; n++)
        f->at_between_state[n] = fastrnn_reserve(layout, sizeof(real), by_rows && !f->in_tape ? B : 0, H, 1);
    f->keeps_own_h = !packed->has_projection && is_private_first(p, B, P, sizeof(real));
    f->at_own_h = fastrnn_reserve(layout, sizeof(real), f->keeps_own_h ? 2 : 0, f->half_of_own_h, 1);
    f->by_rows = by_rows;
}

static void NAME(place_forward)(struct NAME(forward) * f, char *memory)
{
    const fastrnn_packed *packed = f->packed;
    const ptrdiff_t N = first_row(&f->steps, f->steps.T), projection = packed->has_projection ? packed->P : 0;
    f->gates = (real *)(memory + f->at_gates);
    if (f->args->tape) {
        const fastrnn_tape at = fastrnn_tape_layout(packed->dtype, packed->cell, N, packed->H, projection);
        if (f->cell->saves_gates) f->kept_gates = fastrnn_in_tape(f->args->tape, at.gates);
        if (NAME(gates_in_tape)(f)) f->gates = f->kept_gates;
        for (int n = 0; n < f->cell->states; n++) f->kept[n] = fastrnn_in_tape(f->args->tape, at.states[n]);
        f->intermediate = fastrnn_in_tape(f->args->tape, at.intermediate);
        fastrnn_clear_gaps(f->args->tape, packed->dtype, packed->cell, N, packed->H, projection);
    }
    for (int n = 1; n < f->cell->states; n++)
        if (!f->in_tape) f->state[n] = (real *)(memory + f->at_state[n]);
    if (f->rounding || rows_collide(packed->I, sizeof(real))) f->x_rows = (real *)(memory + f->at_x_rows);
    f->hidden = (real *)(memory + f->at_hidden);
    for (int n = f->rounding ? 0 : 1; n < f->cell->states; n++)
        f->reset_state[n] = (real *)(memory + f->at_reset_state[n]);
    if (f->by_rows) {
        f->between_hidden = (real *)(memory + f->at_between_hidden);
        for (int n = 1; n < f->cell->states; n++)
            if (f->state[n]) f->between_state[n] = (real *)(memory + f->at_between_state[n]);
    }
    if (f->keeps_own_h) f->own_h = (real *)(memory + f->at_own_h);
    if (packed->has_projection) f->m = (real *)(memory + f->at_m);
    if (packed->parts > 1) f->gated = (real *)(memory + f->at_gated);
    if (f->rounding && packed->weight_hr.narrow) f->rounded_m = (real *)(memory + f->at_rounded);
    if (f->rounding && packed->parts > 1) f->rounded_gated = (real *)(memory + f->at_rounded);
    if (f->has_rest) f->rest_of_m = (real *)(memory + f->at_rest);
    if (f->cell->recurrent) f->recurrent = (real *)(memory + f->at_recurrent);
}

/* Pieces [from, to) of call k, by one member. */
static void NAME(forward_pieces)(const void *calls, const fastrnn_member *me, int k, int from, int to, int items)
{
    const struct NAME(forward) *f = (const struct NAME(forward) *)calls + k;
    const fastrnn_range all = {0, f->args->B};
    const ptrdiff_t t0 = first_step(&f->steps, from, items), t1 = first_step(&f->steps, to, items);
    if (from == 0) NAME(begin_forward)(f);
    if (t0 < t1) NAME(forward_rows)(f, me, all, t0, t1);
}

static fastrnn_status NAME(run_forward)(const fastrnn_forward_args *args, int count, int stacked,
                                        fastrnn_workspace *workspace, const fastrnn_interruption *interruption,
                                        int threads)
{
    struct NAME(forward) calls[FASTRNN_MOST_CALLS];
    fastrnn_plan plans[FASTRNN_MOST_CALLS];
    const steps s = {args->T, args->B, args->offsets, args->resets}; /* the same for all calls */
    const fastrnn_packed *packed[FASTRNN_MOST_CALLS] = {NULL};
    for (int k = 0; k < count; k++) packed[k] = args[k].packed;
    double operations;
    fastrnn_arrangement how = NAME(plan_calls)(s, packed, FASTRNN_FORWARD, count, stacked, threads, plans, &operations);
    const ptrdiff_t active = args->T > 0 ? rows_of_step(&s, 0) : 0;
    fastrnn_team team;
    if (active > 0) {
        fastrnn_team_open(&team, how.members, how.alone, interruption);
        if (fastrnn_team_stays_alone(&team)) {
            how.side_by_side = 0;
            for (int k = 0; k < count; k++) plans[k].threads = 1;
        }
    }
    fastrnn_layout layout = {0};
    for (int k = 0; k < count; k++) {
        fastrnn_layout own = {0}; /* calls one after the other use the same memory */
        NAME(prepare_forward)(&calls[k], &args[k], plans[k], how.side_by_side ? &layout : &own);
        fastrnn_reserve(&layout, 1, how.side_by_side ? APART : 0, 1, 1);
        if (!how.side_by_side) merge_layout(&layout, &own);
    }
    char *memory = fastrnn_borrow(workspace, &layout);
    if (!memory) {
        if (active > 0) fastrnn_team_close(&team);
        return FASTRNN_OUT_OF_MEMORY;
    }
    for (int k = 0; k < count; k++) NAME(place_forward)(&calls[k], memory);
    int complete = 1;
    if (active > 0) {
        if (how.side_by_side)
            run_side_by_side(&team, how, count, stacked, operations, NAME(forward_pieces), calls);
        else
            for (int k = 0; k < count && NAME(forward_call)(&calls[k], &team, plans[k]); k++) continue;
        complete = fastrnn_team_close(&team);
    }
    for (int k = 0; k < count; k++) /* state_n of the sequences without a step */
        for (int n = 0; n < calls[k].cell->states; n++) {
            const ptrdiff_t columns = n ? args[k].packed->H : args[k].packed->P;
            copy_bytes((real *)args[k].state_n[n] + active * columns,
                       (const real *)args[k].state_0[n] + active * columns, args[k].B - active, columns, sizeof(real));
        }
    fastrnn_give_back(workspace, memory);
    return complete ? FASTRNN_OK : FASTRNN_INTERRUPTED;
}
