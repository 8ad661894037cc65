"""The networks, one file each: images (N, 1, H, W) -> logits (N, 4, H, W), or coarser.

A file added here is found by itself: its network is the class with a ``name``, by which a
configuration asks for it. A network also says ``multiple`` (what H and W must be multiples of) and
``stride`` (how much coarser its logits are).
"""

import importlib
import inspect
import pkgutil

import torch
from torch import nn


def _find() -> dict[str, type[nn.Module]]:
    networks = {}
    for entry in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{entry.name}")
        for thing in vars(module).values():
            if isinstance(thing, type) and "name" in vars(thing):
                networks[thing.name] = thing
    return networks


MODELS = _find()


def build(config) -> nn.Module:
    """The network that a :class:`cmrseg.config.TrainConfig` describes, freshly initialised.

    Its class gets the fields of the configuration that it has arguments for.

    Raises:
        ValueError: an unknown ``config.model``, or fields that make no network.
    """
    name = config.model
    if name == "unet" and config.skips != "before":  # the report's presets and old records say so
        name = "report-unet"
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}: expected one of {', '.join(MODELS)}")
    network = MODELS[name]
    known = inspect.signature(network).parameters
    return network(**{field: value for field, value in vars(config).items() if field in known})


def multiply_adds(net: nn.Module, shape: tuple[int, ...] = (1, 1, 96, 96)) -> int:
    """Multiply-adds that a network's convolutions take for an input of this shape."""
    from torch.utils.flop_counter import FlopCounterMode  # slow to import, and seldom asked for

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(torch.zeros(shape))
    return counter.get_total_flops() // 2  # it counts both
