"""What git says of a checkout."""

import os
import subprocess
from pathlib import Path


def ask_git(root: Path, *arguments: str) -> str | None:
    """What git answers about the checkout at `root`; None where it refuses. Nothing is written.

    Raises:
        OSError: git cannot be run.
    """
    # For its status git would rewrite its index, and killed meanwhile leave a lock behind.
    options = ("--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(root))
    done = subprocess.run(["git", *options, *arguments], capture_output=True, check=False)
    return os.fsdecode(done.stdout) if done.returncode == 0 else None
