/* The cells. A new cell is one file, its #include and its entry here. Parts marked FASTRNN_FORWARD_ONLY, which is never
 * defined here, are left out of the headers that `fastrnn export-c` writes. */
#include "kernels/cells/gru.inc.h"
#include "kernels/cells/gru_reset_before.inc.h"
#include "kernels/cells/lstm.inc.h"
#include "kernels/cells/rnn.inc.h"
#include "kernels/cells/slstm.inc.h"
#include "kernels/cells/ugrnn.inc.h"

static const NAME(cell) *const NAME(cells)[FASTRNN_MOST_CELLS] = {
    &NAME(cell_lstm),
    &NAME(cell_gru),
    &NAME(cell_rnn_tanh),
    &NAME(cell_rnn_relu),
    &NAME(cell_gru_reset_before),
    &NAME(cell_slstm),
    &NAME(cell_rnn_sigmoid),
    &NAME(cell_ugrnn),
};
