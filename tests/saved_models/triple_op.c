/* A library of one op that TensorFlow does not have: TensorgateTriple, y = 3 x of floats, by TensorFlow's C API. */

#include <stdint.h>
#include <stdlib.h>

/* The headers mean these as C++ does: as types by their bare names. */
typedef struct TF_OpDefinitionBuilder TF_OpDefinitionBuilder;
typedef struct TF_ShapeInferenceContext TF_ShapeInferenceContext;
typedef struct TF_ShapeHandle TF_ShapeHandle;
typedef struct TF_DimensionHandle TF_DimensionHandle;

#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_status.h"
#include "tensorflow/c/tf_tensor.h"

static void compute(void* kernel, TF_OpKernelContext* context) {
  (void)kernel;
  TF_Status* status = TF_NewStatus();
  TF_Tensor* input = NULL;
  TF_GetInput(context, 0, &input, status);
  if (TF_GetCode(status) == TF_OK) {
    int64_t dims[8];
    int num_dims = TF_NumDims(input);
    for (int i = 0; i < num_dims && i < 8; i++) dims[i] = TF_Dim(input, i);
    size_t size = TF_TensorByteSize(input);
    TF_Tensor* output = TF_AllocateOutput(context, 0, TF_FLOAT, dims, num_dims, size, status);
    if (TF_GetCode(status) == TF_OK) {
      const float* from = (const float*)TF_TensorData(input);
      float* to = (float*)TF_TensorData(output);
      for (size_t i = 0; i < size / sizeof(float); i++) to[i] = 3 * from[i];
      TF_DeleteTensor(output);
    }
    TF_DeleteTensor(input);
  }
  if (TF_GetCode(status) != TF_OK) TF_OpKernelContext_Failure(context, status);
  TF_DeleteStatus(status);
}

static void same_shape(TF_ShapeInferenceContext* context, TF_Status* status) {
  TF_ShapeHandle* shape = TF_NewShapeHandle();
  TF_ShapeInferenceContextGetInput(context, 0, shape, status);
  if (TF_GetCode(status) == TF_OK) TF_ShapeInferenceContextSetOutput(context, 0, shape, status);
  TF_DeleteShapeHandle(shape);
}

__attribute__((constructor)) static void register_op(void) {
  TF_Status* status = TF_NewStatus();
  TF_OpDefinitionBuilder* op = TF_NewOpDefinitionBuilder("TensorgateTriple");
  TF_OpDefinitionBuilderAddInput(op, "x: float");
  TF_OpDefinitionBuilderAddOutput(op, "y: float");
  TF_OpDefinitionBuilderSetShapeInferenceFunction(op, same_shape);
  TF_RegisterOpDefinition(op, status);
  if (TF_GetCode(status) != TF_OK) abort();
  TF_RegisterKernelBuilder("TensorgateTriple", TF_NewKernelBuilder("TensorgateTriple", "CPU", NULL, compute, NULL),
                           status);
  if (TF_GetCode(status) != TF_OK) abort();
  TF_DeleteStatus(status);
}
