"""Pathfinder: an image read row by row; does one dashed curve join the two dots?

Source: Linsley et al. (2018), "Learning long-range spatial dependencies with horizontal gated
recurrent units", arXiv:1805.08315, and the Pathfinder task of Tay et al. (2020), "Long Range
Arena", arXiv:2011.04006. The generator is lcbench's own. Changed: pixels have three values, a
curve may cross itself, and dots that are not joined lie as far apart as those that are.
Shapes: B batch, T tokens, S side of the image, L pixels of a curve, P pixels of a shape.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lcbench.sampling import simulated_floor
from lcbench.task import IGNORE, Batch, IntArray, Solver, Task, TaskConfig, TaskSpec

GROUND, DASH, DOT, FILLER, NO, YES = range(6)
SMALLEST_SIDE, LARGE = 8, 24
"""From the larger side on, dots are three by three pixels instead of one."""
DASH_LENGTH, PERIOD = 2, 3
"""Pixels of a dash, and of a dash and the gap after it."""
APART = 3
"""Pixels of two curves are no nearer than this, those of one that follow each other are nearer."""
LRA_CONTEXT = 1024
NEARBY = 4
"""Pixels around a dot that a look at the dots alone takes in."""
FACING = 0.75
"""Sum of the two cosines above which the dots seem to be joined."""
TRIED_AT_ONCE = 2**18
"""Pixels of the images that are tried at once."""
TRIES = 8
"""Curves tried for one place in an image."""
MIRRORED, ANYWHERE = (2, 10), (7, 10)
"""Pairs that about so many attempts bring forth, of each kind."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """How long and bent the curves are, and how many distract."""

    length: float = 0.75
    """Length of the two long curves, as a share of the image's side."""
    bend: float = 3.0
    """Turn of a curve from end to end in radians, root mean square."""
    num_distractors: int = 4
    """Curves of a third of the length, left out where there is no room."""

    def __post_init__(self) -> None:
        if not 0.5 <= self.length <= 1:
            raise ValueError(f"length must be in 0.5..1 sides, got {self.length}")
        if not 2 <= self.bend <= 4:
            raise ValueError(f"bend must be in 2..4 radians, got {self.bend}")
        if self.num_distractors < 0:
            raise ValueError(f"num_distractors must be at least 0, got {self.num_distractors}")


