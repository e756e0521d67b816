/* Packing, shared by a team. */

/* Packs panels of the matrix (K, gates * H) from rows `first` and on of a weight (.., K), with their scales. */
static void NAME(pack_transposed)(const NAME(kernels) * kernel, const fastrnn_member *me, int gates, int block,
                                  ptrdiff_t H, fastrnn_range panels, const void *weight, const float *scale,
                                  ptrdiff_t first, const fastrnn_matrix *to)
{
    const double operations = FASTRNN_PACKING * (double)kernel->width * (double)to->K;
    const ptrdiff_t from = first * (to->heads.head ? to->heads.head : to->K);
    const size_t element = to->narrow ? fastrnn_narrow_layouts[to->narrow->format].element : sizeof(real);
    const void *rows = (const char *)weight + from * (ptrdiff_t)element;
    for (fastrnn_range piece = fastrnn_no_piece(panels); fastrnn_next_piece(me, panels, operations, &piece);)
        if (to->narrow)
            fastrnn_pack_narrow(gates, block, H, piece.from, piece.to, kernel->width, rows,
                                scale ? scale + first : NULL, to);
        else
            kernel->pack_gates(gates, block, H, piece.from, piece.to, rows, to);
}

/* Packs panels of rows [from, to) of a weight (.., N) into the rows of the matrix from `first` on. */
static void NAME(pack_straight)(const NAME(kernels) * kernel, const fastrnn_member *me, fastrnn_range panels,
                                const real *weight, ptrdiff_t from, ptrdiff_t to, ptrdiff_t first,
                                const fastrnn_matrix *matrix)
{
    const ptrdiff_t N = matrix->N, H = matrix->heads.units;
    const double operations = FASTRNN_PACKING * (double)kernel->width * (double)(to - from);
    for (fastrnn_range piece = fastrnn_no_piece(panels); fastrnn_next_piece(me, panels, operations, &piece);)
        if (matrix->heads.head)
            kernel->pack_heads(from / H, to / H, piece.from, piece.to, weight, first / H, matrix);
        else
            kernel->pack_rows(to - from, piece.from, piece.to, weight + from * N, N, first, matrix);
}

/* Packs a part of the cell for forward. Each member packs its share of the panels. With a single item, and if
 * hidden units are shared, a member packs nearly the same panels that it will multiply, so they are in its caches. */
static void NAME(pack_part_forward)(const packing *p, const fastrnn_member *me, const NAME(cell) * cell, int part)
{
    const fastrnn_weights *w = p->weights;
    const fastrnn_packed *to = p->to;
    const NAME(kernels) *kernel = to->isa->SUFFIX;
    const int gates = cell->parts[part], block = cell->block;
    const ptrdiff_t H = to->H, first = part ? cell->parts[0] * H : 0;
    const fastrnn_range panels = fastrnn_share_of_item(fastrnn_panels(gates * H, kernel->width), p->items, me);
    const real *bias_ih = w->bias_ih, *bias_hh = w->bias_hh;
    if (bias_ih) bias_ih += first;
    if (bias_hh) bias_hh += first;
    NAME(pack_transposed)(kernel, me, gates, block, H, panels, w->weight_ih, w->scale_ih, first, &to->weight_ih[part]);
    NAME(pack_transposed)(kernel, me, gates, block, H, panels, w->weight_hh, w->scale_hh, first, &to->weight_hh[part]);
    kernel->pack_bias(gates, block, H, panels.from, panels.to, bias_ih, cell->recurrent ? NULL : bias_hh,
                      to->bias_ih[part]);
    if (cell->recurrent) kernel->pack_bias(gates, block, H, panels.from, panels.to, NULL, bias_hh, to->bias_hh[part]);
}

static void NAME(pack_share)(const void *context, const fastrnn_member *me)
{
    const packing *p = context;
    const fastrnn_weights *w = p->weights;
    const fastrnn_packed *to = p->to;
    const NAME(kernels) *kernel = to->isa->SUFFIX;
    const NAME(cell) *cell = kernel->cells[to->cell];
    const ptrdiff_t I = to->I, H = to->H, P = to->P, width = kernel->width;
    const ptrdiff_t last = (cell->d_gates - cell->gates) * H; /* the last rows of weight_hh, which are packed first */
    const fastrnn_range of_I = fastrnn_share_of_item(fastrnn_panels(I, width), p->items, me),
                        of_P = fastrnn_share_of_item(fastrnn_panels(P, width), p->items, me),
                        of_H = fastrnn_share_of_item(fastrnn_panels(H, width), p->items, me);
    if (to->pass == FASTRNN_FORWARD) {
        for (int part = 0; part < to->parts; part++) NAME(pack_part_forward)(p, me, cell, part);
        if (w->weight_hr)
            NAME(pack_transposed)(kernel, me, 1, cell->block, P, of_P, w->weight_hr, w->scale_hr, 0, &to->weight_hr);
    } else {
        for (int part = 0; part < to->parts; part++) {
            const ptrdiff_t first = part ? cell->parts[0] * H : 0, end = first + cell->parts[part] * H;
            NAME(pack_straight)(kernel, me, of_P, w->weight_hh, end - last, end, 0, &to->weight_hh[part]);
            NAME(pack_straight)(kernel, me, of_P, w->weight_hh, first, end - last, last, &to->weight_hh[part]);
        }
        if (w->weight_ih) NAME(pack_straight)(kernel, me, of_I, w->weight_ih, 0, cell->gates * H, 0, &to->weight_ih[0]);
        if (w->weight_hr) NAME(pack_straight)(kernel, me, of_H, w->weight_hr, 0, P, 0, &to->weight_hr);
    }
    if (w->peephole && me->index == 0 && me->item == 0)
        memcpy(to->peephole, w->peephole, (size_t)cell->peepholes * (size_t)H * sizeof(real));
}
