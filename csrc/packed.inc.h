/* Each member packs its share of the panels: for forward, but for some at the ends, those that it computes with when
 * hidden units are shared, so that they are in its caches. */
static void NAME(pack_member)(void *context, const fastrnn_member *me)
{
    const fastrnn_lstm_weights *w = ((const packing *)context)->weights;
    const fastrnn_packed *to = ((const packing *)context)->to;
    const NAME(kernels) *kernel = to->isa->SUFFIX;
    const ptrdiff_t I = to->I, H = to->H;
    if (to->pass == FASTRNN_FORWARD) {
        const fastrnn_range part = fastrnn_share(fastrnn_panels(4 * H, kernel->width), me);
        kernel->pack_gates(H, I, part.from, part.to, w->weight_ih, to->panels_ih);
        kernel->pack_gates(H, H, part.from, part.to, w->weight_hh, to->panels_hh);
        kernel->pack_bias(H, part.from, part.to, w->bias_ih, w->bias_hh, to->bias);
    } else {
        fastrnn_range part = fastrnn_share(fastrnn_panels(H, kernel->width), me);
        kernel->pack_rows(4 * H, H, part.from, part.to, w->weight_hh, H, to->panels_hh);
        part = fastrnn_share(fastrnn_panels(I, kernel->width), me);
        kernel->pack_rows(4 * H, I, part.from, part.to, w->weight_ih, I, to->panels_ih);
    }
}
