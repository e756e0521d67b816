/* The version and the compiler of the library, and the table of its functions. */
#include "fastrnn_api.h"

const char *fastrnn_version(void) { return FASTRNN_VERSION; }

int fastrnn_abi(void) { return FASTRNN_ABI; }

const char *fastrnn_compiler(void)
{
#if defined(__clang__)
    return "clang " __clang_version__;
#elif defined(__GNUC__)
    return "gcc " __VERSION__;
#else
    return "unknown";
#endif
}

static const fastrnn_api api = {
    .abi = FASTRNN_ABI,
    .version = FASTRNN_API_VERSION,
    .isa_at = fastrnn_isa_at,
    .isa_name = fastrnn_isa_name,
    .isa_is_supported = fastrnn_isa_is_supported,
    .find_cell = fastrnn_find_cell,
    .cell_at = fastrnn_cell_at,
    .pack = fastrnn_pack,
    .packed_free = fastrnn_packed_free,
    .workspace_create = fastrnn_workspace_create,
    .workspace_free = fastrnn_workspace_free,
    .tape_layout = fastrnn_tape_layout,
    .forward = fastrnn_forward,
    .backward = fastrnn_backward,
    .stream_pack = fastrnn_stream_pack,
    .stream_free = fastrnn_stream_free,
    .stream_inputs = fastrnn_stream_inputs,
    .stream_outputs = fastrnn_stream_outputs,
    .stream_packed_bytes = fastrnn_stream_packed_bytes,
    .stream_state_bytes = fastrnn_stream_state_bytes,
    .stream_reset = fastrnn_stream_reset,
    .stream_step = fastrnn_stream_step,
    .stream_steps = fastrnn_stream_steps,
    .stream_get_state = fastrnn_stream_get_state,
    .stream_set_state = fastrnn_stream_set_state,
};

const fastrnn_api *fastrnn_get_api(void) { return &api; }
