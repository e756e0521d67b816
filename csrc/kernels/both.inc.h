/* Includes the file that the macro BOTH names, once for each precision: with
 *   real    float  | double
 *   SUFFIX  f32    | f64
 * defined. Such a file is called NAME.inc.h and writes NAME(f) for a name that exists once per precision. */
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
