/* The number of processors that the calling thread may use now. */
#ifndef FASTRNN_PROCESSORS_H
#define FASTRNN_PROCESSORS_H

#include <stdint.h>

/* Nanoseconds of a clock that only runs forward. */
int64_t fastrnn_clock(void);

/* At least 1. Affinity is read again every 10 ms, quotas of the process's cgroup and its ancestors every second.
 * `logical` counts every hardware thread, `cores` counts a core once. */
typedef struct {
    int logical, cores;
} fastrnn_processors_count;
fastrnn_processors_count fastrnn_count_processors(int64_t now);

/* The processors of the system minus its running threads, the calling one included; 0 if that is unknown. Some
 * microseconds. */
int fastrnn_idle_processors(void);

#endif
