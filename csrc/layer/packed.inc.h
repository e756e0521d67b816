/* pack_gates and pack_rows for some panels, in pieces: a number that is packed counts as so many operations. */
enum { NAME(PACKING) = 20 };
static void NAME(pack_transposed)(const NAME(kernels) * kernel, const fastrnn_member *me, int gates, int block,
                                  ptrdiff_t H, ptrdiff_t K, fastrnn_range panels, const real *weight, real *packed)
{
    const double operations = (double)NAME(PACKING) * kernel->width * (double)K;
    for (fastrnn_range piece = fastrnn_no_piece(panels); fastrnn_next_piece(me, panels, operations, &piece);)
        kernel->pack_gates(gates, block, H, K, piece.from, piece.to, weight, packed);
}
static void NAME(pack_straight)(const NAME(kernels) * kernel, const fastrnn_member *me, ptrdiff_t K, ptrdiff_t N,
                                fastrnn_range panels, const real *weight, ptrdiff_t first, ptrdiff_t all, real *packed)
{
    const double operations = (double)NAME(PACKING) * kernel->width * (double)K;
    for (fastrnn_range piece = fastrnn_no_piece(panels); fastrnn_next_piece(me, panels, operations, &piece);)
        kernel->pack_rows(K, N, piece.from, piece.to, weight, N, first, all, packed);
}

/* Each member packs its share of the panels: for forward, but for some at the ends and where there is but one part,
 * those that it computes with when hidden units are shared, so that they are in its caches. */
static void NAME(pack_share)(const void *context, const fastrnn_member *me)
{
    const packing *p = context;
    const fastrnn_weights *w = p->weights;
    const fastrnn_packed *to = p->to;
    const NAME(kernels) *kernel = to->isa->SUFFIX;
    const NAME(cell) *cell = kernel->cells[to->cell];
    const int gates = cell->gates, block = cell->block, width = kernel->width;
    const ptrdiff_t I = to->I, H = to->H, P = to->P, G = gates * H;
    const fastrnn_range of_G = fastrnn_share_of_item(fastrnn_panels(G, width), p->parts, me),
                        of_H = fastrnn_share_of_item(fastrnn_panels(H, width), p->parts, me);
    const fastrnn_range of_P = fastrnn_share_of_item(fastrnn_panels(P, width), p->parts, me),
                        of_I = fastrnn_share_of_item(fastrnn_panels(I, width), p->parts, me);
    if (to->pass == FASTRNN_FORWARD) {
        NAME(pack_transposed)(kernel, me, gates, block, H, I, of_G, w->weight_ih, to->panels_ih);
        NAME(pack_transposed)(kernel, me, gates, block, H, P, of_G, w->weight_hh, to->panels_hh);
        kernel->pack_bias(gates, block, H, of_G.from, of_G.to, w->bias_ih, cell->recurrent ? NULL : w->bias_hh,
                          to->bias_ih);
        if (cell->recurrent) kernel->pack_bias(gates, block, H, of_G.from, of_G.to, NULL, w->bias_hh, to->bias_hh);
        if (w->weight_hr) NAME(pack_transposed)(kernel, me, 1, block, P, H, of_P, w->weight_hr, to->panels_hr);
    } else {
        const ptrdiff_t last = (cell->d_gates - gates) * H; /* rows that come first */
        const real *weight_hh = w->weight_hh;
        NAME(pack_straight)(kernel, me, last, P, of_P, weight_hh + (G - last) * P, 0, G, to->panels_hh);
        NAME(pack_straight)(kernel, me, G - last, P, of_P, weight_hh, last, G, to->panels_hh);
        NAME(pack_straight)(kernel, me, G, I, of_I, w->weight_ih, 0, G, to->panels_ih);
        if (w->weight_hr) NAME(pack_straight)(kernel, me, P, H, of_H, w->weight_hr, 0, P, to->panels_hr);
    }
    if (w->peephole && me->index == 0 && me->item == 0) memcpy(to->peephole, w->peephole, 3 * (size_t)H * sizeof(real));
}
