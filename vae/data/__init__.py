"""Training pictures: what there is (specs), where it comes from (sources, folder, avatars, examples), how it is decoded
once (cache) and served (batches).
"""

from vae.data.batches import augment, batches, binarize
from vae.data.examples import load_examples
from vae.data.sources import load_dataset
from vae.data.specs import DATASETS, Attributes, DatasetSpec, Pictures

__all__ = [
    "DATASETS",
    "Attributes",
    "DatasetSpec",
    "Pictures",
    "augment",
    "batches",
    "binarize",
    "load_dataset",
    "load_examples",
]
