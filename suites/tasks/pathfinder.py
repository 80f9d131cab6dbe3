"""Pathfinder: an image read row by row; does one dashed curve join the two dots?

Source: Linsley et al. (2018), "Learning long-range spatial dependencies with horizontal gated
recurrent units", arXiv:1805.08315, and the Pathfinder task of Tay et al. (2020), "Long Range
Arena", arXiv:2011.04006. The generator is lcbench's own. Changed: pixels have three values, a
curve may cross itself, and from 24 pixels a side dots that are not joined lie as far apart as those
that are. Curves are drawn with whole numbers and sums alone: a seed is the same on every machine.
Shapes: B batch, T tokens, S side of the image, L pixels of a curve, C places to try.
"""

import functools
import math
from dataclasses import dataclass
from statistics import NormalDist

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
BORDER = APART - 1
"""Pixels next to an image, so that what is near an edge lies within the array."""
LRA_CONTEXT = 1024
NEARBY = 4
"""Pixels around a dot that a look at the dots alone takes in."""
FACING = 0.75
"""Sum of the two cosines above which the dots seem to be joined."""
TRIED_AT_ONCE = 2**18
"""Pixels of the images that are tried at once."""
TRIED_IN_VAIN = 2**14
"""Pairs of curves tried without one that fits, after which a sample gives up."""
TRIES = 8
"""Places tried for one curve in an image."""
HALF_TURN = 2**15
"""Directions are whole numbers that wrap around, and are followed to within 1,024 of a turn."""
STEPS = [
    np.array([part(math.tau * (step + 0.5) / 1024) for step in range(1024)], np.float32)
    for part in (math.sin, math.cos)
]
"""Rows and columns of a step in each direction."""
TURNS = np.array([NormalDist().inv_cdf((drawn + 0.5) / 256) for drawn in range(256)])
"""Normal turns: what a byte stands for, in standard deviations."""

