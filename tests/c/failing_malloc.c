/* Makes allocations fail, for tests/failing_allocations.py. Loaded before the C library (LD_PRELOAD), it stands in
 * front of glibc's malloc: it counts the allocations of one library, and can make one of them fail. With the handler
 * below, this includes NumPy's allocations of arrays. All other allocations are passed on. */
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *block);

enum { BLOCKS = 1 << 16 };

static atomic_flag busy = ATOMIC_FLAG_INIT;
static uintptr_t watched_from, watched_to;
static void *blocks[BLOCKS];
static long live, seen, failing;

static void lock(void)
{
    while (atomic_flag_test_and_set_explicit(&busy, memory_order_acquire)) {
    }
}
static void unlock(void) { atomic_flag_clear_explicit(&busy, memory_order_release); }

/* The library's code lies between these addresses. */
void faults_watch(uintptr_t from, uintptr_t to) { watched_from = from, watched_to = to; }

/* The n-th allocation from now on fails; none for 0. Returns how many there have been since the last call. */
long faults_fail(long n)
{
    lock();
    const long before = seen;
    seen = 0, failing = n;
    unlock();
    return before;
}

/* Blocks that have not been freed. */
long faults_live(void) { return live; }

static int fails(void)
{
    lock();
    const int this_one = ++seen == failing;
    unlock();
    return this_one;
}

static void *counted(void *block)
{
    if (!block) return NULL;
    lock();
    if (live == BLOCKS) abort();
    blocks[live++] = block;
    unlock();
    return block;
}

static void forget(void *block)
{
    lock();
    for (long k = live - 1; k >= 0; k--)
        if (blocks[k] == block) {
            blocks[k] = blocks[--live];
            break;
        }
    unlock();
}

#define IS_WATCHED(caller) (watched_from <= (uintptr_t)(caller) && (uintptr_t)(caller) < watched_to)
#define ALLOCATE(is_watched, allocation) (!(is_watched) ? (allocation) : fails() ? NULL : counted(allocation))
#define CALLED_BY_WATCHED IS_WATCHED(__builtin_return_address(0))

void *malloc(size_t size) { return ALLOCATE(CALLED_BY_WATCHED, __libc_malloc(size)); }
void *calloc(size_t count, size_t size) { return ALLOCATE(CALLED_BY_WATCHED, __libc_calloc(count, size)); }
void *aligned_alloc(size_t alignment, size_t size)
{
    return ALLOCATE(CALLED_BY_WATCHED, __libc_memalign(alignment, size));
}
void free(void *block)
{
    if (block && live) forget(block);
    __libc_free(block);
}

/* NumPy's PyDataMem_Handler, version 1, of its public ndarraytypes.h. */
static void *numpy_malloc(void *context, size_t size)
{
    (void)context;
    return ALLOCATE(1, __libc_malloc(size));
}
static void *numpy_calloc(void *context, size_t count, size_t size)
{
    (void)context;
    return ALLOCATE(1, __libc_calloc(count, size));
}
static void *numpy_realloc(void *context, void *block, size_t size)
{
    (void)context;
    if (fails()) return NULL;
    void *other = __libc_realloc(block, size);
    if (block && other) forget(block);
    return counted(other);
}
static void numpy_free(void *context, void *block, size_t size)
{
    (void)context, (void)size;
    free(block);
}

struct {
    char name[127];
    uint8_t version;
    void *context;
    void *(*malloc)(void *, size_t);
    void *(*calloc)(void *, size_t, size_t);
    void *(*realloc)(void *, void *, size_t);
    void (*free)(void *, void *, size_t);
} faults_numpy_handler = {"faults", 1, NULL, numpy_malloc, numpy_calloc, numpy_realloc, numpy_free};
