"""Training pictures: what there is (specs), where it comes from (sources, folder, avatars, own, examples), how it is
decoded once (cache) and served (batches).
"""

from vae.data.batches import Share, augment, batches, binarize, draw_binary, prefetched, shuffled
from vae.data.examples import load_examples
from vae.data.own import as_pictures, load_hub, split_pictures
from vae.data.sources import load_dataset
from vae.data.specs import DATASETS, HUB, OWN, Attributes, DatasetSpec, Pictures, short_name, spec_of

__all__ = [
    "DATASETS",
    "HUB",
    "OWN",
    "Attributes",
    "DatasetSpec",
    "Pictures",
    "Share",
    "as_pictures",
    "augment",
    "batches",
    "binarize",
    "draw_binary",
    "load_dataset",
    "load_examples",
    "load_hub",
    "prefetched",
    "short_name",
    "shuffled",
    "spec_of",
    "split_pictures",
]
