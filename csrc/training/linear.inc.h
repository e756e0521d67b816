/* A fully connected layer in one precision. */

#include "layer/sums.inc.h"

/* Forward */

typedef struct {
    const fastrnn_linear_args *args;
    const NAME(kernels) * kernel;
    fastrnn_matrix weight; /* (I, O) */
    real *bias;            /* (O), zero-padded to panels */
    int split_rows;        /* members share the rows, else the panels */
} NAME(linear);

static void NAME(pack_linear)(const void *context, const fastrnn_member *me)
{
    const NAME(linear) *l = context;
    const ptrdiff_t O = l->args->O, width = l->kernel->width;
    const fastrnn_range panels = fastrnn_share(fastrnn_panels(O, width), me);
    l->kernel->pack_gates(1, (int)width, O, panels.from, panels.to, l->args->weight, &l->weight);
    l->kernel->pack_bias(1, (int)width, O, panels.from, panels.to, l->args->bias, NULL, l->bias);
}

/* The member's share if `mine`, else all items. A product shares either its rows or its panels. */
static fastrnn_range NAME(all_or)(int mine, fastrnn_range share, ptrdiff_t all)
{
    return mine ? share : (fastrnn_range){0, all};
}

static void NAME(multiply_linear)(const void *context, const fastrnn_member *me)
{
    const NAME(linear) *l = context;
    const fastrnn_linear_args *args = l->args;
    const ptrdiff_t panels = fastrnn_panels(args->O, l->kernel->width);
    const fastrnn_range share = fastrnn_share(l->split_rows ? args->N : panels, me);
    const double operations = 2.0 * args->I * (l->split_rows ? (double)args->O : (double)args->N * l->kernel->width);
    for (fastrnn_range piece = fastrnn_no_piece(share); fastrnn_next_piece(me, share, operations, &piece);) {
        const fastrnn_range rows = NAME(all_or)(l->split_rows, piece, args->N);
        const fastrnn_range of = NAME(all_or)(!l->split_rows, piece, panels);
        l->kernel->multiply(rows.to - rows.from, of.from, of.to, (const real *)args->x + rows.from * args->I, args->I,
                            &l->weight, l->bias, (real *)args->y + rows.from * args->O, args->O);
    }
}

static fastrnn_status NAME(run_linear)(const NAME(kernels) * kernel, const fastrnn_linear_args *args,
                                       fastrnn_workspace *workspace, const fastrnn_interruption *interruption,
                                       int threads)
{
    const ptrdiff_t N = args->N, I = args->I, O = args->O, panels = fastrnn_panels(O, kernel->width);
    if (N == 0 || O == 0) return FASTRNN_OK;
    fastrnn_layout layout = {0};
    const size_t at_weight = fastrnn_reserve(&layout, sizeof(real), panels, kernel->width, I);
    const size_t at_bias = fastrnn_reserve(&layout, sizeof(real), panels, kernel->width, 1);
    char *memory = fastrnn_borrow(workspace, &layout);
    if (!memory) return FASTRNN_OUT_OF_MEMORY;
    const double operations = 2.0 * (double)N * (double)I * (double)O;
    threads = threads_for(operations, threads);
    const NAME(linear) l = {
        .args = args,
        .kernel = kernel,
        .weight = {.K = I, .N = O, .panels = memory + at_weight},
        .bias = (real *)(memory + at_bias),
        .split_rows = N >= threads * kernel->tile_rows,
    };
    fastrnn_team team;
    fastrnn_team_open(&team, threads, NS_OF_AN_OPERATION * operations, interruption);
    if (fastrnn_team_phase(&team, threads, FASTRNN_PACKING * (double)I * (double)O, NAME(pack_linear), &l, 0))
        fastrnn_team_phase(&team, threads, operations, NAME(multiply_linear), &l, 0);
    const int finished = fastrnn_team_close(&team);
    fastrnn_give_back(workspace, memory);
    return finished ? FASTRNN_OK : FASTRNN_INTERRUPTED;
}

/* Backward */

typedef struct {
    const fastrnn_linear_back_args *args;
    const NAME(kernels) * kernel;
    fastrnn_matrix weight, x; /* (O, I), and up to BLOCK_ROWS rows (.., I), the last row first */
    real *scratch;            /* scratch_size numbers for each member */
    ptrdiff_t scratch_size;
    NAME(sums) sums; /* weight_ih and bias_ih alone */
    fastrnn_block_part part;
    ptrdiff_t end; /* the rows of the part end here */
} NAME(linear_back);

static void NAME(pack_weight)(const void *context, const fastrnn_member *me)
{
    const NAME(linear_back) *l = context;
    const ptrdiff_t I = l->args->I;
    const fastrnn_range panels = fastrnn_share(fastrnn_panels(I, l->kernel->width), me);
    l->kernel->pack_rows(l->args->O, panels.from, panels.to, l->args->weight, I, 0, &l->weight);
}

/* d_x = d_y weight, for the member's share of the rows. */
static void NAME(input_of_linear)(const void *context, const fastrnn_member *me)
{
    const NAME(linear_back) *l = context;
    const fastrnn_linear_back_args *args = l->args;
    const fastrnn_range share = fastrnn_share(args->N, me);
    const double operations = 2.0 * (double)args->I * (double)args->O;
    for (fastrnn_range piece = fastrnn_no_piece(share); fastrnn_next_piece(me, share, operations, &piece);)
        l->kernel->multiply(piece.to - piece.from, 0, fastrnn_panels(args->I, l->kernel->width),
                            (const real *)args->d_y + piece.from * args->O, args->O, &l->weight, NULL,
                            (real *)args->d_x + piece.from * args->I, args->I);
}

