"""Push the model of a folder to the Hub, and say how to try again."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from vae.model import VAE

SCRIPT = "unvaelievable-train"


def push(folder: Path, repo: str, private: bool) -> None:
    """Push the model in folder to the Hub. Raises ValueError, which says how to try again, if that can't be done."""
    try:
        print("pushed:", VAE.from_pretrained(folder).push_to_hub(repo, private=private or None))
    except (ValueError, OSError, KeyboardInterrupt) as error:
        why = "stopped while pushing" if isinstance(error, KeyboardInterrupt) else error
        raise ValueError(f"{why}; {folder} is as it was, to try again: {push_command(folder, repo, private)}") from None


def push_command(folder: Path, repo: str, private: bool) -> str:
    """Return the command that pushes the model in folder."""
    options = ["--push-only", str(folder), "--push-to-hub", repo]
    return command(*options, "--private") if private else command(*options)


def command(*options: str) -> str:
    """Return the command that runs this program with these options: train.py, or the script that the wheel installs."""
    installed = Path(sys.argv[0]).stem == SCRIPT
    return shlex.join([*([SCRIPT] if installed else ["python", "train.py"]), *options])
