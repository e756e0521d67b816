#include "layer/tape.h"

#include <string.h>

#include "kernels/kernels.h"
#include "runtime/memory.h"

/* The specification of a cell: the same for all instruction sets and precisions, except for the block, which depends
 * on the precision. */
static const cell_f32 *specification(fastrnn_cell cell) { return fastrnn_isa_at(0)->f32->cells[cell]; }

fastrnn_cell fastrnn_find_cell(const char *name)
{
    for (fastrnn_cell cell = 0; cell < FASTRNN_MOST_CELLS && specification(cell); cell++)
        if (!strcmp(specification(cell)->name, name)) return cell;
    return -1;
}

fastrnn_cell_properties fastrnn_cell_at(fastrnn_cell cell)
{
    const cell_f32 *s = cell >= 0 && cell < FASTRNN_MOST_CELLS ? specification(cell) : NULL;
    return s ? (fastrnn_cell_properties){s->name, s->gates, s->states, s->peepholes} : (fastrnn_cell_properties){0};
}

void fastrnn_gate_columns(fastrnn_dtype dtype, fastrnn_cell cell, ptrdiff_t H, ptrdiff_t *columns)
{
    const fastrnn_isa *isa = fastrnn_isa_at(0);
    if (dtype == FASTRNN_F32)
        isa->f32->gate_columns(isa->f32->cells[cell], H, columns);
    else
        isa->f64->gate_columns(isa->f64->cells[cell], H, columns);
}

fastrnn_tape_columns fastrnn_columns_of_tape(fastrnn_cell cell, ptrdiff_t H, ptrdiff_t projection)
{
    const cell_f32 *s = specification(cell);
    fastrnn_tape_columns columns = {.gates = s->saves_gates ? s->gates * H : 0,
                                    .intermediate = s->saves_intermediate ? H : 0};
    columns.states[0] = projection ? projection : s->saves_h ? H : 0;
    for (int n = 1; n < s->states; n++) columns.states[n] = H;
    return columns;
}

static size_t reserve_array(fastrnn_layout *layout, fastrnn_dtype dtype, ptrdiff_t N, ptrdiff_t columns)
{
    if (columns == 0) return SIZE_MAX;
    return fastrnn_reserve(layout, fastrnn_element_bytes(dtype), N, columns, 1);
}

fastrnn_tape fastrnn_tape_layout(fastrnn_dtype dtype, fastrnn_cell cell, ptrdiff_t N, ptrdiff_t H, ptrdiff_t projection)
{
    const fastrnn_tape_columns columns = fastrnn_columns_of_tape(cell, H, projection);
    fastrnn_layout layout = {0};
    fastrnn_tape tape;
    tape.gates = reserve_array(&layout, dtype, N, columns.gates);
    for (int n = 0; n < FASTRNN_MOST_STATES; n++) tape.states[n] = reserve_array(&layout, dtype, N, columns.states[n]);
    tape.intermediate = reserve_array(&layout, dtype, N, columns.intermediate);
    tape.bytes = layout.overflow ? SIZE_MAX : layout.size;
    return tape;
}

static void clear_gap(char *tape, size_t offset, fastrnn_dtype dtype, ptrdiff_t N, ptrdiff_t columns)
{
    if (columns == 0) return;
    const size_t bytes = (size_t)N * (size_t)columns * fastrnn_element_bytes(dtype);
    fastrnn_layout layout = {0};
    fastrnn_reserve(&layout, 1, (ptrdiff_t)bytes, 1, 1);
    memset(tape + offset + bytes, 0, layout.size - bytes);
}

void fastrnn_clear_gaps(void *tape, fastrnn_dtype dtype, fastrnn_cell cell, ptrdiff_t N, ptrdiff_t H,
                        ptrdiff_t projection)
{
    const fastrnn_tape_columns columns = fastrnn_columns_of_tape(cell, H, projection);
    const fastrnn_tape at = fastrnn_tape_layout(dtype, cell, N, H, projection);
    clear_gap(tape, at.gates, dtype, N, columns.gates);
    for (int n = 0; n < FASTRNN_MOST_STATES; n++) clear_gap(tape, at.states[n], dtype, N, columns.states[n]);
    clear_gap(tape, at.intermediate, dtype, N, columns.intermediate);
}
