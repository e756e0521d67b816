# The functions and types of csrc/ that no other package uses; the others are in fastrnn/__init__.pxd.

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1
    unsigned long PyThread_get_thread_ident() nogil

cdef extern from "fastrnn.h" nogil:
    enum:
        FASTRNN_FORMATS
    ctypedef struct fastrnn_format_properties:
        const char *name
        const char *numbers
        int has_scales
        int rounds_projection
        Py_ssize_t most_columns
    fastrnn_format_properties fastrnn_format_at(fastrnn_format)
    const char *fastrnn_narrow_instructions(const fastrnn_isa *, fastrnn_format, int index)
    ctypedef enum fastrnn_fit:
        FASTRNN_FITS
        FASTRNN_NOT_FINITE
        FASTRNN_TOO_LARGE
    fastrnn_fit fastrnn_round_weight(fastrnn_format, Py_ssize_t rows, Py_ssize_t columns, const float *weight,
                                     void *values, float *scales, int threads)

    ctypedef struct fastrnn_ragged:
        Py_ssize_t T, B, steps
        const Py_ssize_t *offsets
        const Py_ssize_t *order
        const Py_ssize_t *lengths

    const fastrnn_isa *fastrnn_isa_at(int index)
    const char *fastrnn_isa_name(const fastrnn_isa *)
    bint fastrnn_isa_is_supported(const fastrnn_isa *)
    bint fastrnn_has_threads()
    const char *fastrnn_compiler()
    fastrnn_status fastrnn_pack(const fastrnn_isa *, fastrnn_dtype, fastrnn_pass, const fastrnn_weights *,
                                const fastrnn_interruption *, int threads, fastrnn_packed **)
    fastrnn_cell fastrnn_find_cell(const char *name)
    fastrnn_cell_properties fastrnn_cell_at(fastrnn_cell)
    fastrnn_tape fastrnn_tape_layout(fastrnn_dtype, fastrnn_cell, Py_ssize_t N, Py_ssize_t H, Py_ssize_t projection)
    void fastrnn_gate_columns(fastrnn_dtype, fastrnn_cell, Py_ssize_t H, Py_ssize_t *columns)
    size_t fastrnn_packed_bytes(const fastrnn_packed *)
    void fastrnn_packed_free(fastrnn_packed *)
    size_t fastrnn_sums_bytes(const fastrnn_packed *, Py_ssize_t rows)
    fastrnn_workspace *fastrnn_workspace_create()
    void fastrnn_workspace_free(fastrnn_workspace *)
    fastrnn_status fastrnn_forward(const fastrnn_forward_args *, int count, bint stacked, fastrnn_workspace *,
                                   const fastrnn_interruption *, int threads)
    fastrnn_status fastrnn_backward(const fastrnn_backward_args *, int count, bint stacked, fastrnn_workspace *,
                                    const fastrnn_interruption *, int threads)
    void fastrnn_sort_lengths(Py_ssize_t B, Py_ssize_t steps, const Py_ssize_t *lengths, Py_ssize_t *order,
                              Py_ssize_t *lengths_in_order, Py_ssize_t *offsets)
    fastrnn_status fastrnn_gather(const fastrnn_ragged *, size_t bytes, const void *array, Py_ssize_t step,
                                  Py_ssize_t sequence, void *to, const fastrnn_interruption *, int threads)
    fastrnn_status fastrnn_scatter(const fastrnn_ragged *, size_t bytes, const void *rows, void *array, Py_ssize_t step,
                                   Py_ssize_t sequence, const fastrnn_interruption *, int threads)
    fastrnn_status fastrnn_reverse(const fastrnn_ragged *, size_t bytes, const void *rows, void *to,
                                   const fastrnn_interruption *, int threads)
    ctypedef enum fastrnn_function:
        FASTRNN_ACTIVATE_SIGMOID
        FASTRNN_ACTIVATE_TANH
        FASTRNN_ACTIVATE_LOG_SIGMOID
    void fastrnn_activate(const fastrnn_isa *, fastrnn_dtype, fastrnn_function, Py_ssize_t n, const void *x, void *y)
    ctypedef struct fastrnn_linear_args:
        Py_ssize_t N, I, O
        const void *x
        const void *weight
        const void *bias
        void *y
    ctypedef struct fastrnn_linear_back_args:
        Py_ssize_t N, I, O
        const void *x
        const void *weight
        const void *d_y
        void *d_x
        void *d_weight
        void *d_bias
    fastrnn_status fastrnn_linear(const fastrnn_isa *, fastrnn_dtype, const fastrnn_linear_args *, fastrnn_workspace *,
                                  const fastrnn_interruption *, int threads)
    fastrnn_status fastrnn_linear_backward(const fastrnn_isa *, fastrnn_dtype, const fastrnn_linear_back_args *,
                                           fastrnn_workspace *, const fastrnn_interruption *, int threads)
    double fastrnn_softmax_cross_entropy(const fastrnn_isa *, fastrnn_dtype, Py_ssize_t N, Py_ssize_t C,
                                         const void *logits, const int64_t *targets, double scale, void *d,
                                         double *losses, int threads)
    double fastrnn_squared_error(const fastrnn_isa *, fastrnn_dtype, Py_ssize_t n, const void *prediction,
                                 const void *target, double scale, void *d, double *sums, int threads)
    ctypedef struct fastrnn_sgd:
        double rate, momentum, dampening, weight_decay
        bint nesterov, is_first
    ctypedef struct fastrnn_adam:
        double rate, beta_1, beta_2, eps, weight_decay
        bint decoupled
        int64_t step
    enum:
        FASTRNN_SQUARES_BLOCK
    void fastrnn_sgd_step(const fastrnn_isa *, fastrnn_dtype, const fastrnn_sgd *, Py_ssize_t n, void *p, const void *g,
                          void *buffer, int threads)
    void fastrnn_adam_step(const fastrnn_isa *, fastrnn_dtype, const fastrnn_adam *, Py_ssize_t n, void *p,
                           const void *g, void *m, void *v, int threads)
    void fastrnn_scale(const fastrnn_isa *, fastrnn_dtype, Py_ssize_t n, double factor, void *a, int threads)
    double fastrnn_sum_squares(const fastrnn_isa *, fastrnn_dtype, Py_ssize_t n, const void *a, double *sums,
                               int threads)
    enum:
        FASTRNN_KEY_WORDS
    uint64_t fastrnn_fingerprint(const uint64_t *key, const void *data, size_t bytes)