class Pathfinder(Task[Config]):
    """The evidence is the whole image, so there are no distances."""

    @property
    def vocab_size(self) -> int:
        """Three kinds of pixel, filler and two answers."""
        return YES + 1

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw the largest square image that fits, after filler; the last pixel asks.

        Raises:
            ValueError: A context below 64 tokens.
        """
        side = math.isqrt(context)
        if side < SMALLEST_SIDE:
            raise ValueError(
                f"pathfinder needs a context of at least {SMALLEST_SIDE**2}, got {context}; "
                "lengthen it"
            )
        length, bend = self._length(side), self.config.bend
        first, second = _pairs(rng, batch, side, length, bend)
        canvas, rows = _Canvas(batch, side), np.arange(batch)
        for curve in (first, second):
            canvas.draw(rows, curve, dotted=True)
        for _ in range(self.config.num_distractors):
            curves = _anywhere(rng, (batch, TRIES, max(2, length // 3)), canvas, bend)
            chosen, fits = canvas.choose(np.rint(curves).astype(np.int64), dotted=False)
            canvas.draw(rows[fits], chosen[fits], dotted=False)
        # The label is drawn last: images that are joined and not differ in the place of a dot.
        joined = rng.integers(2, size=batch)
        canvas.draw_dots(first[:, 0])
        canvas.draw_dots(np.where(joined[:, None], first[:, -1], second[:, 0]))
        inputs = np.full((batch, context), FILLER)
        inputs[:, context - side**2 :] = canvas.image.reshape(batch, -1)
        targets = np.full_like(inputs, IGNORE)
        targets[:, -1] = NO + joined
        return Batch(inputs, targets)

    def floor(self, context: int) -> float:
        """The better of two looks at the dots alone, simulated at 1,024 tokens or less."""
        return simulated_floor(self, min(context, LRA_CONTEXT), 2048)

    def solvers(self) -> dict[str, Solver]:
        """A reader that never fails and the trivial ones, from inputs to predictions `[B, T]`."""

        def answer(inputs: IntArray, joined: NDArray[np.bool_]) -> IntArray:
            return np.broadcast_to(np.where(joined, YES, NO)[:, None], inputs.shape)

        def near(inputs: IntArray) -> IntArray:
            images = _images(inputs)
            first, second = _centres(images)
            return answer(inputs, np.hypot(*(second - first).T) < self._length(images.shape[1]))

        return {
            "oracle": lambda inputs: answer(inputs, _are_joined(_images(inputs))),
            "facing": lambda inputs: answer(inputs, _facing(_images(inputs)) > FACING),
            "near": near,
            "majority": lambda inputs: np.full_like(inputs, YES),
        }

    def columns(self, context: int) -> int:
        """The side of the image."""
        return math.isqrt(context)

    def _length(self, side: int) -> int:
        """Pixels of a long curve: whole dashes, so that it shows from end to end."""
        return PERIOD * max(2, round(self.config.length * side / PERIOD)) - 1

    def render(self, token: int) -> str:
        """`·` for ground, `#` for a dash, `O` for a dot, `_` for filler, and the answers."""
        return ("·", "#", "O", "_", "no", "yes")[token]


class _Canvas:
    """Images under way, one a row, and where in them there is room."""

    def __init__(self, batch: int, side: int) -> None:
        self.side = side
        self.image = np.full((batch, side, side), GROUND)
        self.dot = _square(int(side >= LARGE))
        self.margin = int(self.dot.max())
        # A border keeps what is next to an edge within the array.
        self.width = side + 2 * APART
        self.lines = np.zeros((batch, self.width, self.width), np.bool_)
        """Where curves run, and the dots that may come to their ends."""

    def choose(self, curves: IntArray, *, dotted: bool) -> tuple[IntArray, NDArray[np.bool_]]:
        """Of each image's candidates `[B, C, L, 2]` the first with room, and whether one has."""
        inside = (curves >= self.margin) & (curves < self.side - self.margin)
        fits = np.all(inside.reshape(*inside.shape[:2], -1), axis=2)
        if self.lines.any():
            points = self._with_dots(curves) if dotted else curves
            taken = _spread(self.lines, APART - 1).reshape(-1)
            fits &= ~np.any(taken[self._places(np.clip(points, 0, self.side - 1))], axis=2)
        return curves[np.arange(len(curves)), fits.argmax(axis=1)], np.any(fits, axis=1)

    def draw(self, rows: IntArray, curves: IntArray, *, dotted: bool) -> None:
        """Draw dashes along `[R, L, 2]` and keep later curves from what is near."""
        dashes = curves[:, np.arange(curves.shape[1]) % PERIOD < DASH_LENGTH]
        self.image[rows[:, None], dashes[..., 0], dashes[..., 1]] = DASH
        self.keep_clear(rows, curves, dotted=dotted)

    def keep_clear(self, rows: IntArray, curves: IntArray, *, dotted: bool) -> None:
        """Keep later curves from what is near `[R, L, 2]`, which is not drawn."""
        points = self._with_dots(curves[:, None])[:, 0] if dotted else curves
        self.lines.reshape(-1)[self._places(points, rows)] = True

    def draw_dots(self, at: IntArray) -> None:
        """A dot in each image: `[B, 2]` row and column."""
        pixels = at[:, None] + self.dot
        self.image[np.arange(len(at))[:, None], pixels[..., 0], pixels[..., 1]] = DOT

    def _places(self, points: IntArray, rows: IntArray | None = None) -> IntArray:
        """Where pixels `[R, ..., 2]` of some images lie in `lines` laid flat: `[R, ...]`."""
        rows = np.arange(len(points)) if rows is None else rows
        corner = rows * self.width**2 + APART * (self.width + 1)
        corner = corner.reshape(-1, *[1] * (points.ndim - 2))
        return points[..., 0] * self.width + points[..., 1] + corner

    def _with_dots(self, curves: IntArray) -> IntArray:
        """Curves `[R, C, L, 2]` and the pixels of the dots that may come to their ends."""
        dots = curves[:, :, [0, -1], None] + self.dot
        dots = dots.reshape(*curves.shape[:2], 2 * len(self.dot), 2)
        return np.concatenate([curves, dots], axis=2)


