/* Python's side of the loops over elements for which numpy would need many passes: `edits.h` and `vectors.h`. Without
 * this module the package does the same in numpy (`portable.py`), to the same bits.
 *
 * Lengths of buffers and sizes of their elements are checked here, everything else by the callers (`loops.py` says what
 * each one needs).
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "edits.h"
#include "vectors.h"

enum { MOST_BUFFERS = 4 };

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
