"""What the page makes of pictures as visitors have them: photographed, framed, off centre, dark on white."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import small_model
from PIL import Image, ImageFilter
from torch import Tensor

from vae import VAE, reconstruct
from vae.data import load_examples
from vae.decode import read_picture
from vae.demo.explore import edit_picture
from vae.demo.interpolate import walk
from vae.demo.prepare import habits, prepare, prepare_upload
from vae.demo.reconstruct import compare, give_back
from vae.demo.things import EMPTY, cut_square
from vae.evaluate.features import Classifier, classify, load_classifier
from vae.figures import Figures
from vae.hub import find_model
from vae.images import to_pil, to_unit


@pytest.fixture(scope="module")
def mnist() -> VAE:
    return VAE.from_pretrained("mnist")


@pytest.fixture(scope="module")
def fashion() -> VAE:
    return VAE.from_pretrained("fashion-mnist")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load_classifier("mnist")


def examples(name: str, each: int = 1) -> tuple[Tensor, Tensor]:
    """Return pictures of each class, (10 * each, 1, 28, 28) in [0, 1], and their classes."""
    images, labels, _ = load_examples(name)
    chosen = torch.cat([(labels[:, 0] == label).nonzero()[:each, 0] for label in range(10)])
    return to_unit(images[chosen]), labels[chosen, 0]


# --- as visitors have them -------------------------------------------------------------------------------------------


def ink(x: Tensor, side: int = 280) -> np.ndarray:
    """Enlarge a picture, (1, 28, 28), to an array of side x side in [0, 1]."""
    large = to_pil(x).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(large, dtype=np.float32) / 255


def grey(light: np.ndarray) -> Image.Image:
    return Image.fromarray((255 * light.clip(0, 1)).round().astype(np.uint8))


def put(x: Tensor, height: int, width: int, top: int, left: int, side: int = 280) -> np.ndarray:
    """Draw a picture dark on a white sheet."""
    sheet = np.ones((height, width), dtype=np.float32)
    sheet[top : top + side, left : left + side] -= ink(x, side)
    return sheet


def transparent(x: Tensor, colour: int) -> Image.Image:
    picture = Image.new("RGBA", (280, 280), (colour, colour, colour, 0))
    picture.putalpha(grey(ink(x)))
    return picture


def card(x: Tensor) -> Image.Image:
    """Put a card on a black table."""
    return grey(np.pad(put(x, 280, 280, 0, 0), 25))


def lined(x: Tensor) -> Image.Image:
    """Draw a line around it."""
    sheet = put(x, 330, 330, 25, 25)
    for edge in (slice(12, 18), slice(312, 318)):
        sheet[edge, 12:318] = 0
        sheet[12:318, edge] = 0
    return grey(sheet)


def photograph(x: Tensor) -> Image.Image:
    """Photograph a sheet of paper, with a lamp to one side."""
    lamp = np.linspace(0.55, 0.9, 800)[:, None] * np.linspace(1, 0.85, 600)[None]
    noise = np.random.default_rng(0).normal(0, 0.02, lamp.shape)
    light = lamp * (0.2 + 0.8 * put(x, 800, 600, 200, 120, 320)) + noise
    return grey(light).filter(ImageFilter.GaussianBlur(1)).convert("RGB")


def hairline(x: Tensor) -> Image.Image:
    return Image.fromarray(255 - np.asarray(grey(ink(x, 600)).filter(ImageFilter.MinFilter(15))))


KINDS: dict[str, Callable[[Tensor], Image.Image]] = {
    "dark on white": lambda x: grey(put(x, 280, 280, 0, 0)),
    "dark on white, as small as the model's": lambda x: to_pil(1 - x),
    "small in a corner": lambda x: grey(put(x, 600, 600, 440, 40, 120)),
    "at the left of a wide sheet": lambda x: grey(put(x, 240, 900, 20, 30, 200)),
    "black on nothing": lambda x: transparent(x, 20),
    "white on nothing": lambda x: transparent(x, 255),
    "on a card": card,
    "lined": lined,
    "photographed": photograph,
}


@pytest.mark.parametrize("kind", [*KINDS, "in hairlines"])
def test_digits_come_back_as_the_digits_they_are(kind: str, mnist: VAE, classifier: Classifier) -> None:
    x, digits = examples("mnist")
    make = KINDS.get(kind, hairline)
    prepared = [prepare(mnist, make(picture)) for picture in x]
    seen = torch.stack([each.x for each in prepared])
    assert classify(classifier, reconstruct(mnist, seen))[:, 0].tolist() == digits.tolist()
    assert [bool(each.notes) for each in prepared] == [kind != "white on nothing"] * 10


def test_garments_fill_the_frame_as_the_models_do(fashion: VAE) -> None:
    x, garments = examples("fashion-mnist")
    told = classify(load_classifier("fashion-mnist"), reconstruct(fashion, x))[:, 0]
    known = habits(fashion)
    assert (known.on_black, known.side, known.by_mass) == (True, 28, False)
    for kind in ("small in a corner", "white on nothing", "photographed"):
        seen = torch.stack([prepare(fashion, KINDS[kind](picture)).x for picture in x])
        own = classify(load_classifier("fashion-mnist"), reconstruct(fashion, seen))[:, 0]
        assert (own == garments).sum() >= (told == garments).sum() - 2, kind


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_pictures_of_the_dataset_are_left_as_they_are(name: str, mnist: VAE, fashion: VAE) -> None:
    model = {"mnist": mnist, "fashion-mnist": fashion}[name]
    for picture in examples(name, each=2)[0]:
        for shown, notes in ((picture, ()), (1 - picture, ("light and dark were inverted",))):
            prepared = prepare(model, to_pil(shown))
            torch.testing.assert_close(prepared.x, picture)
            assert (prepared.crop, prepared.notes) == ((0, 0, 1), notes)


def test_what_is_not_light_on_black_is_only_cut_to_a_square() -> None:
    model = small_model(channels=3)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8))
    prepared = prepare(model, picture)
    assert prepared.crop == pytest.approx((0.2, 0, 0.6))
    expected = picture.crop((10, 0, 40, 30)).resize((28, 28), Image.Resampling.HAMMING)
    assert np.abs(np.asarray(to_pil(prepared.x)).astype(int) - np.asarray(expected)).max() <= 1
    torch.testing.assert_close(prepare(model, picture, "yes").x, 1 - prepared.x)
    dark = Image.new("RGBA", (28, 28), (255, 255, 255, 0))
    assert prepare(model, dark).x.min() == 1  # what is transparent is white


# --- through all tabs ------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def upload_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


def kept(picture: Image.Image, folder: Path, name: str = "picture.png") -> str:
    picture.save(folder / name)
    return str(folder / name)


def test_every_tab_prepares_what_it_is_given(mnist: VAE, classifier: Classifier, upload_folder: Path) -> None:
    x, _ = examples("mnist")
    path = kept(card(x[4]), upload_folder)
    shown = [
        give_back(mnist, path).back,
        edit_picture(mnist, path, 0, {}),
        walk(mnist, path, 0, None, 1, 0, 2, "lerp")[0],
    ]
    backs = torch.stack([torch.from_numpy(np.array(each))[None] for each in shown])
    assert classify(classifier, to_unit(backs))[:, 0].tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("L", (280, 280), 255),
        Image.new("L", (28, 28), 0),
        Image.new("RGB", (300, 200), (90, 90, 90)),
        grey(0.7 + np.random.default_rng(0).normal(0, 0.01, (200, 200))),
        grey(np.linspace(0.5, 0.9, 300)[:, None] * np.ones((300, 300))),
        Image.new("RGBA", (50, 50), (0, 0, 0, 0)),
        Image.new("L", (1, 1)),
    ],
    ids=["white", "black", "grey", "grain", "shade", "nothing", "tiny"],
)
def test_an_empty_picture_is_called_so(picture: Image.Image, mnist: VAE, fashion: VAE) -> None:
    for model in (mnist, fashion):
        with pytest.raises(ValueError, match=f"^{EMPTY}$"):
            prepare(model, picture)


def test_a_foreign_picture_is_called_so_and_a_familiar_one_not(mnist: VAE, fashion: VAE, upload_folder: Path) -> None:
    scores = Figures.read(find_model("mnist")).scores
    assert scores is not None
    pictures = examples("mnist", each=3)[0]
    places = [compare(mnist, picture, scores) for picture in pictures]
    assert np.median([place for place, _ in places if place is not None]) == pytest.approx(50, abs=25)
    assert sum(sentence.startswith("Foreign: ") for _, sentence in places) <= 1
    picture = pictures[0]
    assert compare(mnist, picture, None) == (None, "")
    _, _, facts = give_back(mnist, kept(to_pil(torch.rand(1, 28, 28)), upload_folder), scores=scores)
    assert (facts["foreign"], facts["percentile"], facts["sentence"][:9]) == (True, 0, "Foreign: ")
    # The decoder of garments draws digits well, but the encoder puts them where no garment lies.
    scores = Figures.read(find_model("fashion-mnist")).scores
    places = [compare(fashion, picture, scores) for picture in examples("mnist", each=2)[0]]
    assert sum(place is not None and place < 1 for place, _ in places) >= 18
    places = [compare(fashion, picture, scores) for picture in examples("fashion-mnist", each=2)[0]]
    assert sum(place is not None and place < 1 for place, _ in places) <= 1


def test_facts_are_of_the_two_pictures(mnist: VAE, upload_folder: Path) -> None:
    (x, *_), _ = examples("mnist")
    seen, back, facts = give_back(mnist, kept(to_pil(x), upload_folder))
    expected = reconstruct(mnist, x[None])[0]
    assert np.abs(np.array(back).astype(int) - np.array(to_pil(expected))).max() <= 1
    assert np.array_equal(np.array(seen), np.array(to_pil(x)))
    assert facts["psnr"] == pytest.approx(-10 * torch.log10((x - expected).square().mean()).item(), abs=0.02)
    posterior = mnist.encode(x[None])
    torch.testing.assert_close(torch.tensor(facts["mean"]), posterior.mean[0].detach(), atol=1e-4, rtol=0)
    assert sum(facts["kl"]) == pytest.approx(posterior.kl().item(), rel=1e-3)
    assert facts["picture"].size == (28, 28)


# --- what the visitor chooses ----------------------------------------------------------------------------------------


def test_a_visitors_square_is_what_is_seen(mnist: VAE, upload_folder: Path) -> None:
    (x, *_), _ = examples("mnist")
    path = kept(grey(put(x, 280, 560, 0, 280)), upload_folder)
    chosen = prepare_upload(mnist, path, crop={"left": 0.5, "top": 0, "size": 0.5})
    assert chosen.crop == (0.5, 0, 0.5)
    assert (chosen.x - x).abs().mean() < 0.03
    moved = prepare_upload(mnist, path, crop={"left": 0.5, "top": -0.1, "size": 0.5})
    assert moved.x[0, :4].max() == 0  # beyond the picture is ground
    assert torch.equal(prepare_upload(mnist, path, "yes").x, prepare_upload(mnist, path).x)
    assert not torch.equal(prepare_upload(mnist, path, "no").x, prepare_upload(mnist, path).x)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"crop": {"left": 0, "top": 0}}, "the crop must be a table of left, top and size"),
        ({"crop": {"left": "a", "top": 0, "size": 1}}, "must be parts of the picture's width"),
        ({"crop": {"left": float("nan"), "top": 0, "size": 1}}, "must be parts of the picture's width"),
        ({"crop": {"left": [0], "top": 0, "size": 1}}, "must be parts of the picture's width"),
        ({"crop": {"left": 0, "top": 0, "size": 0}}, "the size of the crop must be at least"),
        ({"crop": {"left": 5, "top": 0, "size": 1}}, "the crop lies outside the picture"),
        ({"crop": {"left": -5, "top": -5, "size": 10}}, "the crop is more than 8 times as large as the picture"),
        ({"crop": {"left": -100, "top": 0, "size": 1}}, "the crop lies outside the picture"),
        ({"invert": "maybe"}, "invert must be one of auto, no, yes"),
        ({"values": 5}, "values must be one of auto, full"),
    ],
)
def test_choices_that_are_none_are_refused(
    options: dict[str, Any], sentence: str, mnist: VAE, upload_folder: Path
) -> None:
    (x, *_), _ = examples("mnist")
    path = kept(to_pil(1 - x), upload_folder)
    for model in (mnist, small_model(channels=3)):
        with pytest.raises(ValueError, match=sentence):
            prepare_upload(model, path, **options)


@pytest.mark.parametrize("crop", [(-0.95, 0, 1), (-3, -2, 8), (-7.9, -7.9, 8), (0.9, 0.9, 8), (0.3, 0.3, 0.0625)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_square_that_reaches_far_out_takes_little_memory(
    mnist: VAE, upload_folder: Path, monkeypatch: pytest.MonkeyPatch, channels: int, crop: tuple[float, float, float]
) -> None:
    sizes = []

    def new(mode: str, size: tuple[int, int], *arguments: Any, make: Callable[..., Image.Image] = Image.new) -> Any:
        sizes.append(size)
        return make(mode, size, *arguments)

    path = kept(grey(np.random.default_rng(0).random((700, 700))), upload_folder)
    monkeypatch.setattr(Image, "new", new)
    model = mnist if channels == 1 else small_model(channels=3)
    x = prepare_upload(model, path, crop=dict(zip(("left", "top", "size"), crop, strict=True))).x
    assert x.shape == (channels, model.config.image_size, model.config.image_size)
    assert max(sizes, default=(0, 0)) < (1800, 1800)


def test_a_square_is_cut_out_of_an_endless_ground() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        height, width = random.integers(1, 60, 2)
        picture = Image.fromarray(random.integers(0, 256, (height, width), dtype=np.uint8))
        side = random.uniform(1, 100)
        left, top = (random.uniform(-side, length) for length in (width, height))
        size = int(random.integers(4, 40))
        ground = Image.new("L", (width + 800, height + 800), 50)
        ground.paste(picture, (400, 400))
        box = (left + 400, top + 400, left + side + 400, top + side + 400)
        expected = np.asarray(ground.resize((size, size), Image.Resampling.HAMMING, box), dtype=int)
        cut = np.asarray(cut_square(picture, (left, top, side), size, 50), dtype=int)
        # Where the square ends within the picture's edge, the filter looks beyond on one way, and is cut off on the other.
        is_inside = left >= 0 and top >= 0 and left + side <= width and top + side <= height
        assert np.abs(cut - expected).max() <= (255 if is_inside else 2)


def test_the_range_of_16_bits_can_be_that_of_the_type(upload_folder: Path) -> None:
    model = small_model(channels=3)
    ramp = np.linspace(0, 4095, 40 * 40).reshape(40, 40).astype(np.uint16)  # 12 bits in a file of 16
    path = kept(Image.fromarray(ramp), upload_folder)
    stretched, stored = prepare_upload(model, path, values="auto"), prepare_upload(model, path, values="full")
    assert stretched.x.max() > 0.9
    assert stored.x.max() < 0.1
    assert [len(stretched.notes), len(stored.notes)] == [1, 0]


def test_all_of_a_picture_is_read_with_its_transparency(tmp_path: Path) -> None:
    Image.new("RGBA", (4000, 30), (9, 9, 9, 100)).save(tmp_path / "long.png")
    image, _ = read_picture((tmp_path / "long.png").read_bytes(), side=512, whole=True)
    assert (image.mode, image.size) == ("RGBA", (572, 5))
    numbers = np.arange(4000 * 2, dtype=np.uint16).reshape(2, 4000)
    Image.fromarray(numbers).save(tmp_path / "numbers.png")
    image, _ = read_picture((tmp_path / "numbers.png").read_bytes(), side=512, whole=True)
    assert image.size == (571, 1)