static void NAME(pack_x)(const void *context, const fastrnn_member *me)
{
    const NAME(linear_back) *l = context;
    const ptrdiff_t I = l->args->I;
    const fastrnn_range panels = fastrnn_share(fastrnn_panels(I, l->kernel->width), me);
    l->kernel->pack_rows(l->part.rows, panels.from, panels.to, (const real *)l->args->x + (l->end - 1) * I, -I, 0,
                         &l->x);
}

/* Adds the part's rows to the gradients of the member's share of the outputs, in whole tiles, or of the columns of the
 * weight. */
static void NAME(sums_of_linear)(const void *context, const fastrnn_member *me)
{
    const NAME(linear_back) *l = context;
    const NAME(kernels) *kernel = l->kernel;
    const ptrdiff_t I = l->args->I, O = l->args->O, tile = kernel->tile_rows, panels = fastrnn_panels(I, kernel->width);
    const fastrnn_range tiles = fastrnn_share(fastrnn_panels(O, tile), me);
    const fastrnn_range outputs = {tiles.from * tile, tiles.to * tile < O ? tiles.to * tile : O};
    const int by_columns = shares_columns(O, I);
    const fastrnn_range rows = by_columns ? (fastrnn_range){0, O} : outputs,
                        some = by_columns ? fastrnn_share(panels, me) : (fastrnn_range){0, panels};
    const real *d_y = (const real *)l->args->d_y + (l->end - 1) * O;
    NAME(sum_products)(&l->sums, kernel, me, l->part, rows, some, d_y, -O, &l->x,
                       l->scratch + me->index * l->scratch_size, NAME(sum_from)(l->sums.weight_ih, rows.from * I));
    if (l->args->d_bias && outputs.from < outputs.to) {
        const NAME(sum) rest = NAME(sum_from)(l->sums.bias_ih, outputs.from);
        sum_start start;
        real *sum = NAME(open_sum)(&l->sums, rest, l->part, &start);
        kernel->sum_rows(outputs.to - outputs.from, l->part.rows, d_y + outputs.from, -O, start, sum);
        NAME(close_sum)(&l->sums, kernel, rest, l->part, outputs.to - outputs.from);
    }
}

static fastrnn_status NAME(run_linear_back)(const NAME(kernels) * kernel, const fastrnn_linear_back_args *args,
                                            fastrnn_workspace *workspace, const fastrnn_interruption *interruption,
                                            int threads)
{
    const ptrdiff_t N = args->N, I = args->I, O = args->O, panels = fastrnn_panels(I, kernel->width);
    if (N == 0 || O == 0) {
        copy_bytes(args->d_x, NULL, args->d_x ? N : 0, I, sizeof(real));
        copy_bytes(args->d_weight, NULL, O, I, sizeof(real));
        copy_bytes(args->d_bias, NULL, args->d_bias ? O : 0, 1, sizeof(real));
        return FASTRNN_OK;
    }
    const double operations = 2.0 * (double)N * (double)I * (double)O;
    threads = threads_for(operations, threads);
    NAME(linear_back) l = {.args = args, .kernel = kernel, .scratch_size = kernel->outer_rows * (ptrdiff_t)BLOCK_ROWS};
    l.sums = (NAME(sums)){.levels = fastrnn_sum_levels(N), .all = N, .size = O * (I + 1)};
    l.sums.weight_ih = (NAME(sum)){args->d_weight, 0};
    l.sums.bias_ih = (NAME(sum)){args->d_bias, O * I};
    fastrnn_layout layout = {0};
    const size_t at_weight = fastrnn_reserve(&layout, sizeof(real), panels, kernel->width, args->d_x ? O : 0);
    const size_t at_x = fastrnn_reserve(&layout, sizeof(real), panels, kernel->width, N < BLOCK_ROWS ? N : BLOCK_ROWS);
    const size_t at_scratch = fastrnn_reserve(&layout, sizeof(real), threads, l.scratch_size, 1);
    const size_t at_groups =
        fastrnn_reserve(&layout, sizeof(real), l.sums.levels > 1 ? l.sums.levels - 1 : 0, l.sums.size, 1);
    char *memory = fastrnn_borrow(workspace, &layout);
    if (!memory) return FASTRNN_OUT_OF_MEMORY;
    l.weight = (fastrnn_matrix){.K = O, .N = I, .panels = memory + at_weight};
    l.scratch = (real *)(memory + at_scratch);
    l.sums.groups = (real *)(memory + at_groups); /* blocks are never in parts, so they need no memory of their own */

    fastrnn_team team;
    fastrnn_team_open(&team, threads, 2 * NS_OF_AN_OPERATION * operations, interruption);
    int go = 1;
    if (args->d_x)
        go = fastrnn_team_phase(&team, threads, FASTRNN_PACKING * (double)I * (double)O, NAME(pack_weight), &l, 0) &&
             fastrnn_team_phase(&team, threads, operations, NAME(input_of_linear), &l, 0);
    for (l.end = N; go && l.end > 0; l.end -= l.part.rows) {
        l.part = fastrnn_next_part(N - l.end, l.end, N);
        l.x = (fastrnn_matrix){.K = l.part.rows, .N = I, .panels = memory + at_x};
        go = fastrnn_team_phase(&team, threads, 4.0 * (double)l.part.rows * (double)I, NAME(pack_x), &l, 0) &&
             fastrnn_team_phase(&team, threads, operations / N * l.part.rows, NAME(sums_of_linear), &l, 0);
    }
    const int finished = fastrnn_team_close(&team);
    fastrnn_give_back(workspace, memory);
    return finished ? FASTRNN_OK : FASTRNN_INTERRUPTED;
}
