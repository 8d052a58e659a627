"""The package under a name that nobody else uses: `from unvaelievable import VAE`, also beside a script called vae.py.

The wheel installs this file beside the package. Nothing in the project imports it.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path

# Beside this file it lies in an installed wheel. An editable installation has it elsewhere on the path.
_FOLDERS = [str(Path(__file__).parent), *sys.path]
_SPEC = PathFinder.find_spec("vae", [folder for folder in _FOLDERS if Path(folder, "vae", "pretrained.py").is_file()])

if _SPEC is None or _SPEC.loader is None:
    raise ImportError(f"the package vae is not beside {__file__}: install unvaelievable again")
if "vae" not in sys.modules:
    _PACKAGE = importlib.util.module_from_spec(_SPEC)
    sys.modules["vae"] = _PACKAGE  # first: its modules import one another by this name
    try:
        _SPEC.loader.exec_module(_PACKAGE)
    except BaseException:
        del sys.modules["vae"]
        raise
elif not Path(sys.modules["vae"].__file__ or "").samefile(_SPEC.origin or ""):
    raise ImportError(
        f"{sys.modules['vae'].__file__} is imported as vae and is not this package: import unvaelievable first, or "
        "rename that file"
    )

__version__ = sys.modules["vae"].__version__
__all__ = sys.modules["vae"].__all__
globals().update({name: getattr(sys.modules["vae"], name) for name in __all__})
