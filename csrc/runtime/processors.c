#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "runtime/processors.h"

#include <time.h>

#if defined(_WIN32)
#include <windows.h>
int64_t fastrnn_clock(void)
{
    LARGE_INTEGER frequency, count;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&count);
    return (int64_t)((double)count.QuadPart * 1e9 / (double)frequency.QuadPart);
}
#elif defined(CLOCK_MONOTONIC)
int64_t fastrnn_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
#else
int64_t fastrnn_clock(void)
{
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
#endif

#if defined(__linux__) && !defined(__STDC_NO_THREADS__) && !defined(__STDC_NO_ATOMICS__)
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A prefix of the paths of system files; tests set it to their own folder. */
#if !defined(FASTRNN_ROOT)
#define FASTRNN_ROOT ""
#endif
#define CGROUPS FASTRNN_ROOT "/sys/fs/cgroup"

enum { PATH = 4096 };

/* The number of processors of a quota, rounded up, or `most` without a quota. quota, period: microseconds. */
static int processors_of(double quota, double period, int most)
{
    const double longest = 1e6; /* Linux's maximum */
    if (!(quota > 0 && period > 0 && period <= longest && quota < period * most)) return most;
    const int whole = (int)(quota / period);
    return whole * period < quota ? whole + 1 : whole;
}

/* Reads numbers from a file of a folder. A word that is not a number, such as "max", leaves its number unchanged. */
static int read_numbers(const char *folder, const char *file, double *numbers, int count)
{
    char path[PATH + 64];
    if (snprintf(path, sizeof path, "%s/%s", folder, file) >= (int)sizeof path) return 0;
    FILE *stream = fopen(path, "re"); /* e: close on exec */
    if (!stream) return 0;
    for (int k = 0; k < count; k++) {
        char word[64] = "", *end;
        if (fscanf(stream, "%63s", word) != 1) break;
        const double number = strtod(word, &end);
        if (end > word) numbers[k] = number;
    }
    fclose(stream);
    return 1;
}

/* The least quota of the cgroup at root/path and its ancestors. A namespace may hide the outer cgroups; then `path` may
 * not exist, and only the root's quota is read. */
static int least_quota(const char *root, const char *path, int version, int most)
{
    char folder[PATH];
    const size_t shortest = strlen(root);
    if (snprintf(folder, sizeof folder, "%s%s", root, path) >= (int)sizeof folder) return most;
    for (;;) {
        double numbers[2] = {0, 0};
        if (version == 2)
            read_numbers(folder, "cpu.max", numbers, 2);
        else if (read_numbers(folder, "cpu.cfs_quota_us", numbers, 1))
            read_numbers(folder, "cpu.cfs_period_us", numbers + 1, 1);
        most = processors_of(numbers[0], numbers[1], most);
        char *slash = strrchr(folder, '/');
        if (strlen(folder) <= shortest || !slash) return most;
        *slash = 0;
    }
}

/* The number of processors by the quotas of the process's cgroups, at most `most`. A line of /proc/self/cgroup is
 * "0::/path" for version 2, "4:cpu,cpuacct:/path" for version 1. */
static int quota_of_cgroups(int most)
{
    char line[PATH];
    FILE *stream = fopen(FASTRNN_ROOT "/proc/self/cgroup", "re");
    if (!stream) return most;
    while (fgets(line, sizeof line, stream)) {
        line[strcspn(line, "\n")] = 0;
        char *rest, *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path) continue;
        *names++ = 0;
        *path++ = 0;
        if (!*names) {
            most = least_quota(CGROUPS, path, 2, most);
            most = least_quota(CGROUPS "/unified", path, 2, most);
        } else
            for (char *name = strtok_r(names, ",", &rest); name; name = strtok_r(NULL, ",", &rest))
                if (strcmp(name, "cpu") == 0) { /* usually one is a link to the other */
                    most = least_quota(CGROUPS "/cpu", path, 1, most);
                    most = least_quota(CGROUPS "/cpu,cpuacct", path, 1, most);
                }
    }
    fclose(stream);
    return most > 1 ? most : 1;
}

/* The number of the first hardware thread of each processor's core, plus 1; 0 if not yet read. */
static atomic_int first_thread[CPU_SETSIZE];

