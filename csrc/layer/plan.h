/* Planning: the number of threads of a call, and the work they share. Pure functions of a shape and of a description of
 * the machine. No result depends on a plan. */
#ifndef FASTRNN_PLAN_H
#define FASTRNN_PLAN_H

#include <stddef.h>

enum { FASTRNN_MOST_ITEMS = 16 }; /* the most pieces of time into which calls side by side are cut */

/* One layer over T steps with `rows` rows in all. */
typedef struct {
    ptrdiff_t T, rows, I, H, P; /* P: the columns of weight_hh */
    ptrdiff_t sums;             /* the columns of the gradients of both weights; 0 in the forward pass */
    int rounded;                /* the operands of a step that are rounded */
    int gates, parts;           /* of the cell: gates, and parts of its recurrent product */
    size_t element, weight;     /* bytes of a number, and of a weight of the products */
    double rate;                /* of the products, relative to that of single or double precision */
    int width, block;           /* numbers of a panel's row, hidden units of a block */
} fastrnn_shape;

/* A machine as the estimates see it. Times in ns. */
typedef struct {
    double start, phase; /* of a team, and of one of its phases */
    double flops;        /* per ns, of one core, for each lane of a vector */
    double step;         /* of a step without rows: the calls of kernels */
    double cell;         /* the element-wise part of a cell on one vector, for each gate */
    double rounding;     /* of a row of an operand */
    double transfer;     /* bytes per ns, from the cache of another core */
    double caution;      /* factor on the time of a team, which loses more than one thread if others use its cores */
    struct {
        double below, bandwidth; /* arrays of less than `below` bytes are read at `bandwidth` bytes per ns */
    } memory[4];                 /* the last one has no `below` */
    double in_caches;            /* bytes of an array that may still be in a cache of all cores */
} fastrnn_machine;
extern const fastrnn_machine fastrnn_usual_machine; /* a core of Zen 4 */

/* The usual machine, but with a phase without work that takes empty_phase ns; 0: the usual time. */
fastrnn_machine fastrnn_machine_with(double empty_phase);

/* The work that members share: the hidden units of each step; the sequences of all steps; or only the products of many
 * steps at once (input projection, gradients of weights and x), while the caller computes the steps. */
typedef enum { FASTRNN_SHARE_UNITS, FASTRNN_SHARE_ROWS, FASTRNN_SHARE_PRODUCTS } fastrnn_sharing;

typedef struct {
    int threads;
    fastrnn_sharing sharing;
    double time, alone; /* the estimate, and that for one thread */
    double weights;     /* bytes of weight_hh, which every step reads */
    double reading;     /* the estimated time to read weight_ih, as every piece of time does */
} fastrnn_plan;

/* The multiplications and additions in the products of a shape. */
double fastrnn_operations(const fastrnn_shape *);

/* ns of a call on one thread: a shorter one is not planned for more threads. */
enum { FASTRNN_SHORTEST = 5000 };

/* The plan with the least estimated time among those of 1 to `threads` threads. */
fastrnn_plan fastrnn_plan_call(const fastrnn_shape *, const fastrnn_machine *, int threads);

/* How several calls run: one after the other, each by its plan; or side by side, each on one member, in `items` pieces
 * of time. A stacked call is one piece behind the call whose result it reads. */
typedef struct {
    int side_by_side, items, members; /* members: the most that any phase has */
    int together;                     /* the pieces of a phase of all members */
    double alone;                     /* the estimate for one thread */
} fastrnn_arrangement;

/* The arrangement of `count` calls of T steps. plans (count), in and out: side by side, each becomes a plan for one
 * thread. */
fastrnn_arrangement fastrnn_arrange(fastrnn_plan *plans, const fastrnn_machine *, int count, int stacked, ptrdiff_t T,
                                    int threads);

/* Whether members that share a product of this many rows, computed at once, share rows; else they share its columns,
 * and read only a part of the weights each. */
static inline int fastrnn_shares_rows(ptrdiff_t rows, int members) { return rows >= 8 * (ptrdiff_t)members; }

/* The number of pieces, 1 to n, into which work of `time` ns is cut so that each takes at least `piece` ns. */
int fastrnn_pieces(double time, double piece, ptrdiff_t n);

/* The number of phases, 1 to `most`, into which a product is cut, so that helper threads can join soon. */
int fastrnn_phases(double operations, ptrdiff_t most);

#endif
