/* Dispatch: the instruction sets of this build, and those that this processor supports. */
#if defined(__linux__)
#define _GNU_SOURCE
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if !defined(__STDC_NO_ATOMICS__)
#include <stdatomic.h>
#endif
#include <string.h>

#include "fastrnn.h"
#include "kernels/kernels.h"

#ifdef FASTRNN_X86_64
#if defined(_MSC_VER)
#include <intrin.h>
static void cpuid(unsigned leaf, unsigned subleaf, unsigned r[4]) { __cpuidex((int *)r, (int)leaf, (int)subleaf); }
static unsigned long long enabled_registers(void) { return _xgetbv(0); }
#else
#include <cpuid.h>
static void cpuid(unsigned leaf, unsigned subleaf, unsigned r[4])
{
    if (!__get_cpuid_count(leaf, subleaf, &r[0], &r[1], &r[2], &r[3])) r[0] = r[1] = r[2] = r[3] = 0;
}
static unsigned long long enabled_registers(void)
{
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (unsigned long long)high << 32 | low;
}
#endif

/* The processor must have the instructions (CPUID), and the operating system must save their registers (XCR0). */
static int has_avx(unsigned leaf7_ebx_bits, unsigned long long registers)
{
    enum { FMA = 1u << 12, OSXSAVE = 1u << 27, AVX = 1u << 28, EAX = 0, EBX = 1, ECX = 2 };
    unsigned leaf1[4], leaf7[4];
    cpuid(1, 0, leaf1);
    if ((leaf1[ECX] & (FMA | OSXSAVE | AVX)) != (FMA | OSXSAVE | AVX)) return 0;
    if ((enabled_registers() & registers) != registers) return 0;
    cpuid(7, 0, leaf7);
    return (leaf7[EBX] & leaf7_ebx_bits) == leaf7_ebx_bits;
}
static int has_avx2(void) { return has_avx(1u << 5, 0x6); /* AVX2; XMM and YMM registers */ }
static int has_avx512(void)
{
    return has_avx(1u << 5 | 1u << 16, 0xe6); /* AVX2 and AVX512F; also the masks and both halves of ZMM */
}

/* The instructions of narrow formats. */
enum { LEAF7_EAX = 0, LEAF7_EBX = 1, LEAF7_ECX = 2, LEAF7_EDX = 3 };
static int has_bit(unsigned subleaf, int word, int bit)
{
    unsigned r[4];
    cpuid(7, 0, r);
    if (subleaf > r[0]) return 0;
    cpuid(7, subleaf, r);
    return r[word] >> bit & 1;
}
static int has_avx512bw(void) { return has_bit(0, LEAF7_EBX, 30); }
static int has_avx512_vnni(void) { return has_avx512bw() && has_bit(0, LEAF7_ECX, 11); }
static int has_avx_vnni(void) { return has_bit(1, LEAF7_EAX, 4); }
static int has_avx512_bf16(void) { return has_avx512bw() && has_bit(1, LEAF7_EAX, 5) && fastrnn_bfloat16_is_fused(); }
static int has_f16c(void)
{
    unsigned leaf1[4];
    cpuid(1, 0, leaf1);
    return leaf1[2] >> 29 & 1;
}

/* Tiles need the permission of Linux, which is that of the process. */
static int has_amx(void)
{
#if defined(__linux__)
    enum { REQUEST = 0x1023, TILE_DATA = 18 };
    const unsigned long long tiles = 0x60000;
    return has_avx512_vnni() && has_bit(0, LEAF7_EDX, 24) && has_bit(0, LEAF7_EDX, 25) &&
           (enabled_registers() & tiles) == tiles && syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return 0;
#endif
}

/* Whether a product of bfloat16 takes less time than two of floats: not on Intel's processors, where it takes twice as
 * much. */
static int is_amd(void)
{
    unsigned vendor[4];
    cpuid(0, 0, vendor);
    return vendor[1] == 0x68747541; /* "Auth" */
}
#elif defined(FASTRNN_AARCH64)
static int has_dotprod(void)
{
#if defined(__linux__)
    return (getauxval(AT_HWCAP) >> 20) & 1;
#elif defined(__APPLE__)
    return 1;
#else
    return 0;
#endif
}
#endif

