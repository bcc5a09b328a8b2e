/* What makes and stores a harm vector. */
#include "lanes.h"

/* ---- a difference, delta = fl32(right - left), and inner products ---- */

typedef struct {
    double left_square, product, right_square, delta_square;
} Products;

static int in_range(double square) { return square > 1e-25 && square < 1e30; }

/* The sums of a block are those of fp32 where its squares stay within that range; zeros and tiny numbers are added
 * again in double, since a sum of 0 may be one that went below it. */
#define DIFFERENCE_LOOP(DTYPE, STORED)                                                                                 \
    FOR_EACH_PROCESSOR static void difference_##DTYPE(                                                                 \
        Products *sums, const STORED *left, const STORED *right, float *delta, ptrdiff_t n) {                          \
        for (ptrdiff_t start = 0; start < n; start += BLOCK) {                                                         \
            ptrdiff_t end = n - start < BLOCK ? n : start + BLOCK, at = start;                                         \
            float_lanes ll = {0}, lr = {0}, rr = {0}, dd = {0};                                                        \
            for (; at + LANES <= end; at += LANES) {                                                                   \
                float_lanes l = load_##DTYPE(left + at), r = load_##DTYPE(right + at), d = r - l;                      \
                memcpy(delta + at, &d, sizeof d);                                                                      \
                ll += l * l, lr += l * r, rr += r * r, dd += d * d;                                                    \
            }                                                                                                          \
            Products block = {total(ll), total(lr), total(rr), total(dd)};                                             \
            int safe = in_range(block.left_square) && in_range(block.right_square) && in_range(block.delta_square);    \
            if (!safe) {                                                                                               \
                memset(&block, 0, sizeof block);                                                                       \
                at = start;                                                                                            \
            }                                                                                                          \
            for (; at < end; at++) {                                                                                   \
                float l = value_of_##DTYPE(left[at]), r = value_of_##DTYPE(right[at]), d = r - l;                      \
                delta[at] = d;                                                                                         \
                block.left_square += (double)l * l, block.product += (double)l * r;                                    \
                block.right_square += (double)r * r, block.delta_square += (double)d * d;                              \
            }                                                                                                          \
            sums->left_square += block.left_square, sums->product += block.product;                                    \
            sums->right_square += block.right_square, sums->delta_square += block.delta_square;                        \
        }                                                                                                              \
    }

DIFFERENCE_LOOP(bf16, uint16_t)
DIFFERENCE_LOOP(f32, float)

/* ---- magnitudes: the bits of a number without its sign are ordered as the magnitudes are ---- */

INLINE uint32_t magnitude_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits & 0x7FFFFFFFu;
}

/* Count each magnitude of a window that begins at `low`; returns how many are above the window. */
FOR_EACH_PROCESSOR static ptrdiff_t count_in_window(
    const float *delta, ptrdiff_t n, uint32_t low, uint32_t *counts, uint32_t n_counts) {
    ptrdiff_t n_above = 0;
    for (ptrdiff_t start = 0; start < n; start += 2 * LANES) {
        ptrdiff_t end = n - start < 2 * LANES ? n : start + 2 * LANES;
        uint32_t above = 0, inside = 0;
        for (ptrdiff_t at = start; at < end; at++) {
            uint32_t magnitude = magnitude_of(delta[at]);
            above += magnitude >= low + n_counts;
            inside += magnitude - low < n_counts;
        }
        n_above += above;
        if (inside == 0) continue; /* few are in the window */
        for (ptrdiff_t at = start; at < end; at++) {
            uint32_t place = magnitude_of(delta[at]) - low;
            if (place < n_counts) counts[place]++;
        }
    }
    return n_above;
}

/* Keep what is above the threshold, and the first n_ties that equal it; zero the others. Returns how many ties stay. */
FOR_EACH_PROCESSOR static ptrdiff_t keep_above(
    const float *delta, ptrdiff_t n, uint32_t threshold, ptrdiff_t n_ties, float *out) {
    ptrdiff_t n_kept = 0;
    for (ptrdiff_t start = 0; start < n; start += BLOCK) {
        ptrdiff_t end = n - start < BLOCK ? n : start + BLOCK, n_equal = 0;
        for (ptrdiff_t at = start; at < end; at++) {
            uint32_t magnitude = magnitude_of(delta[at]);
            out[at] = magnitude > threshold ? delta[at] : 0.0f;
            n_equal += magnitude == threshold;
        }
        if (n_equal == 0) continue;
        for (ptrdiff_t at = start; at < end && n_kept < n_ties; at++)
            if (magnitude_of(delta[at]) == threshold) out[at] = delta[at], n_kept++;
    }
    return n_kept;
}

/* ---- sparse storage: rising places of the elements that are not zero, and their values ---- */

/* Write the elements from place `at` on to out [n], zeros between; returns how many entries that took, or -1 where the
 * places do not rise from `at` on. */
static ptrdiff_t scatter_entries(
    const int32_t *places, const float *values, ptrdiff_t n_entries, int64_t at, float *out, ptrdiff_t n) {
    int64_t last = at - 1, end = at + n;
    ptrdiff_t entry = 0;
    memset(out, 0, n * sizeof *out);
    for (; entry < n_entries && places[entry] < end; entry++) {
        if (places[entry] <= last) return -1;
        last = places[entry];
        out[last - at] = values[entry];
    }
    return entry;
}

/* Write places and values of the elements that are not zero, the first having place `at`; returns their number. */
static ptrdiff_t gather_entries(const float *delta, ptrdiff_t n, int32_t at, int32_t *places, float *values) {
    ptrdiff_t n_entries = 0;
    for (ptrdiff_t i = 0; i < n; i++) { /* without a branch: written over by the next one where it does not count */
        places[n_entries] = at + (int32_t)i;
        values[n_entries] = delta[i];
        n_entries += magnitude_of(delta[i]) != 0;
    }
    return n_entries;
}
