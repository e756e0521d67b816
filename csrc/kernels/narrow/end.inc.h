/* The end of a format's kernels with some instructions: the next ones define these macros again. */
#undef N
#undef NARROW
#undef LOAD
#undef GROUP
#undef GROUP_BYTES
#undef ARGUMENT_BYTES
#undef HAS_SCALES
#undef OFFSET
#undef NARROW_ROWS
#undef NARROW_FEW
#undef INSTRUCTIONS
#undef RATE
