"""Methods made of others: which part stands in which layer, and what the whole then claims.

A method whose spec has `parts` names other methods; only the registry knows those, so the spec is
resolved here before it is built. What the whole claims is what all of its parts keep.
"""

import dataclasses
import math
from typing import Any, NamedTuple

from lcbench import registry
from lcbench.config import UsageError, digest, split_assignments
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape
from lcbench.model import build_method


class Part(NamedTuple):
    """A method that stands in some layers of another."""

    request: str
    """Name and overrides, as they were asked for."""
    name: str
    spec: MethodSpec
    config: MethodConfig


class Resolved(NamedTuple):
    """A method at one configuration, ready to be built."""

    spec: MethodSpec
    config: MethodConfig
    parts: tuple[Part, ...] = ()
    """One period of layers; empty for a method that is alike in every layer."""

    def build(self, shape: ModelShape) -> Method:
        """The method of one layer."""
        return build_method(self.spec, shape, self.config)

    def layers_in(self, num_layers: int) -> int:
        """How many of a model's layers show all of the method: 1, or one period of its parts."""
        return min(num_layers, max(1, len(self.parts)))

    def cut_by(self, num_layers: int) -> str | None:
        """What is to be told of a model that is too shallow for all parts, or None."""
        if num_layers >= len(self.parts):
            return None
        held = "+".join(part.request for part in self.parts[-num_layers:])
        return f"{num_layers} layers hold the last of {len(self.parts)} parts: {held}"


def resolve(spec: MethodSpec, config: MethodConfig) -> Resolved:
    """A method with its parts put in: as it is where it has none.

    Raises:
        UsageError: A part that does not exist, is made of parts itself, refuses its overrides, or
            does not go with the others.
        PluginError: A part whose file cannot be used.
    """
    if spec.parts is None:
        return Resolved(spec, config)
    requests = spec.parts(config)
    loaded = {request: _load(request) for request in requests}
    parts = tuple(loaded[request] for request in requests)

    def build(shape: ModelShape, _: Any) -> Method:
        part = parts[part_in(shape.layer, shape.num_layers, len(parts))]
        return build_method(part.spec, shape, part.config)

    return Resolved(_joined(spec, build, tuple(loaded.values())), config, parts)


def load(name: str, config: MethodConfig | None = None) -> Resolved:
    """The method of that name, at its defaults unless told otherwise; raises as `resolve`."""
    spec = registry.load_method(name)
    return resolve(spec, spec.config() if config is None else config)


def part_in(layer: int, num_layers: int, num_parts: int) -> int:
    """Which part stands in a layer: each in turn, or the last ones where there are too few layers.

    A pattern ends in what it adds to the rest: a shallow model keeps that rather than the start.
    """
    return layer % num_parts if num_layers >= num_parts else layer + num_parts - num_layers


def method_hash(name: str, parts: tuple[Part, ...] = ()) -> str:
    """Hash of a method's source, with those of its parts: a part that is edited is another work."""
    own = registry.source_hash("method", name)
    if not parts:
        return own
    names = sorted({part.name for part in parts})
    return digest("".join([own, *(registry.source_hash("method", part) for part in names)]))


def _load(request: str) -> Part:
    name, _, overrides = request.partition(":")
    spec = registry.load_method(name)
    if spec.parts is not None:
        raise UsageError(
            f"{name!r} is made of parts itself, so it cannot be one; name the methods it is made of"
        )
    try:
        return Part(request, name, spec, spec.config().override(split_assignments(overrides)))
    except UsageError as error:
        raise UsageError(f"part {request!r}: {error}") from None


def _joined(spec: MethodSpec, build: Any, parts: tuple[Part, ...]) -> MethodSpec:
    """The spec with the claims that all parts keep."""
    specs = [part.spec for part in parts]
    periods = [part.spec.shift_period(part.config) for part in parts]
    reaches = [part.spec.reach(part.config) for part in parts]
    known_periods = [period for period in periods if period is not None]
    known_reaches = [reach for reach in reaches if reach is not None]
    shift_period = math.lcm(*known_periods) if len(known_periods) == len(parts) else None
    reach = max(known_reaches) if len(known_reaches) == len(parts) else None
    causal, bidirectional = all(s.causal for s in specs), all(s.bidirectional for s in specs)
    if not (causal or bidirectional):
        names = " and ".join(part.name for part in parts)
        raise UsageError(f"{names} do not go together: some are causal only, others two-sided only")
    return dataclasses.replace(
        spec,
        build=build,
        parts=None,
        cost=Cost(*(max(exponents) for exponents in zip(*(s.cost for s in specs), strict=True))),
        causal=causal,
        bidirectional=bidirectional,
        streams=all(s.streams for s in specs),
        segment_exact=all(s.segment_exact for s in specs),
        gradient_exact=all(s.gradient_exact for s in specs),
        length_dependent=any(s.length_dependent for s in specs),
        shift_period=lambda _: shift_period,
        reach=lambda _: reach,
        requires=tuple(sorted({package for s in specs for package in s.requires})),
    )
