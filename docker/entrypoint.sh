#!/bin/sh
# What the image runs: the server on the ports of TensorFlow Serving's image, for the model of its two variables. More
# flags may follow, and of a flag that is given twice the last one counts; so a --model_config_file takes the model's place.
exec tensorflow_model_server --port=8500 --rest_api_port=8501 --model_name="${MODEL_NAME}" \
  --model_base_path="${MODEL_BASE_PATH}/${MODEL_NAME}" "$@"
