"""A trained network as one ONNX file: for the book's cover, and for programs without PyTorch.

The file takes grey levels as they are stored. Normalisation, padding, views and the mean over
networks are part of its graph, so whoever uses it cannot forget them.
"""

import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cmrseg.augment import rescale
from cmrseg.data import write_bytes
from cmrseg.deploy.onnx_runner import CLEAN, INPUT, OUTPUT
from cmrseg.predict import Ensemble, tta_probabilities


class _EnsembleModule(nn.Module):
    """Grey levels 0 to 255, float32 (N, 1, H, W) -> probabilities (N, 4, H, W)."""

    def __init__(self, ensemble: Ensemble):
        super().__init__()
        self.scale, self.tta, self.models = (
            ensemble.scale,
            ensemble.tta,
            nn.ModuleList(ensemble.models),
        )

    def forward(self, x: Tensor) -> Tensor:
        return tta_probabilities(self.models, self.tta, rescale(x, self.scale))


def export(ensemble: Ensemble, out: Path) -> None:
    """Write what :meth:`cmrseg.predict.Ensemble.probabilities` does as an ONNX file.

    Its input ``image`` is float32 (N, 1, H, W), grey levels 0 to 255 of any number and size; its
    output ``probability`` is float32 (N, 4, H, W). Post-processing (``TTA.postprocess``) is not in
    the graph, but noted in the file for :func:`cmrseg.deploy.onnx_runner.from_onnx`. Weights that
    half precision holds exactly, as those of a file in ``weights/`` are, are stored so.
    """
    import onnx

    dynamic = torch.export.Dim.DYNAMIC
    # It misses torchvision, which nobody asked for.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _EnsembleModule(ensemble).eval(),
            (torch.rand(2, 1, 88, 104) * 255,),
            dynamo=True,
            verbose=False,
            dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            optimize=False,
        )
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # the lines of code it came from, with the paths of this machine
    model.metadata_props.add(key=CLEAN, value="yes" if ensemble.tta.postprocess else "no")
    _halve(model.graph)
    onnx.checker.check_model(model)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, model.SerializeToString())


def _halve(graph) -> None:
    """Store weights in half precision where nothing is lost; the graph begins by widening them."""
    from onnx import TensorProto, helper, numpy_helper

    for place, weights in enumerate(graph.initializer):
        values = numpy_helper.to_array(weights)
        half = values.astype(np.float16)
        if values.dtype == np.float32 and values.size > 16 and np.array_equal(half, values):
            name, stored = weights.name, f"{weights.name}.half"
            graph.initializer[place].CopyFrom(numpy_helper.from_array(half, stored))
            graph.node.insert(0, helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
