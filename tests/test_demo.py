"""What the tabs do, without a page."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from conftest import small_model
from gradio.processing_utils import save_file_to_cache, save_pil_to_cache
from PIL import Image
from torch import Tensor

import app
from vae import VAE, StandardNormal, generate, reconstruct
from vae.attributes import Directions
from vae.demo.border import MAX_QUEUED, check, is_open, keep, keep_pictures, shown
from vae.demo.cache import CACHE
from vae.demo.explore import AXES, axes, describe_point, edit_picture, sliders, turn
from vae.demo.generate import MAX_PICTURES, describe_choices, new_points
from vae.demo.interpolate import GIF_FRAMES, MAX_STEPS, gif, walk
from vae.demo.models import Models
from vae.demo.page import MAX_SEED, in_one_sentence
from vae.demo.reconstruct import GivenBack, give_back
from vae.demo.uploads import MAX_UPLOAD_BYTES, Decoder, read_own_file, read_upload
from vae.generate import latents
from vae.hub import bundled_names
from vae.images import to_pil, to_uint8


@pytest.fixture(autouse=True)
def upload_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that the page reads a visitor's file from."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def sneaker(sneakers: Tensor, tmp_path: Path) -> str:
    to_pil(sneakers[0]).save(tmp_path / "sneaker.png")
    return str(tmp_path / "sneaker.png")


def pixels(picture: Image.Image | None) -> np.ndarray:
    assert picture is not None
    return np.array(picture)


def test_new_points_come_from_the_prior_or_the_class_that_is_asked_for() -> None:
    model = VAE.from_pretrained("mnist")
    assert model.directions is not None
    cases: list[tuple[dict[str, Any], Any]] = [
        ({}, None),
        ({"prior": "standard-normal"}, StandardNormal()),
        ({"where": {"digit": "7"}}, model.directions.prior_where({"digit": "7"})),
    ]
    for options, prior in cases:
        seeds, z = new_points(model, 2, MAX_SEED, 0.8, **options)
        assert seeds == [MAX_SEED, 0]
        assert torch.equal(z, latents(model, seeds, prior=prior, temperature=0.8))
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"prior": "uniform"}, "the prior must be fitted or standard-normal, got 'uniform'"),
        ({"prior": "standard-normal", "where": {"digit": 7}}, "a class has a prior of its own"),
        ({"where": {"digit": "12"}}, "12"),
        ({"where": {"hat": "red"}}, "hat"),
        ({"where": {"digit": [7]}}, "must be names"),
        ({"where": {"digit": None}}, "must be names"),
    ]
    for refused, sentence in refusals:
        with pytest.raises(ValueError, match=sentence):
            new_points(model, 1, 3, 1, **refused)


def test_a_model_without_labels_has_no_class_to_draw(model: VAE, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="knows no classes"):
        new_points(model, 1, 0, 1, where={"digit": 7})
    model.save_pretrained(tmp_path)
    own = {"priors": [{"name": "standard-normal", "label": "N(0, I)", "frechet": None}], "attributes": []}
    assert describe_choices(Models([str(tmp_path)]), str(tmp_path)) == own
    known = describe_choices(Models(["mnist"]), "mnist")
    fitted, normal = known["priors"]
    assert 0 < fitted["frechet"] < normal["frechet"]
    assert known["attributes"] == [{"name": "digit", "values": list("0123456789")}]


@pytest.mark.parametrize(
    ("count", "seed", "temperature"),
    [
        (0, 0, 1.0),
        (MAX_PICTURES + 1, 0, 1.0),
        (2.5, 0, 1.0),
        (None, 0, 1.0),
        (4, -1, 1.0),
        (4, 1e30, 1.0),
        (4, float("nan"), 1.0),
        (4, 0, -0.1),
        (4, 0, float("nan")),
        (4, 0, float("inf")),
        (4, 0, None),
    ],
)
def test_numbers_out_of_range_are_refused(model: VAE, count: int, seed: int, temperature: float) -> None:
    with pytest.raises(ValueError, match=r"must be (a whole number )?from"):
        new_points(model, count, seed, temperature)


def with_directions(model: VAE) -> VAE:
    """Give a model directions of two attributes, which here depend on its latents by chance alone."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(200, model.config.latent_dim, generator=generator)
    labels = torch.stack([torch.randint(3, (200,), generator=generator), (z[:, 0] > 0).long()], dim=1)
    model.directions = Directions.fit(z, labels, {"hair": ("short", "long", "none"), "beard": ("no", "yes")})
    return model


