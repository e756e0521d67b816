/* fastrnn streams: layers that take one time step per call, for audio, sensors and control loops. The manual:
 *
 *     fastrnn_stream *stream = NULL;                            the weights, packed: constant from here on
 *     if (fastrnn_stream_pack(NULL, FASTRNN_F32, layers, count, &stream) != FASTRNN_OK) ...
 *     void *state = malloc(fastrnn_stream_state_bytes(stream)); or any other memory of the caller
 *     fastrnn_stream_reset(stream, state);
 *     for (;;) fastrnn_stream_step(stream, state, x, y);        x (I) in, y (P) out
 *     fastrnn_stream_free(stream);
 *
 * Model. `layers` are the layers of a stack, the lowest first: any cell with its options, peepholes, heads and a
 * recurrent projection, as fastrnn_weights describes them. x (I) is the input of the lowest layer, y (P) the output of
 * the last one; each layer has as many inputs as the layer below has outputs. Arrays are of one precision, contiguous,
 * and aligned as their numbers. The weights are copied: they may be freed or changed after fastrnn_stream_pack.
 *
 * State. One sequence in progress is one block of memory of fastrnn_stream_state_bytes() bytes, which belongs to the
 * caller; begin it with fastrnn_stream_reset. It is aligned as its numbers; alignment to 64 bytes is faster. The block
 * holds no pointer: it may be copied or moved between two steps, which forks or moves the sequence, but only among
 * streams that were packed from layers of the same cells and sizes for the same instruction set.
 * fastrnn_stream_get_state and _set_state exchange the states in the arrays of other interfaces.
 *
 * Real time. fastrnn_stream_step, _steps, _reset, _get_state and _set_state do not allocate, lock, wait or make a
 * system call, and write only to their arguments and to less than 4 KiB of stack. The number of their operations does
 * not depend on the values. On x86-64 and AArch64, denormal numbers count as zeros, so a decaying state is not slower.
 * fastrnn_stream_pack allocates one block; _free frees it.
 *
 * Threads. A stream is constant: any number of threads may step any number of states through it at the same time, each
 * state through one thread at a time. The library starts no thread for a stream.
 *
 * Bits. Outputs and states have the bits of fastrnn_forward over the whole sequence, and of layer.stream().step() in
 * Python. The bits of AVX2, AVX-512 and NEON are equal; those of `generic` agree with them to rounding. The
 * floating-point mode of the caller does not matter, and is unchanged afterwards. A NaN or an infinity in x stays in
 * its sequence.
 *
 * Errors. fastrnn_stream_pack returns FASTRNN_OUT_OF_MEMORY, or FASTRNN_INVALID for an unknown cell, a format other
 * than FASTRNN_NATIVE, a size below its least value, heads that do not divide H, or a layer that does not fit the one
 * below; *stream is then unchanged. The other functions cannot fail. Arguments that break these rules are undefined
 * behaviour.
 *
 * Versions. FASTRNN_STREAM_VERSION grows whenever this interface gets a function; functions keep their meaning as long
 * as FASTRNN_ABI, in fastrnn.h, is the same. */
#ifndef FASTRNN_STREAM_H
#define FASTRNN_STREAM_H

#include "fastrnn.h"

#ifdef __cplusplus
extern "C" {
#endif
FASTRNN_PUBLIC_BEGIN

#define FASTRNN_STREAM_VERSION 1

typedef struct fastrnn_stream fastrnn_stream;

/* Packs a stack of `count` layers, one or more. The instruction set: NULL for the fastest that this processor supports.
 * *stream is written; a stream that it held before is not freed. */
fastrnn_status fastrnn_stream_pack(const fastrnn_isa *, fastrnn_dtype, const fastrnn_weights *layers, int count,
                                   fastrnn_stream **stream);
void fastrnn_stream_free(fastrnn_stream *); /* NULL is ignored */

/* The sizes of a stream, in numbers and in bytes. */
ptrdiff_t fastrnn_stream_inputs(const fastrnn_stream *);  /* I: numbers of x */
ptrdiff_t fastrnn_stream_outputs(const fastrnn_stream *); /* P of the last layer: numbers of y */
size_t fastrnn_stream_packed_bytes(const fastrnn_stream *);
size_t fastrnn_stream_state_bytes(const fastrnn_stream *);

/* state written: zeros, the state before the first step. */
void fastrnn_stream_reset(const fastrnn_stream *, void *state);

/* One step: state is updated, y (P) is written. y may be x. */
void fastrnn_stream_step(const fastrnn_stream *, void *state, const void *x, void *y);

/* T steps: x (T, I), y (T, P) written; y may be x if I is P, and otherwise does not overlap it. */
void fastrnn_stream_steps(const fastrnn_stream *, void *state, ptrdiff_t T, const void *x, void *y);

/* State n of a layer, h for 0: array (P) for h, else (H), written or read. */
void fastrnn_stream_get_state(const fastrnn_stream *, const void *state, int layer, int n, void *array);
void fastrnn_stream_set_state(const fastrnn_stream *, void *state, int layer, int n, const void *array);

FASTRNN_PUBLIC_END
#ifdef __cplusplus
}
#endif

#endif
