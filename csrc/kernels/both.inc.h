/* Includes the file named by the macro BOTH twice, with these macros defined:
 *   real    float  | double
 *   SUFFIX  f32    | f64
 * Such a file is called *.inc.h and writes NAME(f) for a name that exists once per precision. */
#define real float
#define SUFFIX f32
#include BOTH
#undef real
#undef SUFFIX
#define real double
#define SUFFIX f64
#include BOTH
#undef real
#undef SUFFIX
#undef BOTH
