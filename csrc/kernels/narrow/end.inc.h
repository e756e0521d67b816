/* The end of a format's kernels with some instructions: the next ones define these macros again. */
#undef N
#undef NARROW
#undef LOAD
#undef OF_FEW
#undef LOAD_OF_FEW
#undef GROUP
#undef GROUP_BYTES
#undef ARGUMENT_BYTES
#undef HAS_SCALES
#undef OFFSET
#undef IN_PAIRS
#undef PAIRS_OF
#undef NARROW_ROWS
#undef NARROW_FEW
#undef INSTRUCTIONS
#undef RATE