static int always(void) { return 1; }

static const struct {
    const fastrnn_isa *isa;
    int (*is_supported)(void);
} built[] = {
    {&fastrnn_isa_generic, always},
#ifdef FASTRNN_X86_64
    {&fastrnn_isa_avx2, has_avx2},
    {&fastrnn_isa_avx512, has_avx512},
#elif defined(FASTRNN_AARCH64)
    {&fastrnn_isa_neon, always},
#endif
};
enum { BUILT = sizeof built / sizeof built[0] };

const fastrnn_isa *fastrnn_isa_at(int index) { return index >= 0 && index < BUILT ? built[index].isa : NULL; }

const char *fastrnn_isa_name(const fastrnn_isa *isa) { return isa->name; }

int fastrnn_isa_is_supported(const fastrnn_isa *isa)
{
    for (int k = 0; k < BUILT; k++)
        if (built[k].isa == isa) return built[k].is_supported();
    return 0;
}

/* Instructions that not every processor of a set has; is_fast: NULL where they are always faster than those after them.
 */
static const struct {
    const char *instructions;
    int (*is_supported)(void), (*is_fast)(void);
} further[] = {
#ifdef FASTRNN_X86_64
    {"amx_int8", has_amx, NULL},
    {"avx512_vnni", has_avx512_vnni, NULL},
    {"avx512bw", has_avx512bw, NULL},
    {"avx512_bf16", has_avx512_bf16, is_amd},
    {"avx_vnni", has_avx_vnni, NULL},
    {"f16c", has_f16c, NULL},
#elif defined(FASTRNN_AARCH64)
    {"dotprod", has_dotprod, NULL},
#endif
    {NULL, NULL, NULL},
};
enum { FURTHER = sizeof further / sizeof further[0] };

fastrnn_format_properties fastrnn_format_at(fastrnn_format format)
{
    const int is_narrow = format > FASTRNN_NATIVE && (int)format < FASTRNN_FORMATS;
    return fastrnn_narrow_layouts[is_narrow ? format : FASTRNN_NATIVE].properties;
}

/* How instructions rank among those of a format. */
enum { UNKNOWN, UNSUPPORTED, FAST, SLOW };
static int find_rank(int k)
{
    if (!further[k].is_supported()) return UNSUPPORTED;
    return further[k].is_fast && !further[k].is_fast() ? SLOW : FAST;
}

/* The rank of further[k], found once: under a hypervisor CPUID takes tens of microseconds, and has_avx512_bf16 computes
 * for a millisecond. Threads that find it at the same time find the same. */
static int rank_at(int k)
{
#if defined(__STDC_NO_ATOMICS__)
    return find_rank(k);
#else
    static atomic_int ranks[FURTHER];
    int rank = atomic_load_explicit(&ranks[k], memory_order_relaxed);
    if (rank == UNKNOWN) atomic_store_explicit(&ranks[k], rank = find_rank(k), memory_order_relaxed);
    return rank;
#endif
}

static int rank_of(const fastrnn_narrow *narrow)
{
    for (int k = 0; further[k].instructions; k++)
        if (strcmp(narrow->instructions, further[k].instructions) == 0) return rank_at(k);
    return FAST; /* every processor of the set has them */
}

static const fastrnn_narrow *narrow_at(const fastrnn_isa *isa, fastrnn_format format, int index)
{
    for (int rank = FAST; rank <= SLOW; rank++)
        for (int k = 0; isa->narrow[k]; k++)
            if (isa->narrow[k]->format == format && rank_of(isa->narrow[k]) == rank && index-- == 0)
                return isa->narrow[k];
    return NULL;
}

const char *fastrnn_narrow_instructions(const fastrnn_isa *isa, fastrnn_format format, int index)
{
    const fastrnn_narrow *narrow = narrow_at(isa, format, index);
    return narrow ? narrow->instructions : NULL;
}

const fastrnn_narrow *fastrnn_find_narrow(const fastrnn_isa *isa, fastrnn_format format, const char *instructions)
{
    const fastrnn_narrow *narrow;
    for (int k = 0; instructions && (narrow = narrow_at(isa, format, k)); k++)
        if (strcmp(narrow->instructions, instructions) == 0) return narrow;
    return narrow_at(isa, format, 0);
}
