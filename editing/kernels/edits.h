/* An edit: out = round(target - c * delta), two roundings in fp32 and one to the dtype, and what it did. */
#include "lanes.h"

typedef struct {
    ptrdiff_t n_moving, n_changed;
    double along, delta_square, change_square, target_square, error_square;
} Sums;

typedef struct { /* a lane each */
    bit_lanes n_moving, n_changed;
    float_lanes along, delta_square, change_square, target_square, error_square;
} BlockSums;

/* 1 where bits are set; compilers make single steps of a comparison of so many lanes. */
INLINE bit_lanes is_other(bit_lanes bits) { return (bits | (0u - bits)) >> 31; }

INLINE void add_lanes(BlockSums *sums, float_lanes target, float_lanes delta, float_lanes product, float_lanes out) {
    float_lanes change = out - target, error = change + product;
    sums->n_moving += is_other((bit_lanes)delta & 0x7FFFFFFFu);
    sums->along += change * delta;
    sums->delta_square += delta * delta;
    sums->change_square += change * change;
    sums->target_square += target * target;
    sums->error_square += error * error;
}

/* To nearest, ties to even; the bits of the result in fp32. */
INLINE bit_lanes round_to_bf16(float_lanes value) {
    bit_lanes bits = (bit_lanes)value;
    return (bits + 0x7FFFu + ((bits >> 16) & 1u)) & 0xFFFF0000u;
}

INLINE half_lanes subtract_bf16(BlockSums *sums, half_lanes stored, float_lanes delta, float coefficient) {
    bit_lanes bits = __builtin_convertvector(stored, bit_lanes) << 16;
    float_lanes target = (float_lanes)bits, product = delta * coefficient;
    bit_lanes rounded = round_to_bf16(target - product);
    sums->n_changed += is_other(rounded ^ bits);
    add_lanes(sums, target, delta, product, (float_lanes)rounded);
    return __builtin_convertvector(rounded >> 16, half_lanes);
}

INLINE float_lanes subtract_f32(BlockSums *sums, float_lanes target, float_lanes delta, float coefficient) {
    float_lanes product = delta * coefficient, out = target - product;
    sums->n_changed += is_other((bit_lanes)out ^ (bit_lanes)target);
    add_lanes(sums, target, delta, product, out);
    return out;
}

/* Whether the squares of a block, `n_other` of which are not of zeros, stayed within the range of fp32. */
static int is_safe(double square, ptrdiff_t n_other) {
    return n_other == 0 ? square == 0.0 : square > 1e-25 && square < 1e30;
}

/* Add a block to the sums; where fp32 cannot hold its squares, the caller has to add them in double (returns 0). */
static int add_block(Sums *sums, const BlockSums *block, ptrdiff_t n) {
    ptrdiff_t n_moving = count(block->n_moving), n_changed = count(block->n_changed);
    double delta_square = total(block->delta_square), change_square = total(block->change_square);
    double target_square = total(block->target_square);
    sums->n_moving += n_moving;
    sums->n_changed += n_changed;
    if (!is_safe(delta_square, n_moving) || !is_safe(change_square, n_changed) || !is_safe(target_square, n)) return 0;
    sums->along += total(block->along);
    sums->delta_square += delta_square;
    sums->change_square += change_square;
    sums->target_square += target_square;
    sums->error_square += total(block->error_square);
    return 1;
}

static void add_exactly(Sums *sums, float target, float delta, float coefficient, float out) {
    float product = delta * coefficient;
    double change = out - target, error = out - target + product;
    sums->along += change * delta;
    sums->delta_square += (double)delta * delta;
    sums->change_square += change * change;
    sums->target_square += (double)target * target;
    sums->error_square += error * error;
}

/* The last lanes are padded with zeros, which add nothing. `out` must not overlap `target`. */
#define EDIT_LOOP(DTYPE, STORED, STORED_LANES)                                                                         \
    FOR_EACH_PROCESSOR static void block_##DTYPE(                                                                      \
        BlockSums *sums, const STORED *target, const float *delta, float coefficient, STORED *out, ptrdiff_t n) {      \
        BlockSums own = {0};                                                                                           \
        STORED_LANES stored;                                                                                           \
        float_lanes step;                                                                                              \
        ptrdiff_t at = 0;                                                                                              \
        for (; at + LANES <= n; at += LANES) {                                                                         \
            memcpy(&stored, target + at, sizeof stored);                                                               \
            memcpy(&step, delta + at, sizeof step);                                                                    \
            stored = subtract_##DTYPE(&own, stored, step, coefficient);                                                \
            memcpy(out + at, &stored, sizeof stored);                                                                  \
        }                                                                                                              \
        if (at < n) {                                                                                                  \
            memset(&stored, 0, sizeof stored);                                                                         \
            memset(&step, 0, sizeof step);                                                                             \
            memcpy(&stored, target + at, (n - at) * sizeof(STORED));                                                   \
            memcpy(&step, delta + at, (n - at) * sizeof(float));                                                       \
            stored = subtract_##DTYPE(&own, stored, step, coefficient);                                                \
            memcpy(out + at, &stored, (n - at) * sizeof(STORED));                                                      \
        }                                                                                                              \
        *sums = own;                                                                                                   \
    }                                                                                                                  \
    static void edit_##DTYPE(                                                                                          \
        Sums *sums, const STORED *target, const float *delta, float coefficient, STORED *out, ptrdiff_t n) {           \
        for (ptrdiff_t at = 0; at < n; at += BLOCK) {                                                                  \
            ptrdiff_t here = n - at < BLOCK ? n - at : BLOCK;                                                          \
            BlockSums block;                                                                                           \
            block_##DTYPE(&block, target + at, delta + at, coefficient, out + at, here);                               \
            if (add_block(sums, &block, here)) continue;                                                               \
            for (ptrdiff_t i = at; i < at + here; i++)                                                                 \
                add_exactly(sums, value_of_##DTYPE(target[i]), delta[i], coefficient, value_of_##DTYPE(out[i]));       \
        }                                                                                                              \
    }

EDIT_LOOP(bf16, uint16_t, half_lanes)
EDIT_LOOP(f32, float, float_lanes)
