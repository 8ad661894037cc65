"""Running an ONNX file that ``export`` wrote, without PyTorch."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cmrseg.data import BadInput
from cmrseg.machine import cores, in_short, trouble
from cmrseg.postprocess import PROBE_IMAGE, to_labels

INPUT, OUTPUT, CLEAN = "image", "probability", "clean"  # names in the file


def from_onnx(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The network of an ONNX file: a function of images that returns label maps, uint8 (N, H, W).

    It runs on all cores that it may use, or as many as OMP_NUM_THREADS says. Whether the file is
    what was delivered, :func:`cmrseg.deploy.weights.find` has asked before.

    Raises:
        BadInput: not such a network.
    """
    content = path.read_bytes()  # whose own troubles, such as of permission, say what they are
    try:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        asked = os.environ.get("OMP_NUM_THREADS", "")  # onnxruntime does not look
        options.intra_op_num_threads = int(asked) if asked.isdecimal() else cores()
        # Threads that wait should sleep: other programs need the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        notes = session.get_modelmeta().custom_metadata_map

        def probabilities(images: np.ndarray) -> np.ndarray:
            return session.run([OUTPUT], {INPUT: images[:, None].astype(np.float32)})[0]

        tried = probabilities(PROBE_IMAGE)
    except Exception as problem:  # onnxruntime's errors share no class of their own
        if type(problem).__name__ == "InvalidProtobuf":
            raise BadInput(path, "is damaged, or no ONNX file", "Copy or export it again") from None
        _, cure = trouble(problem) or ("", "Give what it was exported from, or update onnxruntime")
        reason = f"can't be run by onnxruntime ({in_short(problem)})"
        raise BadInput(path, reason, cure) from None
    if CLEAN not in notes:
        raise BadInput(path, "is not a network that export wrote", "Give one that it wrote")
    if tried.shape != (1, 4, 32, 48) or not np.isfinite(tried).all():
        raise BadInput(path, "gives no probabilities of four classes", "Export it again")
    return lambda images: to_labels(probabilities(images), notes[CLEAN] == "yes")
