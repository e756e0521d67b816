/* Functions of the library in one table, for programs that do not link it: extension modules of Python, which find the
 * table in a capsule (fastrnn_import, below), and callers by address (fastrnn.capi.address() in Python: cffi, ctypes,
 * Numba). The table has all functions of fastrnn_stream.h, and those of fastrnn.h for instruction sets, cells, packed
 * weights, workspaces, the tape, forward and backward, without "fastrnn_" before their names. For the others a program
 * links the library. */
#ifndef FASTRNN_API_H
#define FASTRNN_API_H

#include "fastrnn.h"
#include "fastrnn_stream.h"

#ifdef __cplusplus
extern "C" {
#endif
FASTRNN_PUBLIC_BEGIN

/* Grows whenever the table does. New functions are added at the end. So a program works with every table of its ABI
 * whose version is not less than the version that the program was compiled with. */
#define FASTRNN_API_VERSION 1

typedef struct {
    int abi;     /* FASTRNN_ABI of the library */
    int version; /* FASTRNN_API_VERSION of the library */

    const fastrnn_isa *(*isa_at)(int index);
    const char *(*isa_name)(const fastrnn_isa *);
    int (*isa_is_supported)(const fastrnn_isa *);
    fastrnn_cell (*find_cell)(const char *name);
    fastrnn_cell_properties (*cell_at)(fastrnn_cell);

    fastrnn_status (*pack)(const fastrnn_isa *, fastrnn_dtype, fastrnn_pass, const fastrnn_weights *,
                           const fastrnn_interruption *, int threads, fastrnn_packed **packed);
    void (*packed_free)(fastrnn_packed *);
    fastrnn_workspace *(*workspace_create)(void);
    void (*workspace_free)(fastrnn_workspace *);
    fastrnn_tape (*tape_layout)(fastrnn_dtype, fastrnn_cell, ptrdiff_t N, ptrdiff_t H, ptrdiff_t projection);
    fastrnn_status (*forward)(const fastrnn_forward_args *, int count, int stacked, fastrnn_workspace *,
                              const fastrnn_interruption *, int threads);
    fastrnn_status (*backward)(const fastrnn_backward_args *, int count, int stacked, fastrnn_workspace *,
                               const fastrnn_interruption *, int threads);

    fastrnn_status (*stream_pack)(const fastrnn_isa *, fastrnn_dtype, const fastrnn_weights *layers, int count,
                                  fastrnn_stream **stream);
    void (*stream_free)(fastrnn_stream *);
    ptrdiff_t (*stream_inputs)(const fastrnn_stream *);
    ptrdiff_t (*stream_outputs)(const fastrnn_stream *);
    size_t (*stream_packed_bytes)(const fastrnn_stream *);
    size_t (*stream_state_bytes)(const fastrnn_stream *);
    void (*stream_reset)(const fastrnn_stream *, void *state);
    void (*stream_step)(const fastrnn_stream *, void *state, const void *x, void *y);
    void (*stream_steps)(const fastrnn_stream *, void *state, ptrdiff_t T, const void *x, void *y);
    void (*stream_get_state)(const fastrnn_stream *, const void *state, int layer, int n, void *array);
    void (*stream_set_state)(const fastrnn_stream *, void *state, int layer, int n, const void *array);
} fastrnn_api;

const fastrnn_api *fastrnn_get_api(void); /* a constant of the library */

FASTRNN_PUBLIC_END

#if defined(Py_PYTHON_H)
#define FASTRNN_CAPSULE "fastrnn._core._C_API"

/* Imports the package fastrnn and returns its table. NULL, with a Python exception set, if that fails or if the
 * package has another ABI or an older table. For a source file that includes Python.h first. */
static inline const fastrnn_api *fastrnn_import(void)
{
    const fastrnn_api *api = (const fastrnn_api *)PyCapsule_Import(FASTRNN_CAPSULE, 0);
    if (api && (api->abi != FASTRNN_ABI || api->version < FASTRNN_API_VERSION)) {
        PyErr_Format(PyExc_ImportError,
                     "fastrnn: compiled for ABI %d with table %d or later, the installed package has ABI %d, table %d",
                     FASTRNN_ABI, FASTRNN_API_VERSION, api->abi, api->version);
        return NULL;
    }
    return api;
}
#endif

#ifdef __cplusplus
}
#endif

#endif
