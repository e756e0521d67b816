/* The LSTM over time, in one precision: what each member of the team does. */

struct NAME(forward) {
    const NAME(kernels) * kernel;
    ptrdiff_t T, B, I, H;
    const real *panels_ih, *panels_hh, *bias, *x, *h_0, *c_0;
    real *output, *h_n, *c_n, *gates, *c;
    ptrdiff_t chunk; /* steps whose input is projected together; 1 with split rows */
    /* The chunk's x (chunk * B, x_row), where its own rows collide, else NULL; h_{t-1} and h_t in turn (2, B, h_row). */
    ptrdiff_t x_row, h_row;
    real *x_rows, *hidden;
    int split_rows;
};

static void NAME(forward_member)(void *context, const fastrnn_member *me)
{
    const struct NAME(forward) *f = context;
    const NAME(kernels) *kernel = f->kernel;
    const ptrdiff_t T = f->T, B = f->B, I = f->I, H = f->H, G = 4 * H;
    const int keep = f->c != NULL;
    fastrnn_range rows = {0, B}, blocks = {0, fastrnn_panels(H, kernel->block)};
    if (f->split_rows)
        rows = fastrnn_share(B, me);
    else
        blocks = fastrnn_share(blocks.to, me);

    for (ptrdiff_t t0 = 0, t1; t0 < T; t0 = t1) {
        t1 = T - t0 < f->chunk ? T : t0 + f->chunk;
        real *gates = f->gates + (keep ? t0 * B * G : 0);
        const fastrnn_range flat = f->split_rows ? rows : (fastrnn_range){0, (t1 - t0) * B};
        const real *x = f->x + t0 * B * I;
        if (f->x_rows) {
            const fastrnn_range some = fastrnn_share((t1 - t0) * B, me); /* the same as rows if these are split */
            for (ptrdiff_t r = some.from; r < some.to; r++)
                memcpy(f->x_rows + r * f->x_row, x + r * I, (size_t)I * sizeof(real));
            x = f->x_rows;
            if (!f->split_rows) fastrnn_team_barrier(me);
        }
        kernel->project(flat.to - flat.from, I, H, blocks.from, blocks.to, x + flat.from * f->x_row, f->x_row,
                        f->panels_ih, f->bias, gates + flat.from * G);
        for (ptrdiff_t t = t0; t < t1; t++) {
            NAME(lstm_step) step = {
                .H = H,
                .panels = f->panels_hh,
                .h_prev = t ? f->hidden + t % 2 * B * f->h_row : f->h_0,
                .h_prev_row = t ? f->h_row : H,
                .c_prev = !t ? f->c_0 : keep ? f->c + (t - 1) * B * H : f->c_n,
                .gates = gates + (t - t0) * B * G,
                .c = keep ? f->c + t * B * H : f->c_n,
                .h = f->output + t * B * H,
                .h_next = f->hidden + (t + 1) % 2 * B * f->h_row,
                .h_next_row = f->h_row,
                .keep = keep,
            };
            kernel->lstm_step(&step, rows.from, rows.to, blocks.from, blocks.to);
            if (!f->split_rows) fastrnn_team_barrier(me); /* the next step reads all of h_t */
        }
    }
    if (me->index == 0 || f->split_rows) { /* without split rows the last barrier has shown all of h_t and c_t */
        const size_t bytes = (size_t)((rows.to - rows.from) * H) * sizeof(real);
        memcpy(f->h_n + rows.from * H, f->output + ((T - 1) * B + rows.from) * H, bytes);
        if (keep) memcpy(f->c_n + rows.from * H, f->c + ((T - 1) * B + rows.from) * H, bytes);
    }
}