static int core_of(int processor)
{
    int first = atomic_load_explicit(&first_thread[processor], memory_order_relaxed);
    if (!first) {
        char folder[96];
        double number = processor;
        snprintf(folder, sizeof folder, FASTRNN_ROOT "/sys/devices/system/cpu/cpu%d/topology", processor);
        if (!read_numbers(folder, "thread_siblings_list", &number, 1)) number = processor; /* "0,64" or "0-1" is 0 */
        first = number >= 0 && number < CPU_SETSIZE ? (int)number + 1 : processor + 1;
        atomic_store_explicit(&first_thread[processor], first, memory_order_relaxed);
    }
    return first - 1;
}

int fastrnn_idle_processors(void)
{
    /* "0.20 0.18 0.12 1/80 11206": averages over time, then the running threads and all threads */
    static atomic_int processors;
    double numbers[4] = {0};
    if (!read_numbers(FASTRNN_ROOT "/proc", "loadavg", numbers, 4) || numbers[3] < 1) return 0;
    int all = atomic_load_explicit(&processors, memory_order_relaxed);
    if (!all) atomic_store_explicit(&processors, all = (int)sysconf(_SC_NPROCESSORS_ONLN), memory_order_relaxed);
    return numbers[3] < all ? all - (int)numbers[3] : 0;
}

/* Reads affinity and quotas if the last values are too old; affinity is cached per thread, quotas per process. */
fastrnn_processors_count fastrnn_count_processors(int64_t now)
{
    enum { UNLIMITED = 1 << 20 };
    const int64_t affinity_for = 10000000, quota_for = 1000000000;
    static atomic_int quota = 0;
    static atomic_llong quota_seen = 0;
    static _Thread_local fastrnn_processors_count count;
    static _Thread_local int64_t seen;
    static _Thread_local cpu_set_t before;

    if (!count.logical || now - seen > affinity_for) {
        cpu_set_t mask;
        if (sched_getaffinity(0, sizeof mask, &mask)) { /* more processors than a mask has, or not allowed */
            const long online = sysconf(_SC_NPROCESSORS_ONLN);
            const int most = online > 0 && online < 1 << 20 ? (int)online : 1;
            count = (fastrnn_processors_count){most, most};
        } else if (!count.logical || !CPU_EQUAL(&mask, &before)) {
            cpu_set_t cores;
            CPU_ZERO(&cores);
            for (int k = 0; k < CPU_SETSIZE; k++)
                if (CPU_ISSET(k, &mask)) CPU_SET(core_of(k), &cores);
            count = (fastrnn_processors_count){CPU_COUNT(&mask), CPU_COUNT(&cores)};
            before = mask;
        }
        seen = now;
    }
    int limit = atomic_load_explicit(&quota, memory_order_relaxed);
    if (!limit || now - atomic_load_explicit(&quota_seen, memory_order_relaxed) > quota_for) {
        atomic_store_explicit(&quota_seen, now, memory_order_relaxed);
        limit = quota_of_cgroups(UNLIMITED);
        atomic_store_explicit(&quota, limit, memory_order_relaxed);
    }
    return (fastrnn_processors_count){count.logical < limit ? count.logical : limit,
                                      count.cores < limit ? count.cores : limit};
}
#else
int fastrnn_idle_processors(void) { return 0; }

#if defined(_WIN32)
fastrnn_processors_count fastrnn_count_processors(int64_t now)
{
    SYSTEM_INFO info;
    (void)now;
    GetSystemInfo(&info);
    const int count = info.dwNumberOfProcessors > 0 ? (int)info.dwNumberOfProcessors : 1;
    return (fastrnn_processors_count){count, count};
}
#elif defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
fastrnn_processors_count fastrnn_count_processors(int64_t now)
{
    (void)now;
#if defined(_SC_NPROCESSORS_ONLN)
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    const int count = online > 0 ? (int)online : 1;
#else
    const int count = 1;
#endif
    return (fastrnn_processors_count){count, count};
}
#else
fastrnn_processors_count fastrnn_count_processors(int64_t now)
{
    (void)now;
    return (fastrnn_processors_count){1, 1};
}
#endif
#endif