def _pairs(
    rng: np.random.Generator, batch: int, side: int, length: int, bend: float
) -> tuple[IntArray, IntArray]:
    """Two long curves for each image, `[B, L, 2]`, apart from each other.

    Seen from where the first begins, the second begins in the mirror image of where the first
    ends: as far away, as much to the side, and in as much of a bend. So nothing near the dots tells
    whether they are joined. Small images have no room for that; there the second lies anywhere.
    """
    found: list[tuple[IntArray, IntArray]] = []
    missing, kept, tried = batch, *(MIRRORED if side >= LARGE else ANYWHERE)
    while missing > 0:
        # As many as should do by the share that fitted so far.
        attempts = max(4, min(4 + 11 * missing * tried // (10 * kept), TRIED_AT_ONCE // side**2))
        scratch = _Canvas(attempts, side)
        curves = _anywhere(rng, (attempts, 1, length), scratch, bend)[:, 0]
        first, fits_first = scratch.choose(np.rint(curves[:, None]).astype(np.int64), dotted=True)
        first = np.clip(first, scratch.margin, side - 1 - scratch.margin)
        scratch.keep_clear(np.arange(attempts), first, dotted=True)
        if side >= LARGE:
            others = _mirrored(rng, curves, bend)
        else:
            others = _anywhere(rng, (attempts, TRIES, length), scratch, bend)
        second = np.rint(others).astype(np.int64)
        second, fits = scratch.choose(second, dotted=True)
        # Far enough for two dots to be told apart in any direction.
        apart = np.hypot(*(first[:, -1] - first[:, 0]).T)
        fits &= fits_first & (apart >= max(side / 4, APART + 5 * scratch.margin))
        found.append((first[fits], second[fits]))
        missing -= int(fits.sum())
        kept, tried = kept + int(fits.sum()), tried + attempts
    first, second = (np.concatenate(part)[:batch] for part in zip(*found, strict=True))
    return first, second


def _anywhere(
    rng: np.random.Generator, shape: tuple[int, int, int], canvas: _Canvas, bend: float
) -> FloatArray:
    """Curves at any place where they are whole: `[B, C, L, 2]` for a shape of B, C and L."""
    heading = rng.uniform(0, 2 * np.pi, shape[:2])
    curves = np.zeros((*shape, 2))
    curves[:, :, 1:] = _walk(rng, heading, shape[2] - 1, bend / math.sqrt(shape[2]))
    low, high = curves.min(axis=2, keepdims=True), curves.max(axis=2, keepdims=True)
    room = np.maximum(0, canvas.side - 1 - 2 * canvas.margin - (high - low))
    return curves + canvas.margin - low + room * rng.random(low.shape)


def _mirrored(rng: np.random.Generator, curves: FloatArray, bend: float) -> FloatArray:
    """Curves that begin like the mirror image of where `[B, L, 2]` end: `[B, C, L, 2]`."""
    length = curves.shape[1]
    same = min(length, NEARBY + 2)
    axis = curves[:, same - 1] - curves[:, 0]
    axis /= np.maximum(1e-9, np.hypot(*axis.T))[:, None]
    ends = curves[:, : -same - 1 : -1] - curves[:, :1]  # [B, same, 2] backwards from the end
    along = (ends * axis[:, None]).sum(axis=2, keepdims=True)
    begins = curves[:, :1] + 2 * along * axis[:, None] - ends
    last = begins[:, -1] - begins[:, -2]
    heading = np.repeat(np.arctan2(last[:, :1], last[:, 1:]), TRIES, axis=1)
    tails = _walk(rng, heading, length - same, bend / math.sqrt(length))
    begins = np.repeat(begins[:, None], TRIES, axis=1)
    return np.concatenate([begins, begins[:, :, -1:] + tails], axis=2)


def _walk(rng: np.random.Generator, heading: FloatArray, steps: int, turn: float) -> FloatArray:
    """Places after each of some steps of length one, from headings `[B, C]`: `[B, C, steps, 2]`."""
    headings = rng.normal(0, turn, (*heading.shape, steps))
    np.cumsum(headings, axis=2, out=headings)
    headings += heading[..., None]
    return np.cumsum(np.stack([np.sin(headings), np.cos(headings)], axis=3), axis=2)


def _square(radius: int) -> IntArray:
    """Rows and columns around a pixel: `[(2 * radius + 1) ** 2, 2]`."""
    return np.argwhere(np.ones((2 * radius + 1, 2 * radius + 1))) - radius


def _images(inputs: IntArray) -> IntArray:
    side = math.isqrt(inputs.shape[1])
    return inputs[:, inputs.shape[1] - side**2 :].reshape(-1, side, side)


def _spread(pixels: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """All pixels within `radius` rows and columns of one that is set."""
    by_row = pixels.copy()
    for shift in range(1, radius + 1):
        by_row[:, shift:] |= pixels[:, :-shift]
        by_row[:, :-shift] |= pixels[:, shift:]
    spread = by_row.copy()
    for shift in range(1, radius + 1):
        spread[:, :, shift:] |= by_row[:, :, :-shift]
        spread[:, :, :-shift] |= by_row[:, :, shift:]
    return spread


def _first_dots(images: IntArray) -> NDArray[np.bool_]:
    """Of the two dots of each image the one that comes first: `[B, S, S]`."""
    flat = (images == DOT).reshape(len(images), -1)
    seed = np.zeros_like(flat)
    seed[np.arange(len(flat)), flat.argmax(axis=1)] = True
    # A dot is one pixel or three by three, and far from the other.
    return _spread(seed.reshape(images.shape), 2 * int(images.shape[1] >= LARGE)) & (images == DOT)


def _are_joined(images: IntArray) -> NDArray[np.bool_]:
    """Whether the ink that is followed from the first dot leads to the second, `[B]`."""
    ink = (images == DASH) | (images == DOT)
    reached, before = _first_dots(images), np.zeros_like(ink)
    while (reached != before).any():
        reached, before = _spread(reached, APART - 1) & ink, reached
    return (reached | (images != DOT)).all(axis=(1, 2))


def _dots(images: IntArray) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The pixels of either dot."""
    first = _first_dots(images)
    return first, (images == DOT) & ~first


def _centres(images: IntArray) -> tuple[FloatArray, FloatArray]:
    """Row and column of either dot, `[B, 2]`."""
    first, second = (_mean_place(dot) for dot in _dots(images))
    return first, second


def _facing(images: IntArray) -> FloatArray:
    """How far the ink next to each dot lies towards the other one: sum of two cosines, `[B]`."""
    centres = _centres(images)
    between = centres[1] - centres[0]
    facing = np.zeros(len(images))
    for dot, centre, towards in zip(_dots(images), centres, (between, -between), strict=True):
        side = _mean_place(_spread(dot, NEARBY) & (images == DASH)) - centre
        norm = np.hypot(*side.T) * np.hypot(*towards.T) + 1e-9
        facing += (side * towards).sum(axis=1) / norm
    return facing


def _mean_place(pixels: NDArray[np.bool_]) -> FloatArray:
    """Mean row and column of those set: `[B, 2]`."""
    count = np.maximum(1, pixels.sum(axis=(1, 2)))
    place = np.arange(pixels.shape[1])
    rows, columns = pixels.sum(axis=2) @ place, pixels.sum(axis=1) @ place
    return np.stack([rows, columns], axis=1) / count[:, None]


TASK = TaskSpec(
    build=Pathfinder,
    config=Config,
    title="Pathfinder",
    family="images",
    version=2,
    metric="accuracy",
    ceiling=1.0,
    source="Tay et al. (2020), Long Range Arena, arXiv:2011.04006; own generator",
    floor_solver=(
        "the better of two looks at the dots alone: joined if the ink within a few pixels of each "
        "lies towards the other, or if they are nearer than a curve is long (simulated; close to "
        "one half from 24 pixels a side, where neither tells much)"
    ),
)
