# The C interface for Cython: docs/c.md. `cimport fastrnn`, with fastrnn.get_include() among the include_dirs, then
#
#     cdef const fastrnn.fastrnn_api *api = fastrnn.fastrnn_import()
#
# at the top of the module; the functions api.stream_step() and so on need no GIL. csrc/fastrnn_api.h lists them,
# csrc/fastrnn.h and csrc/fastrnn_stream.h are their manuals.
from libc.stdint cimport uint8_t


cdef extern from "fastrnn_api.h" nogil:
    ctypedef enum fastrnn_dtype:
        FASTRNN_F32
        FASTRNN_F64
    ctypedef enum fastrnn_format:
        FASTRNN_NATIVE
        FASTRNN_INT8
        FASTRNN_FLOAT16
        FASTRNN_BFLOAT16
        FASTRNN_FLOAT8
    ctypedef enum fastrnn_status:
        FASTRNN_OK
        FASTRNN_OUT_OF_MEMORY
        FASTRNN_INTERRUPTED
        FASTRNN_INVALID
    ctypedef enum fastrnn_pass:
        FASTRNN_FORWARD
        FASTRNN_BACKWARD
    enum:
        FASTRNN_ABI
        FASTRNN_API_VERSION
        FASTRNN_STREAM_VERSION
        FASTRNN_MOST_STATES
        FASTRNN_MOST_CALLS
    ctypedef enum fastrnn_recurrent_activation:
        FASTRNN_SIGMOID
        FASTRNN_HARD_SIGMOID_FIFTH
        FASTRNN_HARD_SIGMOID_SIXTH
    ctypedef enum fastrnn_activation:
        FASTRNN_TANH
        FASTRNN_RELU

    ctypedef int fastrnn_cell
    ctypedef struct fastrnn_isa:
        pass
    ctypedef struct fastrnn_packed:
        pass
    ctypedef struct fastrnn_workspace:
        pass
    ctypedef struct fastrnn_stream:
        pass
    ctypedef struct fastrnn_cell_properties:
        const char *name
        int gates, states, peepholes
    ctypedef struct fastrnn_options:
        fastrnn_recurrent_activation recurrent_activation
        fastrnn_activation activation
        double clip
    ctypedef struct fastrnn_weights:
        fastrnn_cell cell
        fastrnn_options options
        Py_ssize_t I, H, P, heads
        const void *weight_ih
        const void *weight_hh
        const void *bias_ih
        const void *bias_hh
        const void *weight_hr
        const void *peephole
        fastrnn_format format
        const float *scale_ih
        const float *scale_hh
        const float *scale_hr
        const char *instructions
    ctypedef struct fastrnn_interruption:
        int (*should_cancel)(void *) noexcept nogil
        void *context
    ctypedef struct fastrnn_tape:
        size_t bytes, gates
        size_t states[FASTRNN_MOST_STATES]
        size_t intermediate
    ctypedef struct fastrnn_forward_args:
        Py_ssize_t T, B
        const Py_ssize_t *offsets
        const uint8_t *resets
        const fastrnn_packed *packed
        const void *x
        const void *state_0[FASTRNN_MOST_STATES]
        void *output
        void *state_n[FASTRNN_MOST_STATES]
        void *tape
    ctypedef struct fastrnn_backward_args:
        Py_ssize_t T, B
        const Py_ssize_t *offsets
        const uint8_t *resets
        const fastrnn_packed *packed
        const void *x
        const void *state_0[FASTRNN_MOST_STATES]
        const void *tape
        const void *d_output
        const void *d_state_n[FASTRNN_MOST_STATES]
        void *d_x
        void *d_state_0[FASTRNN_MOST_STATES]
        void *d_weight_ih
        void *d_weight_hh
        void *d_bias_ih
        void *d_bias_hh
        void *d_weight_hr
        void *d_peephole
        Py_ssize_t rows_after, rows_before
        void *sums

    ctypedef struct fastrnn_api:
        int abi, version
        const fastrnn_isa *(*isa_at)(int index) noexcept nogil
        const char *(*isa_name)(const fastrnn_isa *) noexcept nogil
        bint (*isa_is_supported)(const fastrnn_isa *) noexcept nogil
        fastrnn_cell (*find_cell)(const char *name) noexcept nogil
        fastrnn_cell_properties (*cell_at)(fastrnn_cell) noexcept nogil
        fastrnn_status (*pack)(const fastrnn_isa *, fastrnn_dtype, fastrnn_pass, const fastrnn_weights *,
                               const fastrnn_interruption *, int threads, fastrnn_packed **) noexcept nogil
        void (*packed_free)(fastrnn_packed *) noexcept nogil
        fastrnn_workspace *(*workspace_create)() noexcept nogil
        void (*workspace_free)(fastrnn_workspace *) noexcept nogil
        fastrnn_tape (*tape_layout)(fastrnn_dtype, fastrnn_cell, Py_ssize_t N, Py_ssize_t H,
                                    Py_ssize_t projection) noexcept nogil
        fastrnn_status (*forward)(const fastrnn_forward_args *, int count, bint stacked, fastrnn_workspace *,
                                  const fastrnn_interruption *, int threads) noexcept nogil
        fastrnn_status (*backward)(const fastrnn_backward_args *, int count, bint stacked, fastrnn_workspace *,
                                   const fastrnn_interruption *, int threads) noexcept nogil
        fastrnn_status (*stream_pack)(const fastrnn_isa *, fastrnn_dtype, const fastrnn_weights *layers, int count,
                                      fastrnn_stream **) noexcept nogil
        void (*stream_free)(fastrnn_stream *) noexcept nogil
        Py_ssize_t (*stream_inputs)(const fastrnn_stream *) noexcept nogil
        Py_ssize_t (*stream_outputs)(const fastrnn_stream *) noexcept nogil
        size_t (*stream_packed_bytes)(const fastrnn_stream *) noexcept nogil
        size_t (*stream_state_bytes)(const fastrnn_stream *) noexcept nogil
        void (*stream_reset)(const fastrnn_stream *, void *state) noexcept nogil
        void (*stream_step)(const fastrnn_stream *, void *state, const void *x, void *y) noexcept nogil
        void (*stream_steps)(const fastrnn_stream *, void *state, Py_ssize_t T, const void *x, void *y) noexcept nogil
        void (*stream_get_state)(const fastrnn_stream *, const void *state, int layer, int n,
                                 void *array) noexcept nogil
        void (*stream_set_state)(const fastrnn_stream *, void *state, int layer, int n,
                                 const void *array) noexcept nogil

cdef extern from "fastrnn_api.h":
    const fastrnn_api *fastrnn_import() except NULL
