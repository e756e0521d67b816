/* The team: the threads that work on one call, and their barrier. */
#ifndef FASTRNN_TEAM_H
#define FASTRNN_TEAM_H

#include <stddef.h>

#include "fastrnn.h"

typedef struct fastrnn_team fastrnn_team;

typedef struct {
    int index, size; /* 0 <= index < size */
    fastrnn_team *team;
    int asks; /* whether it is the one that asks whether to go on */
} fastrnn_member;

/* Runs job(context, member) once for every member of a team of at most `threads`, with the floating-point mode of
 * fastrnn.h, and returns when all have returned: 0 if the job was interrupted. A team of one enters no OpenMP region:
 * that is safe after a fork. interruption: or NULL. */
int fastrnn_team_run(int threads, void (*job)(void *context, const fastrnn_member *), void *context,
                     const fastrnn_interruption *interruption);

/* Whether to go on with a piece of work of so many operations, or to skip it and all that follows, since the call has
 * been interrupted. Barriers and what is published are not to be skipped: others may be waiting. */
int fastrnn_team_go(const fastrnn_member *, double operations);

/* The member as a team of its own, for work that it shares with nobody. */
static inline fastrnn_member fastrnn_alone(const fastrnn_member *me)
{
    const fastrnn_member alone = {0, 1, me->team, me->asks};
    return alone;
}

/* How far something is, of which others want to know: it only grows, from 0. What a member wrote before it says so,
 * those can read who have waited for it. Barriers and these are for different jobs. */
enum { FASTRNN_PROGRESSES = 16 };
void fastrnn_team_publish(const fastrnn_member *, int which, ptrdiff_t progress);
void fastrnn_team_wait(const fastrnn_member *, int which, ptrdiff_t progress);

/* Waits until every member has come here. What a member wrote before, all can read after. Returns, to all the same,
 * whether the call has been interrupted: then they may leave together. To a team of one always 0. */
int fastrnn_team_barrier(const fastrnn_member *);

/* For a job without barriers, the last thing that each member does: the one that asks goes on asking for the others. */
void fastrnn_team_finish(const fastrnn_member *);

typedef struct {
    ptrdiff_t from, to;
} fastrnn_range;

/* The member's part of n items: all of them in order, in parts that differ by one at most. */
static inline fastrnn_range fastrnn_share(ptrdiff_t n, const fastrnn_member *me)
{
    fastrnn_range part = {n / me->size * me->index + (n % me->size) * me->index / me->size,
                          n / me->size * (me->index + 1) + (n % me->size) * (me->index + 1) / me->size};
    return part;
}

/* Blocks or panels in pieces none of which takes longer than an interruption may, one of them having so many
 * operations: for (fastrnn_range piece = fastrnn_no_piece(all); fastrnn_next_piece(me, all, operations, &piece);) ...
 */
static inline fastrnn_range fastrnn_no_piece(fastrnn_range all) { return (fastrnn_range){all.from, all.from}; }
int fastrnn_next_piece(const fastrnn_member *, fastrnn_range all, double operations, fastrnn_range *piece);

#endif
