#include "fastrnn.h"

#include <string.h>

/* Four independent chains of multiply and shift over 8-byte words, so that the multiplier is never waited for. Every
 * step is a bijection of its chain's state: a change of a single word always changes the result of its chain. A change
 * of bit 63 alone goes through the multiplication as it is, and comes out of the shift as two bits, which a change of
 * the next word could take back: with a shift by 32 these would be the signs of two floats, with this one they are a
 * sign and a bit of a fraction. */
uint64_t fastrnn_fingerprint(const void *data, size_t bytes)
{
    const uint64_t odd = UINT64_C(0x9E3779B97F4A7C15); /* 2^64 divided by the golden ratio */
    const unsigned char *p = data;
    uint64_t chain[4] = {1, 2, 3, 4}, word[4];
    size_t left = bytes;
    for (; left >= sizeof word; left -= sizeof word, p += sizeof word) {
        memcpy(word, p, sizeof word);
        for (int k = 0; k < 4; k++) {
            chain[k] = (chain[k] ^ word[k]) * odd;
            chain[k] ^= chain[k] >> 29;
        }
    }
    memset(word, 0, sizeof word);
    if (left) memcpy(word, p, left);
    uint64_t hash = (uint64_t)bytes;
    for (int k = 0; k < 4; k++) {
        hash = (hash ^ chain[k]) * odd;
        hash ^= hash >> 29;
        hash = (hash ^ word[k]) * odd;
        hash ^= hash >> 32;
    }
    return hash;
}
