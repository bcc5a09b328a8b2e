/* Loops over the elements of tensors for which numpy would need many passes. Without this module the package does the
 * same in numpy (`portable.py`).
 *
 * Sixteen lanes at a time in the compiler's vector types, so that sums are added in one order on every processor. No
 * multiply and add is contracted (-ffp-contract=off in setup.py): what is stored equals numpy's bits.
 * Types and lengths of buffers are checked here, everything else by `__init__.py`.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif
#define INLINE static inline __attribute__((always_inline))

enum { LANES = 16, BLOCK = 4096, MOST_BUFFERS = 4 };

typedef uint16_t half_lanes __attribute__((vector_size(2 * LANES)));
typedef uint32_t bit_lanes __attribute__((vector_size(4 * LANES)));
typedef float float_lanes __attribute__((vector_size(4 * LANES)));

/* ---- an edit: out = round(target - c * delta), and what it did ---- */

typedef struct {
    Py_ssize_t n_moving, n_changed;
    double along, delta_square, change_square, target_square, error_square;
} Sums;

typedef struct { /* one lane of a block each; fp32 holds the sums of a block well, as long as no square leaves its range */
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

INLINE float value_of_bf16(uint16_t stored) {
    uint32_t bits = (uint32_t)stored << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE float value_of_f32(float stored) { return stored; }

static double total(float_lanes lanes) {
    double sum = 0.0;
    for (int lane = 0; lane < LANES; lane++) sum += lanes[lane];
    return sum;
}

static Py_ssize_t count(bit_lanes lanes) {
    Py_ssize_t sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += lanes[lane];
    return sum;
}

/* Whether the squares of a block, `n_other` of which are not of zeros, stayed within the range of fp32. */
static int is_safe(double square, Py_ssize_t n_other) {
    return n_other == 0 ? square == 0.0 : square > 1e-25 && square < 1e30;
}

/* Add a block to the sums; where fp32 cannot hold its squares, the caller has to add them in double (returns 0). */
static int add_block(Sums *sums, const BlockSums *block, Py_ssize_t n) {
    Py_ssize_t n_moving = count(block->n_moving), n_changed = count(block->n_changed);
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
        BlockSums *sums, const STORED *target, const float *delta, float coefficient, STORED *out, Py_ssize_t n) {     \
        BlockSums own = {0};                                                                                           \
        STORED_LANES stored;                                                                                           \
        float_lanes step;                                                                                              \
        Py_ssize_t at = 0;                                                                                             \
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
        Sums *sums, const STORED *target, const float *delta, float coefficient, STORED *out, Py_ssize_t n) {          \
        for (Py_ssize_t at = 0; at < n; at += BLOCK) {                                                                 \
            Py_ssize_t here = n - at < BLOCK ? n - at : BLOCK;                                                         \
            BlockSums block;                                                                                           \
            block_##DTYPE(&block, target + at, delta + at, coefficient, out + at, here);                               \
            if (add_block(sums, &block, here)) continue;                                                               \
            for (Py_ssize_t i = at; i < at + here; i++)                                                                \
                add_exactly(sums, value_of_##DTYPE(target[i]), delta[i], coefficient, value_of_##DTYPE(out[i]));       \
        }                                                                                                              \
    }

EDIT_LOOP(bf16, uint16_t, half_lanes)
EDIT_LOOP(f32, float, float_lanes)

/* ---- sparse storage: rising places of the elements that are not zero, and their values ---- */

/* Write the elements from place `at` on to out [n], zeros between; returns how many entries that took, or -1 where the
 * places do not rise from `at` on. */
static Py_ssize_t scatter_entries(
    const int32_t *places, const float *values, Py_ssize_t n_entries, int64_t at, float *out, Py_ssize_t n) {
    int64_t last = at - 1, end = at + n;
    Py_ssize_t entry = 0;
    memset(out, 0, n * sizeof *out);
    for (; entry < n_entries && places[entry] < end; entry++) {
        if (places[entry] <= last) return -1;
        last = places[entry];
        out[last - at] = values[entry];
    }
    return entry;
}

/* ---- a difference, delta = fl32(right - left), and inner products ---- */

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

typedef struct {
    double left_square, product, right_square, delta_square;
} Products;

static int in_range(double square) { return square == 0.0 || (square > 1e-25 && square < 1e30); }

/* The sums of a block are those of fp32 where its squares stay within that range; zeros and tiny numbers are added again
 * in double, since a sum of 0 may be one that went below it. */
#define DIFFERENCE_LOOP(DTYPE, STORED)                                                                                 \
    FOR_EACH_PROCESSOR static void difference_##DTYPE(                                                                 \
        Products *sums, const STORED *left, const STORED *right, float *delta, Py_ssize_t n) {                         \
        for (Py_ssize_t start = 0; start < n; start += BLOCK) {                                                        \
            Py_ssize_t end = n - start < BLOCK ? n : start + BLOCK, at = start;                                        \
            float_lanes ll = {0}, lr = {0}, rr = {0}, dd = {0};                                                        \
            for (; at + LANES <= end; at += LANES) {                                                                   \
                float_lanes l = load_##DTYPE(left + at), r = load_##DTYPE(right + at), d = r - l;                      \
                memcpy(delta + at, &d, sizeof d);                                                                      \
                ll += l * l, lr += l * r, rr += r * r, dd += d * d;                                                    \
            }                                                                                                          \
            Products block = {total(ll), total(lr), total(rr), total(dd)};                                             \
            int safe = block.left_square && in_range(block.left_square) && block.right_square &&                       \
                       in_range(block.right_square) && block.delta_square && in_range(block.delta_square);             \
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
FOR_EACH_PROCESSOR static Py_ssize_t count_in_window(
    const float *delta, Py_ssize_t n, uint32_t low, uint32_t *counts, uint32_t n_counts) {
    Py_ssize_t n_above = 0;
    for (Py_ssize_t start = 0; start < n; start += 2 * LANES) {
        Py_ssize_t end = n - start < 2 * LANES ? n : start + 2 * LANES;
        uint32_t above = 0, inside = 0;
        for (Py_ssize_t at = start; at < end; at++) {
            uint32_t magnitude = magnitude_of(delta[at]);
            above += magnitude >= low + n_counts;
            inside += magnitude - low < n_counts;
        }
        n_above += above;
        if (inside == 0) continue; /* few are in the window */
        for (Py_ssize_t at = start; at < end; at++) {
            uint32_t place = magnitude_of(delta[at]) - low;
            if (place < n_counts) counts[place]++;
        }
    }
    return n_above;
}

/* Keep what is above the threshold, and the first n_ties that equal it; zero the others. Returns how many ties stayed. */
FOR_EACH_PROCESSOR static Py_ssize_t keep_above(
    const float *delta, Py_ssize_t n, uint32_t threshold, Py_ssize_t n_ties, float *out) {
    Py_ssize_t n_kept = 0;
    for (Py_ssize_t start = 0; start < n; start += BLOCK) {
        Py_ssize_t end = n - start < BLOCK ? n : start + BLOCK, n_equal = 0;
        for (Py_ssize_t at = start; at < end; at++) {
            uint32_t magnitude = magnitude_of(delta[at]);
            out[at] = magnitude > threshold ? delta[at] : 0.0f;
            n_equal += magnitude == threshold;
        }
        if (n_equal == 0) continue;
        for (Py_ssize_t at = start; at < end && n_kept < n_ties; at++)
            if (magnitude_of(delta[at]) == threshold) out[at] = delta[at], n_kept++;
    }
    return n_kept;
}

/* Write places and values of the elements that are not zero, the first of which has place `at`; returns their number. */
static Py_ssize_t gather_entries(const float *delta, Py_ssize_t n, int32_t at, int32_t *places, float *values) {
    Py_ssize_t n_entries = 0;
    for (Py_ssize_t i = 0; i < n; i++) { /* without a branch: written over by the next one where it does not count */
        places[n_entries] = at + (int32_t)i;
        values[n_entries] = delta[i];
        n_entries += magnitude_of(delta[i]) != 0;
    }
    return n_entries;
}

/* ---- Python's side ---- */

typedef struct { /* the buffers of a call, released together */
    Py_buffer views[MOST_BUFFERS];
    int n;
} Buffers;

static PyObject *release(Buffers *buffers, PyObject *result) {
    while (buffers->n) PyBuffer_Release(&buffers->views[--buffers->n]);
    return result;
}

/* Take a buffer of n elements (any number where n is -1) of a size. Returns its memory, or NULL with an error set. */
static void *take(Buffers *buffers, PyObject *object, Py_ssize_t itemsize, Py_ssize_t n, int flags) {
    Py_buffer *view = &buffers->views[buffers->n];
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | flags) < 0) return NULL;
    buffers->n++;
    if (view->itemsize == itemsize && (n < 0 || view->len == n * itemsize)) return view->buf ? view->buf : view;
    PyErr_Format(
        PyExc_ValueError, "an array should have %zd elements of %zd bytes, found %zd bytes in elements of %zd", n,
        itemsize, view->len, view->itemsize);
    return NULL;
}

static Py_ssize_t length_of(const Buffers *buffers, int position) {
    return buffers->views[position].len / buffers->views[position].itemsize;
}

static PyObject *edit(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *given_target, *given_delta, *given_out;
    float coefficient;
    int is_bf16;
    Buffers buffers = {.n = 0};
    if (!PyArg_ParseTuple(arguments, "OOfOp", &given_target, &given_delta, &coefficient, &given_out, &is_bf16))
        return NULL;
    Py_ssize_t itemsize = is_bf16 ? 2 : 4;
    float *delta = take(&buffers, given_delta, 4, -1, 0);
    Py_ssize_t n = delta ? length_of(&buffers, 0) : 0;
    void *target = delta ? take(&buffers, given_target, itemsize, n, 0) : NULL;
    void *out = target ? take(&buffers, given_out, itemsize, n, PyBUF_WRITABLE) : NULL;
    if (!out) return release(&buffers, NULL);
    Sums sums = {0};
    Py_BEGIN_ALLOW_THREADS
    if (is_bf16)
        edit_bf16(&sums, target, delta, coefficient, out, n);
    else
        edit_f32(&sums, target, delta, coefficient, out, n);
    Py_END_ALLOW_THREADS
    PyObject *result = Py_BuildValue(
        "nnddddd", sums.n_moving, sums.n_changed, sums.along, sums.delta_square, sums.change_square,
        sums.target_square, sums.error_square);
    return release(&buffers, result);
}

static PyObject *scatter(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *given_places, *given_values, *given_out;
    long long at;
    Buffers buffers = {.n = 0};
    if (!PyArg_ParseTuple(arguments, "OOLO", &given_places, &given_values, &at, &given_out)) return NULL;
    int32_t *places = take(&buffers, given_places, 4, -1, 0);
    Py_ssize_t n_entries = places ? length_of(&buffers, 0) : 0;
    float *values = places ? take(&buffers, given_values, 4, n_entries, 0) : NULL;
    float *out = values ? take(&buffers, given_out, 4, -1, PyBUF_WRITABLE) : NULL;
    if (!out) return release(&buffers, NULL);
    Py_ssize_t n = length_of(&buffers, 2), n_used;
    Py_BEGIN_ALLOW_THREADS
    n_used = scatter_entries(places, values, n_entries, at, out, n);
    Py_END_ALLOW_THREADS
    return release(&buffers, PyLong_FromSsize_t(n_used));
}

static PyObject *gather(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *given_delta, *given_places, *given_values;
    int at;
    Buffers buffers = {.n = 0};
    if (!PyArg_ParseTuple(arguments, "OiOO", &given_delta, &at, &given_places, &given_values)) return NULL;
    float *delta = take(&buffers, given_delta, 4, -1, 0);
    Py_ssize_t n = delta ? length_of(&buffers, 0) : 0, n_entries;
    int32_t *places = delta ? take(&buffers, given_places, 4, n, PyBUF_WRITABLE) : NULL;
    float *values = places ? take(&buffers, given_values, 4, n, PyBUF_WRITABLE) : NULL;
    if (!values) return release(&buffers, NULL);
    Py_BEGIN_ALLOW_THREADS
    n_entries = gather_entries(delta, n, at, places, values);
    Py_END_ALLOW_THREADS
    return release(&buffers, PyLong_FromSsize_t(n_entries));
}

static PyObject *difference(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *given_left, *given_right, *given_delta;
    int is_bf16;
    Buffers buffers = {.n = 0};
    if (!PyArg_ParseTuple(arguments, "OOOp", &given_left, &given_right, &given_delta, &is_bf16)) return NULL;
    float *delta = take(&buffers, given_delta, 4, -1, PyBUF_WRITABLE);
    Py_ssize_t n = delta ? length_of(&buffers, 0) : 0, itemsize = is_bf16 ? 2 : 4;
    void *left = delta ? take(&buffers, given_left, itemsize, n, 0) : NULL;
    void *right = left ? take(&buffers, given_right, itemsize, n, 0) : NULL;
    if (!right) return release(&buffers, NULL);
    Products sums = {0};
    Py_BEGIN_ALLOW_THREADS
    if (is_bf16)
        difference_bf16(&sums, left, right, delta, n);
    else
        difference_f32(&sums, left, right, delta, n);
    Py_END_ALLOW_THREADS
    PyObject *result =
        Py_BuildValue("dddd", sums.left_square, sums.product, sums.right_square, sums.delta_square);
    return release(&buffers, result);
}

static PyObject *count_window(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *given_delta, *given_counts;
    unsigned int low;
    Buffers buffers = {.n = 0};
    if (!PyArg_ParseTuple(arguments, "OIO", &given_delta, &low, &given_counts)) return NULL;
    float *delta = take(&buffers, given_delta, 4, -1, 0);
    uint32_t *counts = delta ? take(&buffers, given_counts, 4, -1, PyBUF_WRITABLE) : NULL;
    if (!counts) return release(&buffers, NULL);
    Py_ssize_t n = length_of(&buffers, 0), n_counts = length_of(&buffers, 1), n_above;
    Py_BEGIN_ALLOW_THREADS
    n_above = count_in_window(delta, n, low, counts, (uint32_t)n_counts);
    Py_END_ALLOW_THREADS
    return release(&buffers, PyLong_FromSsize_t(n_above));
}

static PyObject *keep(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *given_delta, *given_out;
    unsigned int threshold;
    Py_ssize_t n_ties, n_kept;
    Buffers buffers = {.n = 0};
    if (!PyArg_ParseTuple(arguments, "OInO", &given_delta, &threshold, &n_ties, &given_out)) return NULL;
    float *delta = take(&buffers, given_delta, 4, -1, 0);
    Py_ssize_t n = delta ? length_of(&buffers, 0) : 0;
    float *out = delta ? take(&buffers, given_out, 4, n, PyBUF_WRITABLE) : NULL;
    if (!out) return release(&buffers, NULL);
    Py_BEGIN_ALLOW_THREADS
    n_kept = keep_above(delta, n, threshold, n_ties, out);
    Py_END_ALLOW_THREADS
    return release(&buffers, PyLong_FromSsize_t(n_kept));
}

static PyMethodDef methods[] = {
    {"edit", edit, METH_VARARGS, "edit(target, delta, coefficient, out, is_bf16) -> sums"},
    {"scatter", scatter, METH_VARARGS, "scatter(places, values, at, out) -> entries used, -1 where places do not rise"},
    {"gather", gather, METH_VARARGS, "gather(delta, at, places, values) -> number of entries"},
    {"difference", difference, METH_VARARGS, "difference(left, right, delta, is_bf16) -> inner products"},
    {"count_window", count_window, METH_VARARGS, "count_window(delta, low, counts) -> how many are above"},
    {"keep", keep, METH_VARARGS, "keep(delta, threshold, n_ties, out) -> ties kept"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "native", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit_native(void) { return PyModule_Create(&definition); }
