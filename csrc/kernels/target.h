/* TARGET_BEGIN("avx2,fma"): functions up to TARGET_END are compiled for these instructions, whatever instructions the
 * compiler's options allow. */
#ifndef FASTRNN_TARGET_H
#define FASTRNN_TARGET_H

#define FASTRNN_PRAGMA(x) _Pragma(#x)
#if defined(__clang__)
#define TARGET_BEGIN(instructions)                                                                                     \
    FASTRNN_PRAGMA(clang attribute push(__attribute__((target(instructions))), apply_to = function))
#define TARGET_END FASTRNN_PRAGMA(clang attribute pop)
#elif defined(__GNUC__)
#define TARGET_BEGIN(instructions) FASTRNN_PRAGMA(GCC push_options) FASTRNN_PRAGMA(GCC target(instructions))
#define TARGET_END FASTRNN_PRAGMA(GCC pop_options)
#else
#define TARGET_BEGIN(instructions)
#define TARGET_END
#endif

#endif
