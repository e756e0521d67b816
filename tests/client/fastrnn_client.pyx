# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""A module of another package that uses fastrnn below Python: see tests/test_capi.py."""
cimport fastrnn
from libc.stdint cimport uintptr_t
from libc.string cimport memset

cdef const fastrnn.fastrnn_api *api = fastrnn.fastrnn_import()


def versions():
    return api.abi, api.version, fastrnn.FASTRNN_ABI, fastrnn.FASTRNN_API_VERSION


def run(packed, const float[:, ::1] x, float[:, ::1] y):
    """y (T, outputs) written: all steps, without the GIL, each through a call of its own; returns the last state h."""
    cdef const fastrnn.fastrnn_stream *stream = <const fastrnn.fastrnn_stream *><uintptr_t>packed.address
    cdef unsigned char[::1] state = packed.new_state()
    cdef float[::1] h = y[0].copy()
    cdef Py_ssize_t t
    if x.shape[1] != api.stream_inputs(stream) or y.shape[1] != api.stream_outputs(stream):
        raise ValueError("x and y do not fit the stream")
    with nogil:
        api.stream_reset(stream, &state[0])
        for t in range(x.shape[0]):
            api.stream_step(stream, &state[0], &x[t, 0], &y[t, 0])
        api.stream_get_state(stream, &state[0], 0, 0, &h[0])
    return h


def forward(float[:, ::1] weight_ih, float[:, ::1] weight_hh, const float[:, ::1] x, float[:, ::1] output):
    """output (T, H) written: an RNN over one sequence, its weights packed here."""
    cdef fastrnn.fastrnn_weights weights
    cdef fastrnn.fastrnn_forward_args args
    cdef fastrnn.fastrnn_packed *packed = NULL
    cdef float[::1] h = output[0].copy()
    cdef fastrnn.fastrnn_status status
    cdef int isa = 0
    h[:] = 0
    memset(&weights, 0, sizeof(weights))
    memset(&args, 0, sizeof(args))
    weights.cell = api.find_cell(b"rnn_tanh")
    weights.I, weights.H, weights.P = x.shape[1], output.shape[1], output.shape[1]
    weights.weight_ih, weights.weight_hh = &weight_ih[0, 0], &weight_hh[0, 0]
    args.T, args.B = x.shape[0], 1
    args.x, args.output = &x[0, 0], &output[0, 0]
    args.state_0[0] = args.state_n[0] = &h[0]
    with nogil:
        while api.isa_at(isa + 1) != NULL and api.isa_is_supported(api.isa_at(isa + 1)):
            isa += 1
        status = api.pack(api.isa_at(isa), fastrnn.FASTRNN_F32, fastrnn.FASTRNN_FORWARD, &weights, NULL, 1, &packed)
        if status == fastrnn.FASTRNN_OK:
            args.packed = packed
            status = api.forward(&args, 1, False, NULL, NULL, 1)
        api.packed_free(packed)
    if status != fastrnn.FASTRNN_OK:
        raise MemoryError