Curves = NDArray[np.float32]
Places = NDArray[np.float64]


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
            ValueError: A context below 64 tokens, or curves too short to fit two dots each.
        """
        side = math.isqrt(context)
        if side < SMALLEST_SIDE:
            raise ValueError(
                f"pathfinder needs a context of at least {SMALLEST_SIDE**2}, got {context}; "
                "lengthen it"
            )
        canvas = _Canvas(batch, side)
        first, second = np.split(self._pairs(rng, batch, side) + canvas.images, 2)
        canvas.draw(first, dotted=True)
        canvas.draw(second, dotted=True)
        shape = (self.config.num_distractors, batch)
        walks = _walks(rng, shape, max(2, len(first) // 3), self.config.bend)
        for places in canvas.anywhere(rng, walks, TRIES)[0]:
            canvas.draw(canvas.choose(places, dotted=False)[0], dotted=False)
        # The label is drawn last: images that are joined and not differ in the place of a dot.
        joined = rng.integers(2, size=batch)
        canvas.draw_dots(first[0])
        canvas.draw_dots(np.where(joined, first[-1], second[0]))
        inputs = np.full((batch, context), FILLER)
        inputs[:, context - side**2 :].reshape(batch, side, side)[:] = canvas.image
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
            first, second = map(_mean_place, _dots(images))
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

    def _pairs(self, rng: np.random.Generator, batch: int, side: int) -> IntArray:
        """Two long curves for each image, apart from each other: places `[2 L, B]`."""
        length, bend = self._length(side), self.config.bend
        share, in_vain = _share(side, length, bend), 0
        pairs = np.zeros((2 * length, 0), np.int64)
        while (missing := batch - pairs.shape[1]) > 0:
            # Two standard deviations more than fit on average, so that one round mostly does.
            attempts = 1 + int((missing + 2 * math.sqrt(missing)) / share)
            attempts = min(attempts, max(4, TRIED_AT_ONCE // side**2))
            fitting = _try_pairs(rng, attempts, side, length, bend)
            pairs = np.concatenate([pairs, fitting], axis=1)
            in_vain = 0 if fitting.size else in_vain + attempts
            if in_vain >= TRIED_IN_VAIN:
                raise ValueError(
                    f"pathfinder finds no two curves of length={self.config.length} and "
                    f"bend={bend} with room for their dots in an image of side {side}; "
                    "raise length or lengthen the context"
                )
        return pairs[:, :batch]

    def _length(self, side: int) -> int:
        """Pixels of a long curve: whole dashes, so that it shows from end to end."""
        return PERIOD * max(2, round(self.config.length * side / PERIOD)) - 1

    def render(self, token: int) -> str:
        """`·` for ground, `#` for a dash, `O` for a dot, `_` for filler, and the answers."""
        return ("·", "#", "O", "_", "no", "yes")[token]


class _Canvas:
    """Images under way, and where in them there is room.

    All are laid flat into one array, with a border above and to the left of each, which is below
    and to the right of the one before. A pixel has one number, its place in that array.
    """

    def __init__(self, batch: int, side: int) -> None:
        self.side = side
        self.margin = int(side >= LARGE)
        self.width = side + BORDER
        reach = np.arange(-self.margin, self.margin + 1)
        self.dot = np.add.outer(reach * self.width, reach).ravel()
        self.images = np.arange(0, batch * self.width**2, self.width**2)
        self.spare = batch * self.width**2 + BORDER * (self.width + 1)
        """A place near no image, for what has no room."""
        self.pixels = np.zeros(self.spare + 1, np.uint8)
        self.lines = np.zeros(self.spare + 1, np.bool_)
        """Where curves run, and the dots that may come to their ends."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """The images without their border, `[B, S, S]`."""
        bordered = self.pixels[: len(self.images) * self.width**2]
        return bordered.reshape(-1, self.width, self.width)[:, BORDER:, BORDER:]

    def anywhere(
        self, rng: np.random.Generator, curves: Curves, tries: int
    ) -> tuple[IntArray, NDArray[np.bool_]]:
        """Places in an image for curves `[2, L, ..., B]`, and whether they can be whole.

        Every place is as likely. Returns `[..., C, L, B]` and `[..., B]`.
        """
        pixels = np.floor(curves + rng.random((2, 1, *curves.shape[2:]), np.float32))
        low, high = pixels.min(axis=1, keepdims=True), pixels.max(axis=1, keepdims=True)
        rows, columns = pixels - low
        places = np.moveaxis(rows * self.width + columns, 0, -2).astype(np.int64)
        room = (self.side - 2 * self.margin - (high - low))[:, 0]
        # A whole number of places, of which 16 bits tell a share.
        drawn = np.frombuffer(rng.bytes(2 * tries * room.size), "<u2")
        drawn = drawn.reshape(2, *room.shape[1:-1], tries, room.shape[-1])
        down, right = (drawn * np.maximum(room, 0).astype(np.int64)[..., None, :]) >> 16
        corner = down * self.width + right + (BORDER + self.margin) * (self.width + 1)
        return places[..., None, :, :] + corner[..., None, :], (room > 0).all(axis=0)

    def choose(self, places: IntArray, *, dotted: bool) -> tuple[IntArray, NDArray[np.bool_]]:
        """Of each image's candidates `[C, L, B]` the first with room, and if there is one."""
        taken = _near(self.lines, self.width, BORDER)
        points = self._with_dots(places) if dotted else places
        free = ~taken[points + self.images].any(axis=1)
        chosen = places[free.argmax(axis=0), :, np.arange(len(self.images))].T + self.images
        fits: NDArray[np.bool_] = np.any(free, axis=0)
        return np.where(fits, chosen, self.spare), fits

    def draw(self, places: IntArray, *, dotted: bool) -> None:
        """Draw dashes along `[L, B]` and keep later curves from what is near."""
        self.pixels[places[np.arange(len(places)) % PERIOD < DASH_LENGTH]] = DASH
        self.keep_clear(places, dotted=dotted)

    def keep_clear(self, places: IntArray, *, dotted: bool) -> None:
        """Keep later curves from what is near `[L, B]`, which is not drawn."""
        self.lines[self._with_dots(places) if dotted else places] = True

    def draw_dots(self, at: IntArray) -> None:
        """A dot at each place `[B]`."""
        self.pixels[self.dot[:, None] + at] = DOT

    def _with_dots(self, places: IntArray) -> IntArray:
        """Curves `[..., L, B]` and the pixels of the dots that may come to their ends."""
        if len(self.dot) == 1:
            return places
        ends = (places[..., end, None, :] + self.dot[:, None] for end in (0, -1))
        return np.concatenate([places, *ends], axis=-2)


