/* The rows of a call: of each step, and of ranges of sequences. */
#ifndef FASTRNN_STEPS_H
#define FASTRNN_STEPS_H

#include <string.h>

#include "layer/packed.h"
#include "runtime/team.h"

/* The layout of a call: T steps of at most B sequences; offsets (T + 1) and resets (N) as in fastrnn.h. */
typedef struct {
    ptrdiff_t T, B;
    const ptrdiff_t *offsets;
    const uint8_t *resets;
} steps;

/* The first row of step t, and the number of rows of step t: 0 past the last step. */
static inline ptrdiff_t first_row(const steps *s, ptrdiff_t t) { return s->offsets ? s->offsets[t] : t * s->B; }
static inline ptrdiff_t rows_of_step(const steps *s, ptrdiff_t t)
{
    return t >= s->T ? 0 : s->offsets ? s->offsets[t + 1] - s->offsets[t] : s->B;
}

/* The flags of the rows of step t, or NULL if no sequence is reset before it. */
static inline const uint8_t *resets_of_step(const steps *s, ptrdiff_t t)
{
    const uint8_t *resets = s->resets && t < s->T ? s->resets + first_row(s, t) : NULL;
    return resets && memchr(resets, 1, (size_t)rows_of_step(s, t)) ? resets : NULL;
}

/* The most rows of a chunk of steps with rows of `columns` elements, so that it takes at most `bytes` bytes; but at
 * least the rows of one step. */
static inline ptrdiff_t chunk_rows(const steps *s, double bytes, ptrdiff_t columns, size_t element)
{
    const ptrdiff_t all = first_row(s, s->T), least = rows_of_step(s, 0);
    double rows = bytes / ((double)columns * (double)element);
    if (rows > (double)all) rows = (double)all;
    return rows <= (double)least ? least : (ptrdiff_t)rows;
}
/* The end of a chunk of at most `rows` rows that begins with step t0, and the beginning of one that ends with step t1:
 * at least one step. */
static inline ptrdiff_t end_of_chunk(const steps *s, ptrdiff_t t0, ptrdiff_t rows)
{
    const ptrdiff_t whole = s->B > rows ? 1 : rows / s->B; /* steps of B rows */
    ptrdiff_t t1 = t0 + 1;
    if (!s->offsets) return s->T - t0 < whole ? s->T : t0 + whole;
    while (t1 < s->T && s->offsets[t1 + 1] - s->offsets[t0] <= rows) t1++;
    return t1;
}
static inline ptrdiff_t start_of_chunk(const steps *s, ptrdiff_t t1, ptrdiff_t rows)
{
    const ptrdiff_t whole = s->B > rows ? 1 : rows / s->B;
    ptrdiff_t t0 = t1 - 1;
    if (!s->offsets) return t1 < whole ? 0 : t1 - whole;
    while (t0 > 0 && s->offsets[t1] - s->offsets[t0 - 1] <= rows) t0--;
    return t0;
}

/* The first step of part k of `parts` of the rows. */
static inline ptrdiff_t first_step(const steps *s, int k, int parts)
{
    if (!s->offsets || k == parts) return fastrnn_part(s->T, k, parts).from;
    const ptrdiff_t row = fastrnn_part(first_row(s, s->T), k, parts).from;
    ptrdiff_t t = 0;
    while (first_row(s, t) < row) t++;
    return t;
}

/* The part of a range before `end`, and the part from `start` on; either may be empty. */
static inline fastrnn_range first_of(fastrnn_range range, ptrdiff_t end)
{
    if (range.to > end) range.to = end;
    if (range.from > range.to) range.from = range.to;
    return range;
}
static inline fastrnn_range from_row(fastrnn_range range, ptrdiff_t start)
{
    if (range.from < start) range.from = start;
    if (range.to < range.from) range.to = range.from;
    return range;
}

/* The number of rows of the first n sequences in steps [from, to). */
static inline ptrdiff_t rows_of_first(const steps *s, ptrdiff_t from, ptrdiff_t to, ptrdiff_t n)
{
    ptrdiff_t rows = 0;
    for (ptrdiff_t t = from; t < to; t++) rows += rows_of_step(s, t) < n ? rows_of_step(s, t) : n;
    return rows;
}

/* The number of sequences that have nearly so many rows of these steps. */
static inline ptrdiff_t sequences_of_rows(const steps *s, ptrdiff_t from, ptrdiff_t to, ptrdiff_t before)
{
    ptrdiff_t low = 0, high = s->B; /* bounds of the least number of sequences with so many rows */
    while (low < high) {
        const ptrdiff_t middle = low + (high - low) / 2;
        if (rows_of_first(s, from, to, middle) < before)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0) return 0;
    const ptrdiff_t fewer = rows_of_first(s, from, to, low - 1), more = rows_of_first(s, from, to, low);
    return before - fewer < more - before ? low - 1 : low;
}

