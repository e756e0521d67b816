/* Calls: a layer over time. The workspace of a call, its phases, and calls side by side. */
#include "fastrnn.h"

#include <assert.h>
#include <string.h>

#include "kernels/kernels.h"
#include "layer/packed.h"
#include "layer/plan.h"
#include "layer/steps.h"
#include "layer/sums.h"
#include "layer/tape.h"
#include "runtime/memory.h"
#include "runtime/team.h"

/* CHUNK_BYTES: of the gates and copied inputs of a chunk: enough rows for a product at full speed, few enough to stay
 * in the caches. PIECE: ns of work of a phase in which a team shares sequences; its members may change between phases.
 * Backward half of it, because the estimate of a backward pass includes the gradients of weights. APART: bytes between
 * the private rows of two members, more than the hardware prefetches ahead. OWN_BYTES: a member's h_t, or gates of a
 * step, of at most this size are written to a private array first. */
enum { CHUNK_BYTES = 1 << 20, BACKWARD_CHUNK_BYTES = 16 << 20, PIECE = 400000, APART = 16384, OWN_BYTES = 16384 };

/* Bytes of a chunk of the input projection. Each chunk reads all of weight_ih: if that does not fit in the second-level
 * cache, more rows in a chunk pay off more than a chunk that fits there. */
static double projection_bytes(ptrdiff_t I, ptrdiff_t G, size_t element)
{
    enum { LARGE_WEIGHTS = 4 << 20, ROWS = 256, MOST = 16 << 20 };
    const double row = (double)G * (double)element;
    if (row * (double)I <= LARGE_WEIGHTS || ROWS * row <= CHUNK_BYTES) return CHUNK_BYTES;
    return ROWS * row < MOST ? ROWS * row : MOST;
}

/* Whether the members of a plan's team share sequences, and numbers of a workspace between the private rows of the
 * first member and those of the last. */
static int shares_sequences(fastrnn_plan p) { return p.sharing == FASTRNN_SHARE_ROWS && p.threads > 1; }
static ptrdiff_t between_members(fastrnn_plan p, size_t element)
{
    return shares_sequences(p) ? APART / (ptrdiff_t)element * (p.threads - 1) : 0;
}

/* Whether a member's share of an array (B, columns) that the members of a plan write in a step is private at first. */
static int is_private_first(fastrnn_plan p, ptrdiff_t B, ptrdiff_t columns, size_t element)
{
    return shares_sequences(p) && (double)B * (double)columns * (double)element / p.threads <= OWN_BYTES;
}

/* Runs a phase on the team, or all of it on the member `alone`. Returns 0 if the call is cancelled. */
static int phase_of(fastrnn_team *team, const fastrnn_member *alone, int most, double operations, fastrnn_job *job,
                    const void *context, ptrdiff_t item)
{
    if (!alone) return fastrnn_team_phase(team, most, operations, job, context, item);
    fastrnn_member me = *alone;
    me.item = item;
    job(context, &me);
    return fastrnn_team_go(alone, 0);
}

/* Calls side by side: in a phase each call computes the next pieces of time, [from, to) of `items`; of stacked calls,
 * call k is k pieces behind. */
typedef void pieces_of_call(const void *calls, const fastrnn_member *, int k, int from, int to, int items);
typedef struct {
    pieces_of_call *pieces;
    const void *calls;
    int count, stacked, items, together; /* together: the pieces of this phase */
} side_by_side;

static void share_of_calls(const void *context, const fastrnn_member *me)
{
    const side_by_side *all = context;
    const fastrnn_member alone = fastrnn_alone(me);
    for (int k = me->index; k < all->count; k += me->size) {
        const int from = (int)me->item - (all->stacked ? k : 0), to = from + all->together;
        if (from >= 0 && from < all->items)
            all->pieces(all->calls, &alone, k, from, to < all->items ? to : all->items, all->items);
    }
}

static int run_side_by_side(fastrnn_team *team, fastrnn_arrangement how, int count, int stacked, double operations,
                            pieces_of_call *pieces, const void *calls)
{
    side_by_side all = {pieces, calls, count, stacked, how.items, 0};
    const int last = how.items + (stacked ? count - 1 : 0);
    for (int k = 0; k < last; k += all.together) { /* longer phases, until the team is complete */
        const int longer = all.together ? 2 * all.together : 1;
        const int complete = how.together > 1 && fastrnn_team_gather(team, how.members, 0) == how.members;
        all.together = complete || longer > how.together ? how.together : longer;
        const double part = operations * all.together / last;
        if (!fastrnn_team_phase_by_index(team, how.members, part, share_of_calls, &all, k)) return 0;
    }
    return 1;
}

/* Grows `layout` to the larger of two layouts whose users take the memory one after the other. */
static void merge_layout(fastrnn_layout *layout, const fastrnn_layout *other)
{
    if (other->size > layout->size) layout->size = other->size;
    layout->overflow |= other->overflow;
}

/* The number of elements in all gradients of the weights. */
static ptrdiff_t gradient_numbers(const fastrnn_packed *packed)
{
    const cell_f32 *cell = packed->isa->f32->cells[packed->cell]; /* that of f64 has the same sizes */
    const ptrdiff_t H = packed->H, P = packed->P, G = cell->gates * H;
    return (packed->peephole ? cell->peepholes * H : 0) + 2 * G + G * packed->I + G * packed->S +
           (packed->has_projection ? P * H : 0);
}

#define BOTH "layer/sequence.inc.h"
#include "kernels/both.inc.h"

fastrnn_status fastrnn_forward(const fastrnn_forward_args *args, int count, int stacked, fastrnn_workspace *workspace,
                               const fastrnn_interruption *interruption, int threads)
{
    assert(count > 0 && count <= FASTRNN_MOST_CALLS && args->T >= 0 && args->B >= 0);
    return args->packed->dtype == FASTRNN_F32 ? run_forward_f32(args, count, stacked, workspace, interruption, threads)
                                              : run_forward_f64(args, count, stacked, workspace, interruption, threads);
}

fastrnn_status fastrnn_backward(const fastrnn_backward_args *args, int count, int stacked, fastrnn_workspace *workspace,
                                const fastrnn_interruption *interruption, int threads)
{
    assert(count > 0 && count <= FASTRNN_MOST_CALLS && args->T >= 0 && args->B >= 0);
    return args->packed->dtype == FASTRNN_F32
               ? run_backward_f32(args, count, stacked, workspace, interruption, threads)
               : run_backward_f64(args, count, stacked, workspace, interruption, threads);
}

size_t fastrnn_sums_bytes(const fastrnn_packed *packed, ptrdiff_t rows)
{
    const size_t element = fastrnn_element_bytes(packed->dtype);
    fastrnn_layout layout = {0};
    fastrnn_reserve(&layout, element, fastrnn_sum_levels(rows), gradient_numbers(packed), 1);
    return layout.overflow ? SIZE_MAX : layout.size;
}