cdef extern from "fastrnn_api.h" nogil:
    ctypedef struct fastrnn_api:
        pass
    const char *FASTRNN_CAPSULE
    const fastrnn_api *fastrnn_get_api()
    ctypedef struct fastrnn_stream
    fastrnn_status fastrnn_stream_pack(const fastrnn_isa *, fastrnn_dtype, const fastrnn_weights *, int count,
                                       fastrnn_stream **)
    void fastrnn_stream_free(fastrnn_stream *)
    size_t fastrnn_stream_packed_bytes(const fastrnn_stream *)
    size_t fastrnn_stream_state_bytes(const fastrnn_stream *)

cdef extern from "stream/stream.h" nogil:
    ctypedef struct fastrnn_stream_matrix:
        Py_ssize_t rows, vectors
        Py_ssize_t K[2]
        Py_ssize_t group_vectors, group_units, head, last
    ctypedef struct fastrnn_stream_layer:
        Py_ssize_t U, V, H, P, inputs
        int cell, gates, states, has_options
        fastrnn_options options
        fastrnn_stream_matrix part[2]
        fastrnn_stream_matrix recurrent
        fastrnn_stream_matrix projection
        Py_ssize_t peephole, state
    ctypedef struct fastrnn_stream:
        int count
        Py_ssize_t numbers_count, states, scratch
        void *numbers
        fastrnn_stream_layer *layers

cdef extern from "runtime/processors.h" nogil:
    ctypedef struct fastrnn_processors_count:
        int logical, cores
    int64_t fastrnn_clock()
    fastrnn_processors_count fastrnn_count_processors(int64_t now)

cdef extern from "runtime/team.h" nogil:
    ctypedef enum fastrnn_policy:
        FASTRNN_ADAPTIVE
        FASTRNN_PATIENT
        FASTRNN_ERRATIC
    void fastrnn_team_policy(fastrnn_policy)
    ctypedef struct fastrnn_lender:
        void (*start)(void (*)(void *) noexcept, void *, unsigned) noexcept
        void (*end)() noexcept
        int (*most)() noexcept
    void fastrnn_set_lender(const fastrnn_lender *)
    int fastrnn_borrow_threads(int on)
    unsigned long long fastrnn_borrowed_shares()
