#if !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE /* madvise */
#endif
#include "runtime/memory.h"

#include <stdint.h>
#include <stdlib.h>
#if defined(_WIN32)
#include <malloc.h>
#elif defined(__linux__)
#include <sys/mman.h>
#endif

enum { CACHE_LINE = 64, HUGE_PAGE = 2 * 1024 * 1024 };
/* The largest workspace that is kept for the next call. Of those of AddressSanitizer none is, so that each ends where
 * its call says. */
#if defined(__SANITIZE_ADDRESS__)
enum { KEPT_BYTES = 0 };
#else
enum { KEPT_BYTES = 32 * 1024 * 1024 };
#endif

/* a * b, saturated at SIZE_MAX / 2: no block is that large. */
static size_t checked_product(size_t a, size_t b, int *overflow)
{
    if (b != 0 && a > SIZE_MAX / 2 / b) {
        *overflow = 1;
        return SIZE_MAX / 2;
    }
    return a * b;
}

size_t fastrnn_reserve(fastrnn_layout *layout, size_t element, ptrdiff_t a, ptrdiff_t b, ptrdiff_t c)
{
    size_t offset = layout->size;
    size_t bytes = checked_product(element, (size_t)a, &layout->overflow);
    bytes = checked_product(bytes, (size_t)b, &layout->overflow);
    bytes = checked_product(bytes, (size_t)c, &layout->overflow);
    if (bytes > SIZE_MAX / 2 - CACHE_LINE - offset) {
        layout->overflow = 1;
        return 0;
    }
    layout->size = (offset + bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    return offset;
}

void *fastrnn_allocate(const fastrnn_layout *layout)
{
    if (layout->overflow) return NULL;
    size_t alignment = layout->size >= 2 * (size_t)HUGE_PAGE ? HUGE_PAGE : CACHE_LINE;
    size_t size = (layout->size + alignment) / alignment * alignment; /* never 0 */
#if defined(_WIN32)
    return _aligned_malloc(size, alignment);
#else
    void *block = aligned_alloc(alignment, size);
#if defined(MADV_HUGEPAGE)
    if (block && alignment == HUGE_PAGE) madvise(block, size, MADV_HUGEPAGE);
#endif
    return block;
#endif
}

void fastrnn_free(void *block)
{
#if defined(_WIN32)
    _aligned_free(block);
#else
    free(block);
#endif
}

struct fastrnn_workspace {
    void *block;
    size_t size;
};

fastrnn_workspace *fastrnn_workspace_create(void) { return calloc(1, sizeof(fastrnn_workspace)); }

void fastrnn_workspace_free(fastrnn_workspace *workspace)
{
    if (workspace) fastrnn_free(workspace->block);
    free(workspace);
}

void *fastrnn_borrow(fastrnn_workspace *workspace, const fastrnn_layout *layout)
{
    if (!workspace || layout->overflow || layout->size > KEPT_BYTES) return fastrnn_allocate(layout);
    if (!workspace->block || workspace->size < layout->size) {
        fastrnn_free(workspace->block);
        workspace->block = fastrnn_allocate(layout);
        workspace->size = layout->size;
    }
    return workspace->block;
}

void fastrnn_give_back(fastrnn_workspace *workspace, void *block)
{
    if (!workspace || block != workspace->block) fastrnn_free(block);
}
