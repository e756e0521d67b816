#include "fastrnn.h"

#include <string.h>

/* Universal hashing in two levels, so that a change of any number of bits at any position is missed only by chance: two
 * different arrays of equal length have the same hash for less than a fraction 2^-55 + bytes / 2^68 of all keys.
 *
 * 1. A block of 64 pairs of words (a, b) becomes the sum of the products (a + k) * (b + l), with separate key
 *    words k and l for each pair (NH, of Black, Halevi, Krawczyk, Krovetz and Rogaway, UMAC, 1999). A change of a is
 *    multiplied by the secret b + l, so that another change cancels it for at most one l of 2^64. The low and the
 *    high halves of the products are added separately, which saves the carry and doubles that number.
 * 2. The sums of the blocks, then the length, are the coefficients of a polynomial, evaluated at a secret point modulo
 *    the prime 2^61 - 1. */
enum { PAIRS = (FASTRNN_KEY_WORDS - 1) / 2, PAIR_BYTES = 16, BLOCK_BYTES = PAIRS * PAIR_BYTES };

/* Unrolled eight times: the branch misprediction at the end of each block of 64 iterations takes a quarter of the time.
 */
#if defined(__GNUC__)
#define UNROLLED _Pragma("GCC unroll 8")
#else
#define UNROLLED
#endif

static const uint64_t prime = (UINT64_C(1) << 61) - 1;

typedef struct {
    uint64_t low, high;
} halves;

static inline halves multiply(uint64_t a, uint64_t b)
{
#ifdef __SIZEOF_INT128__
    __extension__ typedef unsigned __int128 wide;
    const wide product = (wide)a * b;
    return (halves){(uint64_t)product, (uint64_t)(product >> 64)};
#else
    const uint64_t a_low = (uint32_t)a, a_high = a >> 32, b_low = (uint32_t)b, b_high = b >> 32;
    const uint64_t middle = a_high * b_low + (a_low * b_low >> 32);
    const uint64_t other = a_low * b_high + (uint32_t)middle;
    return (halves){a * b, a_high * b_high + (middle >> 32) + (other >> 32)};
#endif
}

static inline halves add_products(halves sum, const uint64_t *key, const unsigned char *data, size_t pairs)
{
    UNROLLED for (size_t i = 0; i < pairs; i++)
    {
        uint64_t word[2];
        memcpy(word, data + i * PAIR_BYTES, PAIR_BYTES);
        const halves product = multiply(word[0] + key[2 * i], word[1] + key[2 * i + 1]);
        sum.low += product.low;
        sum.high += product.high;
    }
    return sum;
}

/* (hash + coefficient) * point modulo the prime, but not fully reduced: below 2^63, if hash is and point < 2^60. */
static inline uint64_t horner(uint64_t hash, uint64_t coefficient, uint64_t point)
{
    const halves product = multiply(hash + (coefficient & prime), point);
    return (product.low & prime) + (product.high << 3 | product.low >> 61);
}

uint64_t fastrnn_fingerprint(const uint64_t key[FASTRNN_KEY_WORDS], const void *data, size_t bytes)
{
    const uint64_t point = key[FASTRNN_KEY_WORDS - 1] >> 4;
    const unsigned char *p = data;
    const halves zero = {0, 0};
    uint64_t hash = 0;
    size_t left = bytes;
    for (; left >= BLOCK_BYTES; left -= BLOCK_BYTES, p += BLOCK_BYTES) {
        const halves sum = add_products(zero, key, p, PAIRS);
        hash = horner(horner(hash, sum.low, point), sum.high, point);
    }
    const size_t pairs = left / PAIR_BYTES;
    halves sum = add_products(zero, key, p, pairs);
    unsigned char tail[PAIR_BYTES] = {0};
    if (left % PAIR_BYTES) memcpy(tail, p + pairs * PAIR_BYTES, left % PAIR_BYTES);
    sum = add_products(sum, key + 2 * pairs, tail, 1);
    return horner(horner(horner(hash, sum.low, point), sum.high, point), bytes, point);
}
