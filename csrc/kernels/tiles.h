/* The tiles of a product, mr rows by nv vectors, as a list of X(mr, nv). A tile of many rows takes one panel, two
 * vectors, at a time; a tile of few rows takes several panels, so that more sums are independent than the latency of
 * an fma needs, and a loaded number of A meets more of them. TILES_TO(mr)(X) lists the tiles of at most mr rows and one
 * panel, and those of one row; TILES_OF_FEW(mr)(X) those of two panels and 2 to mr rows. With four rows and more, they
 * have four vectors. */
#ifndef FASTRNN_TILES_H
#define FASTRNN_TILES_H

#include "kernels/names.h"

/* clang-format off */
#define TILES_OF_ROWS(X, mr) X(mr, 1) X(mr, 2)
#define TILES_TO_4(X)                                                                                                  \
    TILES_OF_ROWS(X, 1) X(1, 3) X(1, 4) X(1, 5) X(1, 6) X(1, 7) X(1, 8)                                                \
    TILES_OF_ROWS(X, 2) TILES_OF_ROWS(X, 3) TILES_OF_ROWS(X, 4)
#define TILES_TO_5(X) TILES_TO_4(X) TILES_OF_ROWS(X, 5)
#define TILES_TO_6(X) TILES_TO_5(X) TILES_OF_ROWS(X, 6)
#define TILES_TO_8(X) TILES_TO_6(X) TILES_OF_ROWS(X, 7) TILES_OF_ROWS(X, 8)
#define TILES_TO_10(X) TILES_TO_8(X) TILES_OF_ROWS(X, 9) TILES_OF_ROWS(X, 10)
#define TILES_TO_12(X) TILES_TO_10(X) TILES_OF_ROWS(X, 11) TILES_OF_ROWS(X, 12)
#define TILES_TO_14(X) TILES_TO_12(X) TILES_OF_ROWS(X, 13) TILES_OF_ROWS(X, 14)
#define TILES_OF_FEW_1(X)
#define TILES_OF_FEW_2(X) X(2, 3) X(2, 4)
#define TILES_OF_FEW_3(X) TILES_OF_FEW_2(X) X(3, 3) X(3, 4)
#define TILES_OF_FEW_6(X) TILES_OF_FEW_3(X) X(4, 4) X(5, 4) X(6, 4)
/* clang-format on */
#define TILES_TO(rows) JOIN(TILES_TO, rows)
#define TILES_OF_FEW(rows) JOIN(TILES_OF_FEW, rows)

#endif
