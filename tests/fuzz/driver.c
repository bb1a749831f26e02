/* libFuzzer as a Python extension module: it makes the inputs, a Python function takes each.
 *
 * The native modules are compiled with -fsanitize=fuzzer-no-link and report their coverage to the libFuzzer in here, for
 * which this file is loaded before them (LD_PRELOAD). Python code reports too, a counter a line, through the
 * interpreter's trace function.
 *
 * Source: LLVM's libFuzzer documentation ("Using libFuzzer as a library", extra counters); Python's C API.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <frameobject.h>
#include <stdint.h>

#define NUM_COUNTERS 16384

int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*target)(const uint8_t *data, size_t size));

__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t counters[NUM_COUNTERS];
static PyObject *target;

static int trace(PyObject *unused, PyFrameObject *frame, int what, PyObject *argument) {
  if (what == PyTrace_LINE) {
    PyCodeObject *code = PyFrame_GetCode(frame);
    /* Where a code object lies differs from run to run; where it is written does not. */
    size_t place = (size_t)code->co_firstlineno * 2654435761u + (size_t)PyFrame_GetLineNumber(frame) * 40503u;
    counters[place % NUM_COUNTERS]++;
    Py_DECREF(code);
  }
  return 0;
}

static int call(const uint8_t *data, size_t size) {
  PyObject *result = PyObject_CallFunction(target, "y#", (const char *)data, (Py_ssize_t)size);
  if (result == NULL) {
    PyErr_Print();
    abort(); /* libFuzzer keeps the input */
  }
  Py_DECREF(result);
  return 0;
}

static PyObject *run(PyObject *self, PyObject *arguments) {
  PyObject *list;
  int traces, argc;
  char **argv;
  if (!PyArg_ParseTuple(arguments, "O!Op", &PyList_Type, &list, &target, &traces)) return NULL;
  argc = (int)PyList_GET_SIZE(list);
  argv = calloc((size_t)argc + 1, sizeof(char *));
  if (argv == NULL) return PyErr_NoMemory();
  for (int i = 0; i < argc; i++) {
    const char *text = PyUnicode_AsUTF8(PyList_GET_ITEM(list, i));
    if (text == NULL || (argv[i] = strdup(text)) == NULL) return NULL;
  }
  if (traces) PyEval_SetTrace(trace, NULL);
  LLVMFuzzerRunDriver(&argc, &argv, call); /* ends the process */
  Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"run", run, METH_VARARGS, "run(argv, target, traces): libFuzzer's command line; does not return from fuzzing."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "driver", NULL, -1, methods};

PyMODINIT_FUNC PyInit_driver(void) { return PyModule_Create(&module); }
