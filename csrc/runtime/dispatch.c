/* Dispatch: the instruction sets of this build, and those that this processor supports. */
#include "fastrnn.h"
#include "runtime/float_mode.h"
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

void fastrnn_activate(const fastrnn_isa *isa, fastrnn_dtype dtype, fastrnn_function function, ptrdiff_t n,
                      const void *x, void *y)
{
    float_mode before = float_mode_enter();
    if (dtype == FASTRNN_F32)
        isa->f32->activate(function, n, x, y);
    else
        isa->f64->activate(function, n, x, y);
    float_mode_leave(before);
}
