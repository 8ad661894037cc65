"""What is run: one experiment, one entry in a module of this package, found by itself."""

import importlib
import pkgutil

from cmrtrial.spec import EXPERIMENTS, POOLED

__all__ = ["EXPERIMENTS", "POOLED"]

# In the order in which `results` lists their experiments; any other module comes after them.
_FIRST = ("recipe", "report", "best", "sprint", "timing")
_NAMES = {module.name for module in pkgutil.iter_modules(__path__)}
for _name in (*_FIRST, *sorted(_NAMES - {*_FIRST})):
    importlib.import_module(f"{__name__}.{_name}")