static fastrnn_status NAME(lstm_forward)(const fastrnn_lstm_forward_args *args, fastrnn_workspace *workspace,
                                         int threads)
{
    const fastrnn_packed *packed = args->packed;
    const NAME(kernels) *kernel = packed->isa->SUFFIX;
    const ptrdiff_t T = args->T, B = args->B, I = packed->I, H = packed->H;
    const int keep = args->c != NULL, copy_x = rows_collide(I, sizeof(real));
    const ptrdiff_t x_row = copy_x ? padded_row(I, sizeof(real)) : I;
    const plan p = plan_steps(T, B, I, H, sizeof(real), kernel->width, kernel->block, threads);

    struct NAME(forward) f = {
        .kernel = kernel, .T = T, .B = B, .I = I, .H = H, .panels_ih = packed->panels_ih,
        .panels_hh = packed->panels_hh, .bias = packed->bias, .x = args->x, .h_0 = args->h_0, .c_0 = args->c_0,
        .output = args->output, .h_n = args->h_n, .c_n = args->c_n, .gates = args->gates, .c = args->c,
        .chunk = p.split_rows ? 1
                 : chunk_steps(T, projection_bytes(I, H, sizeof(real)), B, 4 * H + (copy_x ? x_row : 0), sizeof(real)),
        .x_row = x_row, .h_row = padded_row(H, sizeof(real)),
        .split_rows = p.split_rows,
    };

    fastrnn_layout layout = {0};
    size_t gates = fastrnn_reserve(&layout, sizeof(real), keep ? 0 : f.chunk, B, 4 * H);
    size_t x_rows = fastrnn_reserve(&layout, sizeof(real), copy_x ? f.chunk : 0, B, f.x_row);
    size_t hidden = fastrnn_reserve(&layout, sizeof(real), 2, B, f.h_row);
    char *memory = fastrnn_borrow(workspace, &layout);
    if (!memory) return FASTRNN_OUT_OF_MEMORY;
    if (!keep) f.gates = (real *)(memory + gates);
    if (copy_x) f.x_rows = (real *)(memory + x_rows);
    f.hidden = (real *)(memory + hidden);
    if (T > 0 && B > 0)
        fastrnn_team_run(p.threads, NAME(forward_member), &f);
    else {
        copy_bytes(f.h_n, f.h_0, B, H, sizeof(real));
        copy_bytes(f.c_n, f.c_0, B, H, sizeof(real));
    }
    fastrnn_give_back(workspace, memory);
    return FASTRNN_OK;
}

struct NAME(backward) {
    const NAME(kernels) * kernel;
    ptrdiff_t T, B, I, H;
    const real *panels_ih, *panels_hh, *x, *h_0, *c_0, *gates, *c, *d_output;
    real *d_x, *d_h_0, *d_c_0, *d_weight_ih, *d_weight_hh, *d_bias;
    /* Steps are taken in chunks, the last chunk first. d_gates (chunk + 1, B, d_gates_row): the gradients of the
     * chunk's steps, then those of the step after it. h_prev (chunk, B, H): h_{t-1} of each step, made again from o
     * and c. */
    ptrdiff_t chunk, d_gates_row;
    real *d_gates, *h_prev;
    real *panels_x, *panels_h; /* packed rows of x and h_prev: [panel][up to kernel->depth][width] */
    real *scratch;             /* per member, for outer_product */
    ptrdiff_t scratch_size;
    int split_rows;
};

/* d_weight += sum over the chunk's rows, from the last to the first, of d_gates[r]^T x[r] (and h_prev[r]). With rows in
 * descending order, as time runs here, cutting time into chunks leaves every sum in one order. */