@functools.cache
def _share(side: int, length: int, bend: float) -> float:
    """About the share of pairs that fit, the same every time."""
    tried = max(16, min(1024, TRIED_AT_ONCE // side**2))
    pairs = _try_pairs(np.random.default_rng(0), tried, side, length, bend)
    return (pairs.shape[1] + 1) / (tried + 1)


def _try_pairs(
    rng: np.random.Generator, attempts: int, side: int, length: int, bend: float
) -> IntArray:
    """The pairs of long curves that fit of so many, `[2 L, N]` places in an image.

    Seen from where the first begins, the second begins in the mirror image of where the first
    ends: as far away, as much to the side, and in as much of a bend. So little near the dots tells
    whether they are joined. Small images have no room for that; there the second lies anywhere.
    """
    scratch, mirrored = _Canvas(0, side), side >= LARGE
    walks = (_mirrored if mirrored else _walks)(rng, (attempts,), length, bend)
    (curves,), fits = scratch.anywhere(rng, walks, 1)
    rows, columns = np.divmod(curves[[0, length - 1]], scratch.width)
    # Far enough for two dots to be told apart in any direction.
    squared = (rows[1] - rows[0]) ** 2 + (columns[1] - columns[0]) ** 2
    fits &= squared >= max(side / 4, APART + 5 * scratch.margin) ** 2
    if mirrored:
        first, second = curves[:length, fits], curves[None, length:, fits]
    else:
        walks = _walks(rng, (int(fits.sum()),), length, bend)
        second, fits_second = scratch.anywhere(rng, walks, TRIES)
        first, second = curves[:, fits][:, fits_second], second[..., fits_second]
    scratch = _Canvas(first.shape[1], side)
    scratch.keep_clear(first + scratch.images, dotted=True)
    chosen, fits = scratch.choose(second, dotted=True)
    return np.concatenate([first, chosen - scratch.images])[:, fits]


def _walks(rng: np.random.Generator, shape: tuple[int, ...], length: int, bend: float) -> Curves:
    """Curves from a corner in any direction: `[2, L, ...]` rows and columns."""
    return _follow(_headings(rng, (length - 1, *shape), bend / math.sqrt(length)))


def _mirrored(rng: np.random.Generator, shape: tuple[int, ...], length: int, bend: float) -> Curves:
    """Pairs of curves `[2, 2 L, ...]`: the second begins like the mirror of the first's end."""
    same, turn = min(length, NEARBY + 2), bend / math.sqrt(length)
    headings = _headings(rng, (length - 1, *shape), turn)
    tails = _headings(rng, (length - same + 1, *shape), turn)
    # On from the last step of the way back, with a turn before each of the others.
    tails += headings[1 - same] + np.uint16(HALF_TURN) - tails[:1]
    first = _follow(headings)
    ends = first[:, : -same - 1 : -1]  # [2, same, ...] backwards from the end
    rows, columns = np.concatenate([ends, ends[:, -1:] + _follow(tails[1:])[:, 1:]], axis=1)
    down, right = first[:, same - 1]
    along = 2 * (rows * down + columns * right)
    along /= np.maximum(down * down + right * right, np.float32(1e-9))
    second = np.stack([along * down - rows, along * right - columns])
    return np.concatenate([first, second], axis=1)


def _headings(rng: np.random.Generator, shape: tuple[int, ...], turn: float) -> NDArray[np.uint16]:
    """Directions of some steps, the first any, in `1 / 2**16` of a full turn: `[L, ...]`."""
    drawn = np.frombuffer(rng.bytes(math.prod(shape)), np.uint8).reshape(shape)
    turns = np.rint(TURNS * (turn * HALF_TURN / math.pi)).astype(np.int64).astype(np.uint16)
    headings = turns[drawn]
    headings[:1] = rng.integers(2 * HALF_TURN, size=headings[:1].shape, dtype=np.uint16)
    return np.cumsum(headings, axis=0, dtype=np.uint16)


def _follow(headings: NDArray[np.uint16]) -> Curves:
    """The way from a corner by steps of length one: `[L - 1, ...]` to `[2, L, ...]`."""
    directions = headings >> 6
    way = np.zeros((2, len(headings) + 1, *headings.shape[1:]), np.float32)
    for axis, step in enumerate(STEPS):
        np.cumsum(step[directions], axis=0, out=way[axis, 1:])
    return way


def _near(pixels: NDArray[np.bool_], width: int, radius: int) -> NDArray[np.bool_]:
    """All pixels of images laid flat within `radius` rows and columns of one that is set."""
    for step in (1, width):
        spread = pixels.copy()
        for shift in range(step, (radius + 1) * step, step):
            spread[shift:] |= pixels[:-shift]
            spread[:-shift] |= pixels[shift:]
        pixels = spread
    return pixels


def _images(inputs: IntArray) -> IntArray:
    side = math.isqrt(inputs.shape[1])
    return inputs[:, inputs.shape[1] - side**2 :].reshape(-1, side, side)


def _spread(pixels: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """All pixels within `radius` rows and columns of one that is set: `[B, S, S]`."""
    side = pixels.shape[1]
    bordered = np.pad(pixels, ((0, 0), (0, radius), (0, radius)))
    near = _near(bordered.ravel(), side + radius, radius).reshape(bordered.shape)
    return near[:, :side, :side]


def _dots(images: IntArray) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The pixels of either dot, `[B, S, S]`: of the one that comes first, and of the other."""
    dots = images == DOT
    flat = dots.reshape(len(dots), -1)
    seed = np.zeros_like(flat)
    seed[np.arange(len(flat)), flat.argmax(axis=1)] = True
    # A dot is one pixel or three by three, and far from the other.
    first = _spread(seed.reshape(dots.shape), 2 * int(dots.shape[1] >= LARGE)) & dots
    return first, dots & ~first


def _are_joined(images: IntArray) -> NDArray[np.bool_]:
    """Whether the ink that is followed from the first dot leads to the second, `[B]`."""
    ink = (images == DASH) | (images == DOT)
    reached, other = _dots(images)
    while ((further := _spread(reached, APART - 1) & ink) != reached).any():
        reached = further
    return np.all(reached | ~other, axis=(1, 2))


def _facing(images: IntArray) -> Places:
    """How far the ink next to each dot lies towards the other one: sum of two cosines, `[B]`."""
    dots = _dots(images)
    centres = [_mean_place(dot) for dot in dots]
    between = centres[1] - centres[0]
    facing = np.zeros(len(images))
    for dot, centre, towards in zip(dots, centres, (between, -between), strict=True):
        side = _mean_place(_spread(dot, NEARBY) & (images == DASH)) - centre
        norm = np.hypot(*side.T) * np.hypot(*towards.T) + 1e-9
        facing += (side * towards).sum(axis=1) / norm
    return facing


def _mean_place(pixels: NDArray[np.bool_]) -> Places:
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
    version=3,
    metric="accuracy",
    ceiling=1.0,
    source="Tay et al. (2020), Long Range Arena, arXiv:2011.04006; own generator",
    floor_solver=(
        "the better of two looks at the dots alone: joined if the ink within a few pixels of each "
        "lies towards the other, or if they are nearer than a curve is long (simulated: about 0.84 "
        "at 64 tokens, where the second tells more, and 0.60 at 1,024, where the first does)"
    ),
)
