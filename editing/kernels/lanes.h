/* Sixteen lanes at a time in the compiler's vector types, so that sums are added in one order on every processor. No
 * multiply and add is contracted (-ffp-contract=off in setup.py).
 */
#ifndef PROSOCIAL_LANES_H
#define PROSOCIAL_LANES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif
#define INLINE static inline __attribute__((always_inline))

enum { LANES = 16, BLOCK = 4096 }; /* fp32 holds the sums of a block well, as long as no square leaves its range */

typedef uint16_t half_lanes __attribute__((vector_size(2 * LANES)));
typedef uint32_t bit_lanes __attribute__((vector_size(4 * LANES)));
typedef float float_lanes __attribute__((vector_size(4 * LANES)));

INLINE float value_of_bf16(uint16_t stored) {
    uint32_t bits = (uint32_t)stored << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE float value_of_f32(float stored) { return stored; }

INLINE float_lanes load_bf16(const uint16_t *stored) {
    half_lanes lanes;
    memcpy(&lanes, stored, sizeof lanes);
    return (float_lanes)(__builtin_convertvector(lanes, bit_lanes) << 16);
}

INLINE float_lanes load_f32(const float *stored) {
    float_lanes lanes;
    memcpy(&lanes, stored, sizeof lanes);
    return lanes;
}

INLINE double total(float_lanes lanes) {
    double sum = 0.0;
    for (int lane = 0; lane < LANES; lane++) sum += lanes[lane];
    return sum;
}

INLINE ptrdiff_t count(bit_lanes lanes) {
    ptrdiff_t sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += lanes[lane];
    return sum;
}

#endif