static void NAME(weight_gradients)(const struct NAME(backward) * b, const fastrnn_member *me, ptrdiff_t t0,
                                   ptrdiff_t t1)
{
    const NAME(kernels) *kernel = b->kernel;
    const ptrdiff_t B = b->B, I = b->I, H = b->H, G = 4 * H, row = b->d_gates_row;
    const fastrnn_range x_panels = fastrnn_share(fastrnn_panels(I, kernel->width), me);
    const fastrnn_range h_panels = fastrnn_share(fastrnn_panels(H, kernel->width), me);
    fastrnn_range gates = fastrnn_share(fastrnn_panels(G, kernel->tile_rows), me);
    gates.from *= kernel->tile_rows;
    gates.to = gates.to * kernel->tile_rows < G ? gates.to * kernel->tile_rows : G;

    for (ptrdiff_t end = (t1 - t0) * B, depth; end > 0; end -= depth) {
        depth = end < kernel->depth ? end : kernel->depth;
        const int fresh = t1 == b->T && end == (t1 - t0) * B;
        const real *d_gates = b->d_gates + (end - 1) * row;
        real *scratch = b->scratch + me->index * b->scratch_size;
        kernel->pack_rows(depth, I, x_panels.from, x_panels.to, b->x + (t0 * B + end - 1) * I, -I, b->panels_x);
        kernel->pack_rows(depth, H, h_panels.from, h_panels.to, b->h_prev + (end - 1) * H, -H, b->panels_h);
        fastrnn_team_barrier(me);
        kernel->outer_product(gates.from, gates.to, I, depth, d_gates, -row, b->panels_x, fresh, b->d_weight_ih,
                              scratch);
        kernel->outer_product(gates.from, gates.to, H, depth, d_gates, -row, b->panels_h, fresh, b->d_weight_hh,
                              scratch);
        if (b->d_bias) kernel->sum_rows(gates.from, gates.to, depth, d_gates, -row, fresh, b->d_bias);
        fastrnn_team_barrier(me);
    }
}

/* d_x, `rows` rows of it from row `first` on, from d_gates of these rows. */
static void NAME(input_gradient)(const struct NAME(backward) * b, ptrdiff_t first, ptrdiff_t rows, const real *d_gates)
{
    b->kernel->multiply(rows, b->I, 4 * b->H, 0, fastrnn_panels(b->I, b->kernel->width), d_gates, b->d_gates_row,
                        b->panels_ih, b->d_x + first * b->I, b->I);
}

static void NAME(backward_member)(void *context, const fastrnn_member *me)
{
    const struct NAME(backward) *b = context;
    const NAME(kernels) *kernel = b->kernel;
    const ptrdiff_t T = b->T, B = b->B, H = b->H, G = 4 * H, row = b->d_gates_row;
    const fastrnn_range some_rows = fastrnn_share(B, me), some_panels = fastrnn_share(fastrnn_panels(H, kernel->width), me);
    fastrnn_range rows = {0, B}, panels = {0, fastrnn_panels(H, kernel->width)};
    if (b->split_rows)
        rows = some_rows;
    else
        panels = some_panels;

    for (ptrdiff_t t1 = T, t0; t1 > 0; t1 = t0) {
        t0 = t1 < b->chunk ? 0 : t1 - b->chunk;
        if (t0 == 0)
            memcpy(b->h_prev + some_rows.from * H, b->h_0 + some_rows.from * H,
                   (size_t)((some_rows.to - some_rows.from) * H) * sizeof(real));
        else {
            const ptrdiff_t before = (t0 - 1) * B + some_rows.from;
            kernel->lstm_hidden(some_rows.to - some_rows.from, H, b->gates + before * G, b->c + before * H,
                                b->h_prev + some_rows.from * H);
        }
        for (ptrdiff_t t = t1 - 1; t >= t0; t--) {
            NAME(lstm_step_back) step = {
                .H = H,
                .d_gates_row = row,
                .panels = b->panels_hh,
                .gates = b->gates + t * B * G,
                .c = b->c + t * B * H,
                .c_prev = t ? b->c + (t - 1) * B * H : b->c_0,
                .d_output = b->d_output ? b->d_output + t * B * H : NULL,
                .d_gates_next = t == T - 1 ? NULL : b->d_gates + (t + 1 - t0) * B * row,
                .d_h = b->d_h_0,
                .d_c = b->d_c_0,
                .d_gates = b->d_gates + (t - t0) * B * row,
                .h = t == t1 - 1 ? NULL : b->h_prev + (t + 1 - t0) * B * H,
            };
            kernel->lstm_step_back(&step, rows.from, rows.to, panels.from, panels.to);
            if (!b->split_rows)
                fastrnn_team_barrier(me); /* the step before reads all of d_gates */
            else if (b->d_x)
                NAME(input_gradient)(b, t * B + rows.from, rows.to - rows.from, step.d_gates + rows.from * row);
        }
        if (b->split_rows)
            fastrnn_team_barrier(me);
        else if (b->d_x) {
            const fastrnn_range flat = fastrnn_share((t1 - t0) * B, me);
            NAME(input_gradient)(b, t0 * B + flat.from, flat.to - flat.from, b->d_gates + flat.from * row);
        }
        NAME(weight_gradients)(b, me, t0, t1);
        if (t0 > 0) { /* this chunk's first step is the one after the next chunk */
            const ptrdiff_t last = t0 < b->chunk ? t0 : b->chunk;
            memcpy(b->d_gates + (last * B + some_rows.from) * row, b->d_gates + some_rows.from * row,
                   (size_t)((some_rows.to - some_rows.from) * row) * sizeof(real));
            fastrnn_team_barrier(me);
        }
    }
    kernel->multiply(B, H, G, some_panels.from, some_panels.to, b->d_gates, row, b->panels_hh, b->d_h_0, H);
}