def test_sliders_stand_where_the_picture_is_and_turn_it(model: VAE) -> None:
    with_directions(model)
    assert model.directions is not None
    z = torch.tensor([0.6, 0, 0, 0, 0, 0])
    hair, beard, *others = described = sliders(model, z)
    assert hair[:4] == ("hair", ("short", "long", "none"), 0, 2)
    assert beard == ("beard", ("no", "yes"), 0, 1, 1)
    assert [slider.name for slider in others] == [f"axis {index}" for index in range(1, min(AXES, 6) + 1)]
    assert torch.equal(turn(model, z, described, {"hair": hair.start, "beard": beard.start, "axis 1": 0}), z)
    shaved = turn(model, z, described, {"beard": 0})
    assert sliders(model, shaved)[1].start == 0
    torch.testing.assert_close(shaved, model.directions.edit(z[None], {"beard": 0})[0])
    torch.testing.assert_close(turn(model, z, described, {"axis 2": 2, "beard": 0}), shaved + 2 * axes(model)[1])
    before = pixels(edit_picture(model, None, 5, {}))
    assert np.array_equal(before, to_uint8(generate(model, [5]))[0, 0].numpy())
    assert not np.array_equal(before, pixels(edit_picture(model, None, 5, {"hair": 0, "beard": 0.5})))


def test_a_point_of_a_picture_has_its_posterior_and_one_of_a_seed_has_none(
    model: VAE, sneaker: str, sneakers: Tensor, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "mine")
    models = Models([str(tmp_path / "mine")])
    (name,) = models.names
    point = describe_point(models, name, sneaker, 0, None)
    posterior = model.encode(sneakers[:1])
    torch.testing.assert_close(torch.tensor([point["mean"]]), posterior.mean)
    torch.testing.assert_close(torch.tensor([point["logvar"]]), posterior.logvar)
    assert point["z"] == point["mean"]
    assert np.array_equal(pixels(point["seen"]), to_uint8(sneakers[0])[0].numpy())
    for other in (describe_point(models, name, None, 3, None), describe_point(models, name, sneaker, 0, point)):
        assert not {"mean", "logvar", "seen"} & set(other)


def test_an_attribute_that_is_called_like_an_axis_keeps_its_name(model: VAE) -> None:
    z = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    model.directions = Directions.fit(z, torch.arange(50)[:, None] % 2, {"axis 1": ("no", "yes")})
    names = [slider.name for slider in sliders(model, z[0])]
    assert names[0] == "axis 1"
    assert len(set(names)) == len(names) == 1 + min(AXES, 6)


def test_a_model_without_labels_is_turned_along_its_own_axes(model: VAE, sneaker: str) -> None:
    found = sliders(model, torch.zeros(6))
    assert [slider.name for slider in found] == [f"axis {index}" for index in range(1, min(AXES, 6) + 1)]
    assert {slider.start for slider in found} == {0}
    before = pixels(edit_picture(model, sneaker, 0, {}))
    assert np.array_equal(before, pixels(edit_picture(model, sneaker, 0, {"axis 1": 0})))
    assert not np.array_equal(before, pixels(edit_picture(model, sneaker, 0, {"axis 1": 3})))


def test_a_decoder_that_is_too_much_for_a_browser_stays_here(
    model: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path)
    sent = Models([str(tmp_path)])
    digest = sent.weights(str(tmp_path))
    assert list(sent.sent) == [digest]
    monkeypatch.setattr("vae.demo.models.MAX_SENT_BYTES", 1000)
    kept = Models([str(tmp_path)])
    assert kept.weights(str(tmp_path)) is None
    assert kept.sent == {}


