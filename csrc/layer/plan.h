/* How a call runs: on how many threads, and what they share. Pure functions of a shape and of a description of the
 * machine. No result depends on a plan. */
#ifndef FASTRNN_PLAN_H
#define FASTRNN_PLAN_H

#include <stddef.h>

enum { FASTRNN_MOST_ITEMS = 16 }; /* pieces of time in which calls run side by side */

/* One layer over T steps with `rows` rows in all. */
typedef struct {
    ptrdiff_t T, rows, I, H, P; /* P: the columns of weight_hh */
    int gates, parts;           /* of the cell: gates, and parts of its recurrent product */
    size_t element;             /* bytes of a number */
    int width, block;           /* numbers of a panel's row, hidden units of a block */
} fastrnn_shape;

/* A machine as the estimates see it. Times in ns. */
typedef struct {
    double start, phase; /* of a team; of a phase of it */
    double flops;        /* of one core in a ns, for each lane of a vector */
    double cell;         /* the element-wise part of a cell on one vector, for each gate */
    double transfer;     /* bytes in a ns, of h_t to the other cores */
    double caution;      /* a team costs so many times as much: it has more to lose where others want its cores */
    struct {
        double below, bandwidth; /* arrays of less than so many bytes are read with so many bytes in a ns */
    } memory[4];                 /* the last one's `below` is not looked at */
} fastrnn_machine;
extern const fastrnn_machine fastrnn_usual_machine; /* a core of Zen 4 */

typedef struct {
    int threads;
    int split_rows;     /* members share the batch, else the hidden units */
    double time, alone; /* the estimate, and that for one thread */
} fastrnn_plan;

/* Multiplications and additions of the shape's products. Calls with fewer, some microseconds of them, are not shared.
 */
enum { FASTRNN_FEWEST_OPERATIONS = 200000 };
double fastrnn_operations(const fastrnn_shape *);

/* The plan with the least estimated time, for 1 to `threads` threads. */
fastrnn_plan fastrnn_plan_call(const fastrnn_shape *, const fastrnn_machine *, int threads);

/* How several calls run: one after the other, each as its plan says; or side by side, each by one member, in `items`
 * pieces of time. A stacked call is one piece behind the call whose result it reads. */
typedef struct {
    int side_by_side, items, members; /* members: the most that any phase has */
    double alone;                     /* the estimate for one thread */
} fastrnn_arrangement;

/* plans: of each call, those of calls side by side become plans for one thread. */
fastrnn_arrangement fastrnn_arrange(fastrnn_plan *plans, int count, int stacked, ptrdiff_t T, int threads);

/* Pieces of work that takes about so many ns, each `piece` at least, and at most n of them. */
int fastrnn_pieces(double time, double piece, ptrdiff_t n);

/* Phases into which a product of n panels is cut, so that helpers need not wait long to take part. */
int fastrnn_phases(double operations, ptrdiff_t n);

#endif
