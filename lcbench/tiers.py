"""Where a row was read from: what was submitted, or what was measured here."""

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import pandas as pd

from lcbench import store
from lcbench.places import Place

PUBLISHED = "published"
LOCAL = "local"


def tier_of(file: Place) -> str:
    """`published` for a file in or below a folder of that name, `local` for any other."""
    folders = PurePosixPath(str(file).replace("\\", "/")).parent.parts
    return PUBLISHED if PUBLISHED in folders else LOCAL


def read_rows(paths: Iterable[Place], columns: Sequence[str] | None = None) -> store.ReadResult:
    """`store.read_rows` with a column `tier`; a row that lies in both tiers is a published one."""
    paths = list(paths)
    frames: list[pd.DataFrame] = []
    problems: list[tuple[Place, str]] = []
    for tier in (PUBLISHED, LOCAL):
        read = store.read_rows(paths, columns, keep=lambda file, tier=tier: tier_of(file) == tier)
        problems += read.problems
        frames.append(read.frame.assign(tier=tier))
    known = [frame for frame in frames if len(frame)] or frames[:1]
    if len(known) == 1:
        return store.ReadResult(known[0], problems)
    both = pd.concat(known, ignore_index=True)
    repeated = both.duplicated(list(store.ROW_KEY))
    return store.ReadResult(both[~repeated].reset_index(drop=True), problems)
