"""Put the demo on the Hub as a Space: python -m vae.space owner/demo [--model owner/name ...]"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from huggingface_hub import RepoCard

from vae.files import CARD, LEARN
from vae.hub import PUSHED, ROOT, bundled_names, push_files

SPACE = ("app.py", "requirements.txt", CARD, "LICENSE")  # and the package, and the bundled models
SUFFIXES = (".py", ".js", ".css", ".md", ".png", ".json", ".safetensors")  # of the package's files


def push_space(
    repo_id: str, *, models: Sequence[str] = (), private: bool | None = None, token: str | None = None
) -> str:
    """Put the demo on the Hub as a Space, with what it needs and nothing else, and return the address of the commit.

    models: repos of the Space's owner (owner/name) that the page shows; by default the bundled models.
    """
    owner = repo_id.partition("/")[0]
    for name in models:
        if not re.fullmatch(rf"{re.escape(owner)}/[\w.-]+", name):
            raise ValueError(f"a Space shows models of its own owner, {owner}/..., got {name!r}")
    return push_files(
        space_files(models), repo_id, private=private, token=token, space=True, commit_message="Upload the demo"
    )


def space_files(models: Sequence[str] = ()) -> dict[str, bytes]:
    """Read what a Space needs, by path: the app, the package and the bundled models."""
    if not all((ROOT / name).is_file() for name in SPACE):
        raise ValueError("the files of the Space are in a checkout of the project: run this in one")
    paths = [ROOT / name for name in SPACE]
    paths += [path for path in (ROOT / "vae").rglob("*") if path.suffix in SUFFIXES]
    paths += [ROOT / "weights" / name / file for name in bundled_names() for file in (*PUSHED, CARD)]
    paths += [path for path in (ROOT / "weights" / LEARN).rglob("*") if path.suffix in SUFFIXES]
    files = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths if path.is_file()}
    if models:
        card = RepoCard(files[CARD].decode())
        card.data["models"] = list(models)
        files[CARD] = str(card).encode()
    return files


def main(repo_id: str, model: tuple[str, ...] = (), private: bool = False) -> None:
    """Put the demo on the Hub as a Space.

    Args:
        repo_id: Where to, owner/name; it is created if it isn't there.
        model: A repo of the same owner (owner/name) that the page shows; give it several times for several. By default
            the bundled models.
        private: Let nobody else see it, if it is created.
    """
    print(push_space(repo_id, models=model, private=private or None))


if __name__ == "__main__":
    import tyro

    try:
        tyro.cli(main, prog="python -m vae.space", config=(tyro.conf.PositionalRequiredArgs, tyro.conf.UseAppendAction))
    except (ValueError, OSError) as error:
        sys.exit(f"vae.space: {error}")