/* The member's sequences in steps [from, to), such that it has nearly its share of the rows. Of a ragged batch that
 * depends on the steps. */
static inline fastrnn_range share_rows(const steps *s, ptrdiff_t from, ptrdiff_t to, const fastrnn_member *me)
{
    if (!s->offsets) return fastrnn_share(s->B, me);
    const fastrnn_range rows = fastrnn_share(first_row(s, to) - first_row(s, from), me);
    return (fastrnn_range){sequences_of_rows(s, from, to, rows.from),
                           me->to == FASTRNN_WHOLE ? s->B : sequences_of_rows(s, from, to, rows.to)};
}

/* A step reads its share of the recurrent weights. If these exceed a cache and every step read them in the same order,
 * the cache would hold those read last and drop each weight before its next use. So they are read in parts, and every
 * other step takes the parts from the end, which the step before has read last.
 *
 * take_part: the next part of `left`, blocks of `columns` columns of a matrix of K rows: about as many weights as fill
 * a small part of a cache, but at least four panels of `width` columns, which a product of a single row needs. */
static inline fastrnn_range take_part(fastrnn_range *left, ptrdiff_t columns, ptrdiff_t K, int width, int from_the_end)
{
    enum { WEIGHTS = 64 * 1024 };
    const fastrnn_range all = *left;
    const ptrdiff_t blocks = all.to - all.from;
    if (blocks * columns * K > WEIGHTS) {
        const ptrdiff_t fewest = fastrnn_panels(4 * (ptrdiff_t)width, columns), fit = WEIGHTS / (columns * K);
        const ptrdiff_t size = fit > fewest ? fit : fewest;
        if (size < blocks && from_the_end) return (fastrnn_range){left->to -= size, all.to};
        if (size < blocks) return (fastrnn_range){all.from, left->from += size};
    }
    left->from = left->to;
    return all;
}

/* A leading dimension for rows of n numbers: each row starts on a cache line, and they do not all fall into the same
 * few sets of a cache. */
static inline ptrdiff_t padded_row(ptrdiff_t n, size_t element)
{
    const ptrdiff_t line = 64 / (ptrdiff_t)element;
    const ptrdiff_t row = fastrnn_panels(n, line) * line;
    return row % (16 * line) == 0 ? row + line : row;
}

/* Whether contiguous rows of n numbers all start in the same set of the first-level cache. A tile of a product reads
 * more rows than a set holds. */
static inline int rows_collide(ptrdiff_t n, size_t element) { return n > 0 && n * (ptrdiff_t)element % 4096 == 0; }

/* to (n, m) = from (n, m), or zeros if from is NULL. */
static inline void copy_bytes(void *to, const void *from, ptrdiff_t n, ptrdiff_t m, size_t element)
{
    const size_t bytes = (size_t)n * (size_t)m * element;
    if (bytes == 0 || from == to) return;
    if (from)
        memcpy(to, from, bytes);
    else
        memset(to, 0, bytes);
}

/* Prefetches rows of an operand (n, m) with leading dimension `row`, parts of which other cores have written, so that
 * their cache lines arrive together. A product alone would wait for one after the other. */
static inline void fetch_rows(const void *operand, ptrdiff_t n, ptrdiff_t m, ptrdiff_t row, size_t element)
{
#if defined(__GNUC__)
    for (ptrdiff_t r = 0; r < n; r++)
        for (size_t at = 0; at < (size_t)m * element; at += 64)
            __builtin_prefetch((const char *)operand + (size_t)(r * row) * element + at);
#else
    (void)operand, (void)n, (void)m, (void)row, (void)element;
#endif
}

/* Sets columns of the flagged rows of an array with leading dimension `row` to zero. resets: the flags of its rows, or
 * NULL. */
static inline void clear_rows(void *array, ptrdiff_t row, const uint8_t *resets, fastrnn_range rows,
                              fastrnn_range columns, size_t element)
{
    for (ptrdiff_t r = rows.from; resets && r < rows.to; r++)
        if (resets[r] && columns.from < columns.to)
            memset((char *)array + (size_t)(r * row + columns.from) * element, 0,
                   (size_t)(columns.to - columns.from) * element);
}

/* Copies columns of rows of `from` (B, n) to `to` (B, n), with zeros for the flagged rows. */
static inline void copy_rows(void *to, const void *from, ptrdiff_t n, const uint8_t *resets, fastrnn_range rows,
                             fastrnn_range columns, size_t element)
{
    for (ptrdiff_t r = rows.from; r < rows.to && columns.from < columns.to; r++) {
        const size_t at = (size_t)(r * n + columns.from) * element;
        memcpy((char *)to + at, (const char *)from + at, (size_t)(columns.to - columns.from) * element);
    }
    clear_rows(to, n, resets, rows, columns, element);
}

#endif