static fastrnn_status NAME(lstm_backward)(const fastrnn_lstm_backward_args *args, fastrnn_workspace *workspace,
                                          int threads)
{
    const fastrnn_packed *packed = args->packed;
    const NAME(kernels) *kernel = packed->isa->SUFFIX;
    const ptrdiff_t T = args->T, B = args->B, I = packed->I, H = packed->H, width = kernel->width;
    const ptrdiff_t row = padded_row(4 * H, sizeof(real));
    const plan p = plan_steps(T, B, I, H, sizeof(real), width, kernel->block, threads);

    struct NAME(backward) b = {
        .kernel = kernel, .T = T, .B = B, .I = I, .H = H, .panels_ih = packed->panels_ih,
        .panels_hh = packed->panels_hh, .x = args->x, .h_0 = args->h_0, .c_0 = args->c_0, .gates = args->gates,
        .c = args->c, .d_output = args->d_output, .d_x = args->d_x, .d_h_0 = args->d_h_0, .d_c_0 = args->d_c_0,
        .d_weight_ih = args->d_weight_ih, .d_weight_hh = args->d_weight_hh, .d_bias = args->d_bias,
        .chunk = chunk_steps(T, BACKWARD_CHUNK_BYTES, B, row + H, sizeof(real)), .d_gates_row = row,
        .scratch_size = kernel->outer_rows * kernel->depth, .split_rows = p.split_rows,
    };

    fastrnn_layout layout = {0};
    size_t d_gates = fastrnn_reserve(&layout, sizeof(real), b.chunk + 1, B, row);
    size_t h_prev = fastrnn_reserve(&layout, sizeof(real), b.chunk, B, H);
    size_t panels_x = fastrnn_reserve(&layout, sizeof(real), kernel->depth, fastrnn_panels(I, width), width);
    size_t panels_h = fastrnn_reserve(&layout, sizeof(real), kernel->depth, fastrnn_panels(H, width), width);
    size_t scratch = fastrnn_reserve(&layout, sizeof(real), b.scratch_size, p.threads, 1);
    char *memory = fastrnn_borrow(workspace, &layout);
    if (!memory) return FASTRNN_OUT_OF_MEMORY;
    b.d_gates = (real *)(memory + d_gates);
    b.h_prev = (real *)(memory + h_prev);
    b.panels_x = (real *)(memory + panels_x);
    b.panels_h = (real *)(memory + panels_h);
    b.scratch = (real *)(memory + scratch);

    copy_bytes(b.d_h_0, args->d_h_n, B, H, sizeof(real)); /* d_h and d_c run back through time in place */
    copy_bytes(b.d_c_0, args->d_c_n, B, H, sizeof(real));
    if (T > 0 && B > 0)
        fastrnn_team_run(p.threads, NAME(backward_member), &b);
    else {
        copy_bytes(b.d_weight_ih, NULL, 4 * H, I, sizeof(real));
        copy_bytes(b.d_weight_hh, NULL, 4 * H, H, sizeof(real));
        copy_bytes(b.d_bias, NULL, b.d_bias ? 4 * H : 0, 1, sizeof(real));
    }
    fastrnn_give_back(workspace, memory);
    return FASTRNN_OK;
}
