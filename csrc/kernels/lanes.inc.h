/* Vectors of arrays whose length is no multiple of VL: the last one has fewer lanes. */

/* The numbers of the vector at k, of n. */
INLINE int NAME(lanes_at)(ptrdiff_t n, ptrdiff_t k)
{
    if (n - k < VL) return (int)(n - k);
    return VL;
}

INLINE vec NAME(load_lanes)(const real *p, int lanes) { return lanes == VL ? v_load(p) : v_load_n(p, lanes); }
INLINE void NAME(store_lanes)(real *p, vec a, int lanes)
{
    if (lanes == VL)
        v_store(p, a);
    else
        v_store_n(p, a, lanes);
}
