"""push_to_hub, by the real client, against a Hub on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TOKEN, Client, small_model
from hub_server import Account, Hub, Repo
from safetensors.torch import load
from starlette.requests import Request
from starlette.responses import Response

FASHION = "weights/fashion-mnist"
OURS = "somebody/new"
WHOLE = {"config.json", "model.safetensors", "metrics.json", "samples.png", "curves.png", "README.md"}


@pytest.fixture
def small(tmp_path: Path) -> str:
    """A folder with a model that nothing is known of."""
    small_model().save_pretrained(tmp_path / "small")
    return str(tmp_path / "small")


def card_of(repo: Repo) -> str:
    return repo.files["README.md"].decode()


# --- models ---


def test_one_commit_holds_all_and_comes_back_to_the_bit(hub: Hub, client: Client, tmp_path: Path) -> None:
    address = client("push", FASHION, OURS, token=TOKEN)
    repo = hub.repos[OURS]
    assert address == f"{hub.url}/{OURS}/commit/{repo.sha}"
    whole = WHOLE | {
        "prior.safetensors",
        "latents.safetensors",
        "map.safetensors",
        "generated.png",
    }  # made after training
    assert [commit["paths"] for commit in repo.commits] == [whole]
    for name in whole - {"README.md"}:
        there, here = repo.files[name], Path(FASHION, name).read_bytes()
        if name.endswith(".safetensors"):  # an older one may have other metadata, and tensors that are not used
            assert all(torch.equal(tensor, load(here)[key]) for key, tensor in load(there).items()), name
        else:
            assert there == here, name
    assert f'VAE.from_pretrained("{OURS}")' in card_of(repo)
    assert "![" in card_of(repo)
    assert client("pull", OURS, cache_dir=str(tmp_path)) == client("pull", FASHION)


def test_lfs_takes_what_is_binary(hub: Hub, client: Client) -> None:
    client("push", FASHION, OURS, token=TOKEN)
    asked = any("/info/lfs/" in line for line in hub.log)
    assert asked == hub.uses_lfs


def test_a_model_that_changed_takes_no_figures_along(hub: Hub, client: Client) -> None:
    client("push", FASHION, OURS, change=0.01, token=TOKEN, commit_message="Changed")
    repo = hub.repos[OURS]
    learned = {"prior.safetensors", "latents.safetensors"}
    assert set(repo.files) == {"config.json", "model.safetensors", "samples.png", "README.md"} | learned
    assert repo.commits[0]["message"] == "Changed"
    assert "test pictures |" not in card_of(repo)


def test_a_model_with_another_prior_takes_only_figures_of_its_weights_along(hub: Hub, client: Client) -> None:
    client("push", FASHION, OURS, normal=True, token=TOKEN)
    repo = hub.repos[OURS]
    other = {"latents.safetensors", "map.safetensors"}
    assert set(repo.files) == (WHOLE | other) - {"samples.png"}  # whose caption says that the prior drew them
    assert "on 10,000 test pictures" in card_of(repo)
    assert "fitted prior" not in card_of(repo)
    figures = json.loads(repo.files["metrics.json"])
    assert not {"generation", "priors", "scores"} & set(figures)


def test_a_model_of_which_nothing_is_known_has_a_card_and_pictures(hub: Hub, client: Client, small: str) -> None:
    client("push", small, OURS, token=TOKEN)
    assert set(hub.repos[OURS].files) == {"config.json", "model.safetensors", "samples.png", "README.md"}
    assert "seeds 0 to 31](samples.png)" in card_of(hub.repos[OURS])


def test_what_an_earlier_model_left_goes_and_what_is_not_ours_stays(hub: Hub, client: Client, small: str) -> None:
    client("push", FASHION, OURS, token=TOKEN)
    hub.repos[OURS].files |= {"prior.safetensors": b"of the earlier weights", "notes.txt": b"by hand"}
    client("push", small, OURS, token=TOKEN)
    repo = hub.repos[OURS]
    gone = {
        "metrics.json",
        "curves.png",
        "generated.png",
        "prior.safetensors",
        "latents.safetensors",
        "map.safetensors",
    }
    assert repo.commits[-1]["deleted"] == gone
    assert repo.files["notes.txt"] == b"by hand"


def test_an_organization_keeps_its_name_and_a_private_repo_is_private(hub: Hub, client: Client, small: str) -> None:
    client("push", small, "some-organization/new", token=TOKEN, private=True)
    assert set(hub.repos) == {"somebody/fashion", "some-organization/new"}
    assert hub.repos["some-organization/new"].private


def test_a_revision_and_a_pull_request_leave_main_alone(hub: Hub, client: Client, small: str) -> None:
    hub.repos["another/theirs"] = Repo({"README.md": b"# Theirs"})
    hub.accounts[TOKEN] = Account("somebody")
    assert "/discussions/1" in client("push", small, "another/theirs", token=TOKEN, create_pr=True)
    assert set(hub.repos["another/theirs"].files) == {"README.md"}
    client("push", small, "somebody/fashion", token=TOKEN, revision="v2")
    main, v2 = hub.repos["somebody/fashion"].files, hub.repos["somebody/fashion"].branches["v2"]
    assert main["config.json"] != v2["config.json"] == Path(small, "config.json").read_bytes()


def test_who_may_not_push_is_told(hub: Hub, client: Client, small: str) -> None:
    hub.repos["another/theirs"] = Repo({"README.md": b"# Theirs"})
    hub.accounts["hf_reader"] = Account("somebody", role="read")
    before = {name: dict(repo.files) for name, repo in hub.repos.items()}
    for repo_id, token, sentence in (
        (OURS, None, "needs a token: log in with `hf auth login`, or set HF_TOKEN"),
        (OURS, "hf_unknown", "the Hub doesn't know this token"),
        (OURS, "hf_reader", "this token is read-only"),
        ("somebody/fashion", "hf_reader", "this token is read-only"),
        ("another/theirs", TOKEN, "this token lacks the permission"),
        ("another/new", TOKEN, "this token lacks the permission"),
        ("new", TOKEN, "a repo on the Hub is called owner/name, got 'new'"),
        ("a/b/c", TOKEN, "a repo on the Hub is called owner/name"),
    ):
        assert sentence in client("check_write", repo_id, token=token), repo_id
    for repo_id, token in (
        (OURS, None),
        (OURS, "hf_reader"),
        ("somebody/fashion", "hf_reader"),
        ("another/new", TOKEN),
    ):
        assert "can't be pushed to" in client("push", small, repo_id, token=token)
    assert before == {name: repo.files for name, repo in hub.repos.items()}
    assert client("check_write", OURS, token=TOKEN) is None
    assert client("check_write", "some-organization/new", token=TOKEN) is None


@pytest.mark.parametrize("path", ["/commit/", "/preupload/", "/lfs/", "/cdn/"])
def test_a_push_that_fails_leaves_the_repo_as_it_was(hub: Hub, client: Client, small: str, path: str) -> None:
    if path in ("/lfs/", "/cdn/") and not hub.uses_lfs:
        pytest.skip("nothing is sent as LFS")
    before = dict(hub.repos["somebody/fashion"].files)
    hub.fault = lambda request: Response(None, 413) if path in request.url.path else None
    assert "the Hub answered 413" in client("push", small, "somebody/fashion", token=TOKEN)
    assert hub.repos["somebody/fashion"].files == before
    hub.fault = lambda request: None
    client("push", small, "somebody/fashion", token=TOKEN)
    assert hub.repos["somebody/fashion"].files["config.json"] == Path(small, "config.json").read_bytes()


def test_a_commit_can_go_on_a_pull_request(hub: Hub, client: Client, small: str) -> None:
    client("push", small, "somebody/fashion", token=TOKEN, create_pr=True)
    client("push", FASHION, "somebody/fashion", token=TOKEN, revision="refs/pr/1")
    changed = hub.repos["somebody/fashion"].branches["refs/pr/1"]
    assert changed["config.json"] == Path(FASHION, "config.json").read_bytes()


@pytest.mark.parametrize("answer", ["<html>Log in</html>", "[]", "null", "{}", '{"auth": {"accessToken": null}}'])
def test_what_answers_oddly_is_told(hub: Hub, client: Client, small: str, answer: str) -> None:
    hub.fault = lambda request: Response(answer, media_type="application/json")
    for call in (("check_write", OURS), ("push", small, OURS)):
        refused = client(*call, token=TOKEN)
        assert refused is None or "the server that answered is not a Hub" in refused  # None: no role, no complaint


def test_a_hub_that_says_nothing_is_given_up(hub: Hub, client: Client, small: str) -> None:
    over = threading.Event()

    def hold(request: Request) -> None:
        if "/commit/" in request.url.path:
            over.wait()

    hub.fault = hold
    assert "the Hub can't be reached" in client("impatiently", "push", small, OURS, token=TOKEN)
    over.set()


def test_when_xet_cannot_be_had_the_push_fails_in_one_sentence(hub: Hub, client: Client, small: str) -> None:
    if hub.uses_lfs:
        pytest.skip("Xet is off")
    hub.uses_lfs = True  # now the client asks for its Xet storage, which this Hub hasn't
    assert "somebody/new can't be pushed to" in client("push", small, OURS, token=TOKEN)
    assert hub.repos[OURS].files == {}


# --- training and pushing ---


def start_training(hub: Hub, tmp_path: Path, *options: str, token: str = TOKEN) -> subprocess.Popen[str]:
    """Run train.py on 48 small pictures, for two seconds or so."""
    environment: dict[str, Any] = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": token}
    data = ["--dataset", "folder", "--data-dir", str(tmp_path / "pictures"), "--image-size", "16", "--channels", "1"]
    small = ["--width", "4", "--depth", "1", "--latent-dim", "4", "--epochs", "10", "--batch-size", "10"]
    return subprocess.Popen(
        [sys.executable, "train.py", *data, *small, "--output", str(tmp_path / "out"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment | {"HF_HUB_DISABLE_XET": "1"},
    )


def train(hub: Hub, tmp_path: Path, *options: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    """Run train.py to its end."""
    process = start_training(hub, tmp_path, *options, token=token)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def pictures(tmp_path: Path, sneakers: Any) -> None:
    from vae.images import to_pil

    (tmp_path / "pictures").mkdir()
    for index, picture in enumerate([*sneakers, *sneakers.flip(-1)]):
        to_pil(picture).save(tmp_path / "pictures" / f"{index}.png")


@pytest.mark.usefixtures("pictures")
def test_what_was_trained_is_pushed_and_pulled(hub: Hub, tmp_path: Path) -> None:
    done = train(hub, tmp_path, "--push-to-hub", OURS, "--private")
    assert done.returncode == 0, done.stderr
    repo = hub.repos[OURS]
    assert f"pushed: {hub.url}/{OURS}/commit/{repo.sha}" in done.stdout
    assert set(repo.files) == WHOLE
    assert repo.private
    assert len(repo.commits) == 1
    assert TOKEN not in done.stdout + done.stderr + "".join(map(repr, repo.files.values()))
    other = Client(hub.url, tmp_path / "empty", HF_TOKEN=TOKEN)
    assert other("pull", OURS) == other("pull", str(tmp_path / "out"))
    other.close()


@pytest.mark.usefixtures("pictures")
def test_a_push_that_fails_at_the_end_loses_nothing(hub: Hub, tmp_path: Path) -> None:
    def fail(request: Request) -> Response | None:
        return Response(None, 413) if "/commit/" in request.url.path else None

    hub.fault = fail
    done = train(hub, tmp_path, "--push-to-hub", OURS)
    assert done.returncode == 1
    assert "the Hub answered 413" in done.stderr
    assert "Traceback" not in done.stderr
    again = done.stderr.partition("to try again: python train.py ")[2].split()
    assert again == ["--push-only", str(tmp_path / "out"), "--push-to-hub", OURS]
    assert (tmp_path / "out" / "model.safetensors").is_file()
    hub.fault = lambda request: None
    done = train(hub, tmp_path, *again)
    assert done.returncode == 0, done.stderr
    assert set(hub.repos[OURS].files) == WHOLE
    assert json.loads(hub.repos[OURS].files["metrics.json"])["dataset"]["name"] == "folder"


@pytest.mark.usefixtures("pictures")
def test_nobody_trains_for_a_push_that_will_be_refused(hub: Hub, tmp_path: Path) -> None:
    hub.accounts["hf_reader"] = Account("somebody", role="read")
    for token, repo_id, sentence in (
        ("hf_reader", OURS, "this token is read-only"),
        (TOKEN, "another/new", "this token lacks the permission"),
    ):
        done = train(hub, tmp_path, "--push-to-hub", repo_id, token=token)
        assert done.returncode == 1
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out" / "model.safetensors").exists()
    hub.repos["weights/typo"] = Repo(dict(hub.repos["somebody/fashion"].files))
    hub.log.clear()
    done = train(hub, tmp_path, "--push-only", "weights/typo", "--push-to-hub", OURS)
    assert done.returncode == 1
    assert "there is no model 'weights/typo'" in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.log == []


@pytest.mark.usefixtures("pictures")
def test_an_interrupted_push_says_how_to_go_on(hub: Hub, tmp_path: Path) -> None:
    over = threading.Event()

    def interrupt(request: Request) -> None:
        if "/commit/" in request.url.path:
            process.send_signal(signal.SIGINT)
            while not over.wait(20):  # Python drops an interrupt that comes while it collects garbage
                process.send_signal(signal.SIGINT)

    hub.fault = interrupt
    process = start_training(hub, tmp_path, "--push-to-hub", OURS)
    _, said = process.communicate(timeout=120)
    over.set()
    assert process.returncode == 1
    assert "stopped while pushing" in said, said
    assert f"--push-only {tmp_path / 'out'} --push-to-hub {OURS}" in said
    assert "Traceback" not in said
