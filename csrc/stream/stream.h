/* The record of a stream. */
#ifndef FASTRNN_STREAM_STREAM_H
#define FASTRNN_STREAM_STREAM_H

#include "fastrnn_stream.h"
#include "kernels/stream_types.h"

struct fastrnn_stream {
    const fastrnn_isa *isa;
    fastrnn_dtype dtype;
    int count;                    /* of the layers */
    ptrdiff_t numbers_count;      /* of the numbers */
    ptrdiff_t states, scratch;    /* a block of state has so many numbers of states, then so many of scratch memory */
    size_t bytes;                 /* of the block of memory that begins with this struct and ends with the numbers */
    void *numbers;                /* the packed weights of all layers */
    fastrnn_stream_layer *layers; /* (count) */
};

#endif
