/* Each member packs its share of the panels: for forward, but for some at the ends, those that it computes with when
 * hidden units are shared, so that they are in its caches. */
static void NAME(pack_member)(void *context, const fastrnn_member *me)
{
    const fastrnn_weights *w = ((const packing *)context)->weights;
    const fastrnn_packed *to = ((const packing *)context)->to;
    const NAME(kernels) *kernel = to->isa->SUFFIX;
    const NAME(cell) *cell = kernel->cells[to->cell];
    const int gates = cell->gates, block = cell->block, width = kernel->width;
    const ptrdiff_t I = to->I, H = to->H, P = to->P, G = gates * H;
    const fastrnn_range of_G = fastrnn_share(fastrnn_panels(G, width), me),
                        of_H = fastrnn_share(fastrnn_panels(H, width), me);
    const fastrnn_range of_P = fastrnn_share(fastrnn_panels(P, width), me),
                        of_I = fastrnn_share(fastrnn_panels(I, width), me);
    if (to->pass == FASTRNN_FORWARD) {
        kernel->pack_gates(gates, block, H, I, of_G.from, of_G.to, w->weight_ih, to->panels_ih);
        kernel->pack_gates(gates, block, H, P, of_G.from, of_G.to, w->weight_hh, to->panels_hh);
        kernel->pack_bias(gates, block, H, of_G.from, of_G.to, w->bias_ih, cell->recurrent ? NULL : w->bias_hh,
                          to->bias_ih);
        if (cell->recurrent) kernel->pack_bias(gates, block, H, of_G.from, of_G.to, NULL, w->bias_hh, to->bias_hh);
        if (w->weight_hr) kernel->pack_gates(1, block, P, H, of_P.from, of_P.to, w->weight_hr, to->panels_hr);
    } else {
        const ptrdiff_t last = (cell->d_gates - gates) * H; /* rows that come first */
        const real *weight_hh = w->weight_hh;
        kernel->pack_rows(last, P, of_P.from, of_P.to, weight_hh + (G - last) * P, P, 0, G, to->panels_hh);
        kernel->pack_rows(G - last, P, of_P.from, of_P.to, weight_hh, P, last, G, to->panels_hh);
        kernel->pack_rows(G, I, of_I.from, of_I.to, w->weight_ih, I, 0, G, to->panels_ih);
        if (w->weight_hr) kernel->pack_rows(P, H, of_H.from, of_H.to, w->weight_hr, H, 0, P, to->panels_hr);
    }
    if (w->peephole && me->index == 0) memcpy(to->peephole, w->peephole, 3 * (size_t)H * sizeof(real));
}
