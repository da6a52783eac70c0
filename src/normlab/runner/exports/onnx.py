"""ONNX, which onnxruntime and many others run, and its integers of 8 bits.

import onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
(answers,) = session.run(None, {"input": samples})
"""

import contextlib
import io
import logging
from collections.abc import Callable
from typing import Any

FILE = "model.onnx"
NEEDS = ("onnxscript", "onnxruntime")
QUANTIZED = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # where the time goes; the rest stays float32


def write(source: Any, path: str) -> None:
    """Raises what torch's exporter raises for an operator that ONNX has none for."""
    import torch

    with contextlib.redirect_stdout(io.StringIO()):  # it tells of its steps
        torch.onnx.export(
            source.program, f=path, input_names=["input"], output_names=["output"], external_data=False, verbose=False
        )


def load(path: str, threads: int) -> Callable[[Any], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(samples: Any) -> Any:
        (answers,) = session.run(None, {"input": samples})
        return answers

    return run


def quantize(path: str, target: str, samples: Any) -> None:
    """Writes a file of 8-bit integers: weights by channel, and activations by what they are for `samples`."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([{"input": samples[start : start + 32]} for start in range(0, len(samples), 32)])

        def get_next(self) -> Any:
            return next(self.batches, None)

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises a step that the exporter has done
    try:
        quantization.quantize_static(path, target, Reader(), op_types_to_quantize=[*QUANTIZED], per_channel=True)
    finally:
        logging.disable(before)