@pytest.mark.parametrize(
    ("positions", "sentence"),
    [
        ({"hat": 1}, "there is no slider 'hat': choose from hair, beard"),
        ({"hair": 2.1}, "hair must be from 0 to 2, got 2.1"),
        ({"hair": "red"}, "hair must be from 0 to 2, got red"),
        ({"hair": None}, "hair must be from 0 to 2, got None"),
        ([1, 2], "positions must be a table"),
    ],
)
def test_turns_that_no_slider_makes_are_refused(model: VAE, positions: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        edit_picture(with_directions(model), None, 0, positions)


def test_a_walk_begins_and_ends_where_it_should(model: VAE, sneaker: str, sneakers: Tensor) -> None:
    start = to_uint8(reconstruct(model, sneakers[:1]))[0, 0].numpy()
    end = to_uint8(generate(model, [9]))[0, 0].numpy()
    here, strip = walk(model, sneaker, 0, None, 9, 0.0, 5, "slerp")
    assert np.abs(pixels(here).astype(int) - start).max() <= 1
    assert strip.size == (5 * 28 + 4, 28)
    assert np.abs(pixels(strip)[:, :28].astype(int) - start).max() <= 1
    assert np.abs(pixels(strip)[:, -28:].astype(int) - end).max() <= 1
    here, _ = walk(model, sneaker, 0, None, 9, 1.0, 2, "lerp")
    assert np.abs(pixels(here).astype(int) - end).max() <= 1


def test_a_gif_goes_there_and_back(model: VAE) -> None:
    a, b = latents(model, [1, 2])
    film = Image.open(io.BytesIO(gif(model, a, b, "slerp")))
    assert (getattr(film, "n_frames", 1), film.size, film.info["loop"]) == (2 * GIF_FRAMES - 2, (252, 252), 0)
    for frame, seed in ((0, 1), (GIF_FRAMES - 1, 2)):
        film.seek(frame)
        shown = np.array(film.convert("L"))[4::9, 4::9].astype(int)
        assert np.abs(shown - to_uint8(generate(model, [seed]))[0, 0].numpy()).max() <= 2
    with pytest.raises(ValueError, match="path must be slerp or lerp"):
        gif(model, a, b, "bezier")  # type: ignore[arg-type]  # what a visitor may send


@pytest.mark.parametrize(
    ("seed", "t", "steps", "path"),
    [
        (-1, 0.5, 5, "lerp"),
        (None, 0.5, 5, "lerp"),
        (0, 1.5, 5, "lerp"),
        (0, float("nan"), 5, "lerp"),
        (0, None, 5, "lerp"),
        (0, 0.5, 1, "lerp"),
        (0, 0.5, MAX_STEPS + 1, "lerp"),
        (0, 0.5, 5, "bezier"),
    ],
)
def test_a_walk_refuses_bad_input(model: VAE, seed: Any, t: Any, steps: int, path: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        walk(model, None, seed, None, 1, t, steps, path)


def uploads() -> dict[str, Image.Image]:
    random = np.random.default_rng(0)
    colours = Image.fromarray(random.integers(0, 256, (300, 200, 4), dtype=np.uint8))
    return {
        "grey.png": colours.convert("L"),
        "rgba.png": colours,
        "16-bit.png": Image.fromarray(random.integers(0, 65536, (50, 60), dtype=np.uint16)),
        "cmyk.jpg": colours.convert("CMYK"),
        "palette.gif": colours.convert("P"),
        "tiny.png": Image.new("1", (1, 1)),
        "wide.webp": Image.new("RGB", (5000, 2), "red"),
    }


@pytest.mark.parametrize("name", uploads())
@pytest.mark.parametrize("channels", [1, 3])
def test_every_upload_survives_every_tab(name: str, channels: int, tmp_path: Path) -> None:
    path = str(tmp_path / name)
    uploads()[name].save(path)
    model = small_model(channels=channels)
    seen, back, facts = give_back(model, path)
    assert pixels(seen).shape[:2] == pixels(back).shape[:2] == (28, 28)
    json.dumps(facts | {"picture": None}, allow_nan=False)
    here, strip = walk(model, path, 0, path, 0, 0.5, 3, "slerp")
    assert here.size == (28, 28)
    assert strip.size == (86, 28)


def test_a_broken_upload_is_a_sentence_on_the_page(model: VAE, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(gr.Error) as caught:
        in_one_sentence(give_back)(model, str(path))
    assert caught.value.message.startswith("Broken.png ")
    assert caught.value.message.endswith(".")
    assert not caught.value.print_exception


def test_models_are_loaded_once_when_first_asked_for(
    model: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []

    def load(folder: Path) -> VAE:
        loads.append(folder.name)
        time.sleep(0.05)  # as long as the others need to find that it isn't there yet
        return model

    for name in ("a", "b"):
        model.save_pretrained(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(VAE, "from_pretrained", load)
    models = Models(["a", "b"])
    assert loads == []
    visitors = [threading.Thread(target=lambda: models["a"]) for _ in range(8)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert loads == ["a"]
    with pytest.raises(ValueError, match="there is no model 'c' here: choose one of a, b"):
        models["c"]


def test_a_model_without_figures_is_told_of_and_has_no_examples(model: VAE, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "mine")
    models = Models([str(tmp_path / "mine")])
    assert models.choices() == [("mine", str(tmp_path / "mine"))]
    assert models.about(models.names[0]) == {
        "title": "mine",
        "data": "",
        "attribution": "",
        "figures": [("Picture", "1 × 28 × 28 numbers"), ("Latent vector", "6 numbers")],
    }
    assert models.examples(models.names[0]) == []


@pytest.mark.parametrize(
    "metrics",
    [
        {"dataset": "../examples/mnist", "test": {"mse": 1e300}},
        {"dataset": "x" * 5000, "test": []},
        {"dataset": ["mnist"], "test": {"mse": "0.1"}},
        {"dataset": "folder", "test": None},
    ],
)
def test_a_strangers_metrics_do_no_harm(model: VAE, tmp_path: Path, metrics: dict) -> None:
    model.save_pretrained(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    models = Models([str(tmp_path)])
    assert models.about(str(tmp_path))["figures"][1:] == [("Latent vector", "6 numbers")]
    assert models.examples(str(tmp_path)) == []


def test_models_of_one_name_are_told_apart(model: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/out", "b/out"):
        model.save_pretrained(name)
    assert Models(["a/out", "b/out"]).choices() == [("a/out", "a/out"), ("b/out", "b/out")]


def test_a_model_that_is_not_there_is_left_out_and_said(model: VAE, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    models = Models(["typo", str(tmp_path)])
    assert models.names == [str(tmp_path)]
    assert "there is no model 'typo'" in models.refused["typo"]
    assert models.notices == [models.refused["typo"]]
    assert Models(["typo"]).names == bundled_names()


def test_a_model_that_the_hub_withholds_for_now_can_be_chosen_later(
    model: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path)

    def no_answer(name: str) -> None:
        raise ConnectionError(f"{name} could not be had: check the network")

    monkeypatch.setattr("vae.demo.models.resolve_model", no_answer)
    models = Models(["somebody/theirs"])
    assert models.names == [*bundled_names(), "somebody/theirs"]
    assert models.notices[0] == "somebody/theirs could not be had: check the network. Choose it again later"
    with pytest.raises(ValueError, match="check the network"):
        models["somebody/theirs"]
    monkeypatch.setattr("vae.demo.models.resolve_model", lambda name: ({}, None))
    monkeypatch.setattr("vae.demo.models.find_model", lambda name: tmp_path)
    with pytest.raises(ValueError, match="check the network"):
        models["somebody/theirs"]  # the Hub isn't asked at every call, which others wait for
    monkeypatch.setattr("vae.demo.models.RETRY_SECONDS", 0.0)
    models._failed.clear()
    assert models["somebody/theirs"].config == model.config


def test_who_waits_for_the_hub_keeps_nobody_else_waiting(model: VAE, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answered = threading.Event(), threading.Event()

    def slow(name: str) -> tuple[dict[str, Any], None]:
        if name == "somebody/theirs":
            asked.set()
            assert answered.wait(60)
            raise ConnectionError("no Hub")
        return {}, None

    models = Models(["mnist"])
    models.names.append("somebody/theirs")
    monkeypatch.setattr("vae.demo.models.resolve_model", slow)

    async def visit() -> None:
        page = app.build(models)
        about = next(function for function in page.fns.values() if function.api_name == "about")
        waiting = [asyncio.create_task(page.process_api(about, ["somebody/theirs"])) for _ in range(5)]
        await asyncio.to_thread(asked.wait, 60)
        assert (await page.process_api(about, ["mnist"]))["data"]
        answered.set()
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, gr.Error)
            assert "No Hub" in str(result)

    asyncio.run(visit())


@pytest.mark.parametrize(
    "front", [None, [], "text", {"models": None}, {"models": 5}, {"models": "somebody/a"}, {"models": [1]}]
)
def test_odd_front_matter_names_no_models(monkeypatch: pytest.MonkeyPatch, front: Any) -> None:
    monkeypatch.delenv("VAE_MODELS", raising=False)
    monkeypatch.setenv("SPACE_ID", "somebody/demo")
    monkeypatch.setattr("app.metadata_load", lambda path: front)
    assert app.find_names(app.AppConfig()) == bundled_names()


def test_what_a_stranger_wrote_is_shown_as_text() -> None:
    def refuse() -> None:
        raise ValueError("unknown config key '<img src=x>'")

    with pytest.raises(gr.Error, match="Unknown config key '&lt;img src=x&gt;'"):
        in_one_sentence(refuse)()


def test_models_are_named_by_the_first_source_that_has_any(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VAE_MODELS", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    assert app.find_names(app.AppConfig()) == bundled_names()
    monkeypatch.setenv("SPACE_ID", "Somebody/demo")
    assert app.find_names(app.AppConfig()) == bundled_names()
    monkeypatch.setattr("app.metadata_load", lambda path: {"models": ["somebody/a", "stranger/b", "somebody/c"]})
    assert app.find_names(app.AppConfig()) == ["somebody/a", "somebody/c"]
    monkeypatch.setenv("VAE_MODELS", "one/model, two/model@v2 mnist")
    assert app.find_names(app.AppConfig()) == ["one/model", "two/model@v2", "mnist"]
    assert app.find_names(app.AppConfig(model=("theirs/own",))) == ["theirs/own"]


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_bundled_models_have_ten_labelled_examples(name: str) -> None:
    examples = Models([name]).examples(name)
    assert len({label for _, label in examples}) == 10
    assert {picture.size for picture, _ in examples} == {(28, 28)}


def test_a_picture_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    """It is the file that gradio would write, and the one that it hands out."""
    picture = Image.new("RGB", (64, 64), "red")
    path = Path(keep(picture))
    assert str(path) == save_file_to_cache(path, str(tmp_path))
    assert str(path) == save_pil_to_cache(picture, str(tmp_path), format="png")
    assert [file.name for file in path.parent.iterdir()] == ["image.png"]
    os.utime(path, (0, 0))
    before = path.stat().st_ino
    assert keep(picture) == str(path)
    assert path.stat().st_ino == before
    assert path.stat().st_mtime > 0  # used now, so that it isn't deleted before it is fetched


def test_examples_of_many_attributes_have_no_label() -> None:
    examples = Models(["avatars"]).examples("avatars")
    assert [(picture.size, label) for picture, label in examples] == [((128, 128), "")] * 10


# --- what hostile visitors send ---


@pytest.fixture(scope="module")
def hostile() -> ModuleType:
    """The benchmark, whose files and calls are used here a few at a time."""
    spec = importlib.util.spec_from_file_location("hostile", Path(__file__).with_name("benchmarks") / "hostile.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["hostile"] = module
    spec.loader.exec_module(module)
    return module


NOT_ON_THE_PAGE = "this picture is not on the page: upload it first"


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture and a FIFO that are none of the page's business."""
    folder = tmp_path_factory.mktemp("outside")
    Image.new("RGB", (9, 9), "red").save(folder / "picture.png")
    os.mkfifo(folder / "pipe")
    return folder


def test_only_files_of_the_upload_folder_are_read(upload_folder: Path, outside: Path) -> None:
    """A FIFO or device, if it were opened to be read, would wait forever."""
    own = upload_folder / "a" / "picture.png"
    own.parent.mkdir()
    own.write_bytes((outside / "picture.png").read_bytes())
    assert read_own_file(str(own)) == own.read_bytes()
    (upload_folder / "link.png").symlink_to(outside / "picture.png")
    (upload_folder / "linked").symlink_to(outside)
    os.mkfifo(upload_folder / "pipe")
    for path in (
        *(str(outside / name) for name in ("picture.png", "pipe", "nothing", "")),
        *(
            str(upload_folder / name)
            for name in ("link.png", "linked/picture.png", "pipe", "a", "", "nothing", "x" * 5000)
        ),
        f"{upload_folder}/../{outside.name}/picture.png",
        f"{upload_folder}-too/picture.png",
        *(
            "/dev/ptmx",
            "/dev/zero",
            "/proc/self/environ",
            "picture.png",
            "",
            "\0",
            "\ud800",
            "http://x/y.png",
            "data:,",
        ),
    ):
        with pytest.raises(ValueError, match=f"^{NOT_ON_THE_PAGE}$"):
            read_own_file(path)


def test_an_upload_folder_behind_a_link_is_the_same(
    upload_folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (upload_folder / "a.png").write_bytes(b"1")
    link = tmp_path_factory.mktemp("links") / "cache"
    link.symlink_to(upload_folder)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(link))
    assert read_own_file(str(link / "a.png")) == read_own_file(str(upload_folder / "a.png")) == b"1"


def test_a_file_that_is_too_large_is_not_read(upload_folder: Path) -> None:
    with (upload_folder / "large.png").open("wb") as file:
        file.truncate(MAX_UPLOAD_BYTES + 1)
    with pytest.raises(ValueError, match="a picture may have at most 20 MB"):
        read_own_file(str(upload_folder / "large.png"))


def test_visitors_files_are_not_decoded_in_this_process(
    upload_folder: Path, sneaker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: Any, **__: Any) -> None:
        pytest.fail("a visitor's file was decoded here")

    expected, _ = read_upload(sneaker)
    CACHE.forget()
    monkeypatch.setattr(Image, "open", decode)
    again, note = read_upload(sneaker)
    assert np.array_equal(pixels(again), pixels(expected))
    assert note is None


def test_a_decoder_that_takes_too_long_or_dies_is_replaced(sneaker: str, hostile: ModuleType) -> None:
    decoder = Decoder(seconds=0.2)
    slow = hostile.png_of(7000, 7000)
    decoder.start()
    with pytest.raises(ValueError, match="could not be decoded in time"):
        decoder.read(lambda: slow, "slow.png", 28)
    decoder.seconds = 60
    data = Path(sneaker).read_bytes
    assert decoder.read(data, "sneaker.png", 28).image.size == (28, 28)
    for process in decoder._processes:
        process.kill()
        process.wait()
    assert decoder.read(data, "sneaker.png", 28).image.size == (28, 28)
    assert "Image" in repr(decoder.read(data, "sneaker.png", 28))
    decoder.close()


def test_a_picture_that_cannot_be_decoded_is_not_tried_at_every_slide(
    model: VAE, upload_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (upload_folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    tries = []
    read = Decoder.read

    def counted(*arguments: Any, **options: Any) -> Any:
        tries.append(arguments)
        return read(*arguments, **options)

    monkeypatch.setattr(Decoder, "read", counted)
    for _ in range(3):
        with pytest.raises(ValueError, match=r"^broken.png could not be read|^broken.png is not a picture"):
            give_back(model, str(upload_folder / "broken.png"), "auto")
    assert len(tries) == 1


def test_a_crowd_before_the_decoder_is_told_so(sneaker: str) -> None:
    decoder = Decoder(waiting=1)
    assert decoder._room.acquire(blocking=False)
    with pytest.raises(ValueError, match="too many visitors are uploading right now: try again in a moment"):
        decoder.read(bytes, "a.png", 28)
    decoder._room.release()


def test_the_decoder_sees_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    decoder = Decoder()
    decoder.start()
    environment = Path(f"/proc/{decoder._processes[0].pid}/environ")
    if environment.exists():
        assert b"hf_secret" not in environment.read_bytes()
    decoder.close()


def tried(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns, or the sentence of its ValueError."""
    try:
        return function(*arguments)
    except ValueError as error:
        return str(error)


def test_mutated_files_are_pictures_or_a_sentence(hostile: ModuleType) -> None:
    decoder, chance = Decoder(seconds=60), random.Random(0)
    read = 0
    for name, data in hostile.files().items():
        for content in (data, hostile.mutated(data, chance), hostile.mutated(data, chance)):
            picture = tried(decoder.read, content.__bytes__, name, 28)
            if isinstance(picture, str):
                assert re.fullmatch(rf"{re.escape(name)} [^\n]+", picture)
            else:
                read += 1
                assert picture.image.mode in ("L", "RGB")
                assert min(picture.image.size) == max(picture.image.size) < 64
    assert read > 30
    decoder.close()


def test_no_input_takes_what_it_should_not(hostile: ModuleType, outside: Path) -> None:
    """Every wrong value, for every kind of input: a sentence of one line and of bounded length, or a harmless value."""
    inputs = (
        gr.Radio([("a", "mnist")], label="Model"),
        gr.Slider(0, 2, label="Temperature"),
        gr.Number(label="Seed", minimum=0, maximum=9),
        gr.Image(label="Original"),
        gr.JSON(label="Positions"),
    )
    harmless = (str, int | float, int | float, str | None, dict | None)
    for component, kind in zip(inputs, harmless, strict=True):
        for value in hostile.wrong_values(outside):
            taken = tried(check, component, value)
            assert isinstance(taken, kind) or (
                isinstance(taken, str) and re.fullmatch(rf"{component.label} must be [^\n]{{,200}}", taken)
            )
            assert not isinstance(taken, bool)
    with pytest.raises(ValueError, match=r"^Model must be one of mnist, got 'm{99}…$"):
        check(inputs[0], "m" * 1_000_000)
    for value in ({"url": "data:image/png;base64,"}, {"path": None, "url": "http://x"}):
        with pytest.raises(ValueError, match=r"^Original must be a picture that was uploaded"):
            check(inputs[3], value)


def test_what_visitors_sent_is_repeated_in_part() -> None:
    assert shown("x" * 10**6) == "'" + "x" * 99 + "…"
    assert shown([1]) == "[1]"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/file=http://127.0.0.1/"),
        ("GET", "/gradio_api/file={cache}/../x"),
        ("HEAD", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/file//etc/passwd"),
        ("GET", "/gradio_api/proxy=http://127.0.0.1/"),
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/vibe-edit"),
        ("POST", "/"),
        ("DELETE", "/gradio_api/upload/../x"),
    ],
)
def test_routes_that_the_page_needs_not_are_closed(upload_folder: Path, method: str, path: str) -> None:
    assert method == "DELETE" or not is_open(method, path.format(cache=upload_folder))
    assert is_open("GET", f"/gradio_api/file={upload_folder}/a/image.png")
    assert is_open("POST", "/gradio_api/queue/join")
    assert is_open("GET", "/")


def test_pictures_are_written_whole_wherever_they_are(upload_folder: Path) -> None:
    picture = Image.new("RGB", (8, 8), "red")
    path = keep(picture)
    assert keep_pictures([(picture, "seed 1"), (picture, None)]) == [(path, "seed 1"), (path, None)]
    assert keep_pictures(gr.update(value=[(picture, "")], visible=True))["value"] == [(path, "")]
    assert keep_pictures(picture) == path
    assert keep_pictures(GivenBack(picture, picture, {"picture": picture})) == (path, path, {"picture": path})
    assert keep_pictures("a.png") == "a.png"


def test_errors_of_events_have_words_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    wrong: list[list[Any]] = [
        [],
        ["mnist"],
        [{"path": "/etc/passwd"}] * 5,
        ["mnist", "x", [], None, 5],
        ["m" * 10**6, 1, 0, 1, "fitted"],
    ]

    async def send() -> None:
        page = app.build(Models(["mnist"]))
        (function,) = (fn for fn in page.fns.values() if fn.api_name == "generate")
        for inputs in wrong:
            with pytest.raises(gr.Error) as caught:
                await page.process_api(function, inputs)
            assert 0 < len(caught.value.message) < 200
            assert not caught.value.print_exception

    asyncio.run(send())
    assert capsys.readouterr().err == ""


def test_a_fault_of_ours_has_words_for_the_visitor_and_a_traceback_for_the_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("x" * 10**6)

    async def send() -> None:
        models = Models(["mnist"])
        monkeypatch.setattr(models, "about", fail)
        page = app.build(models)
        function = next(fn for fn in page.fns.values() if fn.api_name == "about")
        with pytest.raises(gr.Error, match="Something went wrong on this page: try again"):
            await page.process_api(function, ["mnist"])

    asyncio.run(send())
    log = capsys.readouterr().err
    assert "Traceback" in log
    assert max(map(len, log.splitlines())) <= 300


def test_events_that_skip_the_queue_are_bounded_too() -> None:
    async def send() -> None:
        page = app.build(Models(["mnist"]))
        function = next(fn for fn in page.fns.values() if fn.queue is False and fn.fn and fn.inputs)
        async with page._slots, page._slots:  # as if two ran
            waiting = [asyncio.create_task(page.process_api(function, [])) for _ in range(MAX_QUEUED)]
            await asyncio.sleep(0)
            with pytest.raises(gr.Error, match="The page is busy right now: try again in a moment"):
                await page.process_api(function, [])
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert {str(answer) for answer in answers} == {f"'{len(function.inputs)} values are needed here, got 0.'"}

    asyncio.run(send())
