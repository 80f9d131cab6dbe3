"""What one call does: floating-point operations, and bytes of what stood there before it.

Operations are counted as they are done, under torch's dispatcher: matrix products, convolutions,
triangular solves, Fourier transforms and fused attention, two for each multiply-add. What a
backward pass computes again counts again; what a fused kernel skips under a causal mask does not.
Element-wise work (softmax, norms, gates, scans) is not counted, nor is a kernel that is launched
past the dispatcher.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lcbench.measure import Workload

_aten: Any = torch.ops.aten
_ATTENTIONS = (
    _aten._scaled_dot_product_flash_attention_for_cpu,
    _aten._scaled_dot_product_flash_attention,
    _aten._scaled_dot_product_efficient_attention,
    _aten._scaled_dot_product_cudnn_attention,
    _aten._scaled_dot_product_fused_attention_overrideable,
)
_ATTENTION_BACKWARDS = (
    _aten._scaled_dot_product_flash_attention_for_cpu_backward,
    _aten._scaled_dot_product_flash_attention_backward,
    _aten._scaled_dot_product_efficient_attention_backward,
    _aten._scaled_dot_product_cudnn_attention_backward,
    _aten._scaled_dot_product_fused_attention_overrideable_backward,
)
_GATHERS = (_aten.index, _aten.index_select, _aten.gather, _aten.embedding, _aten.take)
"""Operations that read no more of their first operand than they give back."""
_SEEN_THROUGH = {"aten", "prim", "prims"}
"""Namespaces whose operations are either counted or known to hold no matrix product."""


class Work(NamedTuple):
    """What one call does; None where an operation hides what it does."""

    flops: int | None
    touched_bytes: int | None
    """Bytes of the weights, the inputs and the state that the call reads or writes, each once: what
    has to come from memory at least, if no cache holds it from the call before."""


def count_work(workload: Workload) -> Work:
    """Count one call of a workload.

    An operation of torch's own is counted, or has nothing to count; one of any other namespace
    must have a formula (`torch.utils.flop_counter.register_flop_formula`), else nothing is known.
    """
    inputs = workload.prepare()
    counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
    # The counter, entered last, sees an operation first: what it takes apart, the witness sees.
    with _Witness(counter.flop_registry) as witness, counter:
        result = workload.call(inputs)
    del result
    if witness.is_blind:
        return Work(None, None)
    return Work(counter.get_total_flops(), witness.touched_bytes())


class _Witness(TorchDispatchMode):
    """Notes which bytes of older tensors are touched, and operations nobody can count."""

    def __init__(self, formulas: dict[Any, Any]) -> None:
        super().__init__()
        self.formulas = formulas
        self.is_blind = False
        self._made: set[int] = set()
        self._touched: dict[int, dict[object, int]] = {}
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Do the operation, and note what it touches."""
        kwargs = kwargs or {}
        given = list(_tensors((*args, *kwargs.values())))
        older = [t for t in given if _address(t) not in self._made]
        out = func(*args, **kwargs)
        made = list(_tensors([out]))
        packet = func._overloadpacket
        if func.namespace not in _SEEN_THROUGH and packet not in self.formulas:
            self.is_blind = True
        if not func.is_view:
            read_partly = packet in _GATHERS
            for index, tensor in enumerate(older):
                is_gathered = read_partly and index == 0 and tensor is args[0]
                self._touch(tensor, made[0].nbytes if is_gathered else None)
        before = {_address(tensor) for tensor in given}
        self._made.update(address for t in made if (address := _address(t)) not in before)
        return out

    def _touch(self, tensor: Tensor, gathered_bytes: int | None) -> None:
        address = _address(tensor)
        views = self._touched.setdefault(address, {})
        self._sizes[address] = tensor.untyped_storage().nbytes()
        if gathered_bytes is not None:
            views[len(views)] = gathered_bytes
        else:
            view = (tensor.storage_offset(), tensor.size(), tensor.stride())
            views[view] = tensor.nbytes

    def touched_bytes(self) -> int:
        """Bytes touched so far, no storage for more than all of it."""
        views = self._touched.items()
        return sum(min(self._sizes[at], sum(parts.values())) for at, parts in views)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)  # pyright: ignore[reportUnknownArgumentType]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


# Formulas take what the operation takes, with shapes in place of tensors, and `out_shape`.


def _named(packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    names = [argument.name for argument in packet.default._schema.arguments]
    return dict(zip(names, args, strict=False)) | kwargs


def _visible_pairs(queries: int, keys: int, *, causal: bool) -> int:
    """Pairs of a query and a key it may see; a fused causal mask aligns the first of each."""
    if not causal:
        return queries * keys
    seeing_some = min(queries, keys)
    return seeing_some * (seeing_some + 1) // 2 + (queries - seeing_some) * keys


def _attention(packet: Any, *, by_query_width: int, by_value_width: int) -> Callable[..., int]:
    """A formula: so many products over the width of queries and keys, and over that of values."""

    def count(*args: Any, out_shape: Any = None, **kwargs: Any) -> int:
        given = _named(packet, args, kwargs)
        batch, heads, queries, width = given["query"]
        keys, value_width = given["value"][2:]
        pairs = _visible_pairs(queries, keys, causal=bool(given.get("is_causal")))
        per_pair = by_query_width * width + by_value_width * value_width
        return 2 * batch * heads * pairs * per_pair

    return count


def _mv(matrix: Any, vector: Any, *_: Any, **__: Any) -> int:
    return 2 * math.prod(matrix)


def _addmv(_: Any, matrix: Any, vector: Any, *__: Any, **___: Any) -> int:
    return 2 * math.prod(matrix)


def _dot(one: Any, other: Any, *_: Any, **__: Any) -> int:
    return 2 * math.prod(one)


def _added_product(_: Any, left: Any, right: Any, *__: Any, **___: Any) -> int:
    return 2 * math.prod(left) * right[-1]


def _triangular_solve(matrix: Any, right_side: Any, *, left: bool = True, **_: Any) -> int:
    return math.prod(right_side) * right_side[-2 if left else -1]


def _old_triangular_solve(right_side: Any, matrix: Any, *_: Any, **__: Any) -> int:
    return math.prod(right_side) * right_side[-2]


def _fourier(count: int, shape: Any, dims: Any) -> int:
    """Cooley and Tukey's `5 n log2 n` for each transform over `dims` of a complex array."""
    points = math.prod(shape[dim] for dim in dims)
    return round(5 * count * math.log2(max(points, 2)))


def _complex_fourier(given: Any, dims: Any, *_: Any, **__: Any) -> int:
    return _fourier(math.prod(given), given, dims)


def _real_fourier(given: Any, dims: Any, *_: Any, **__: Any) -> int:
    return _fourier(math.prod(given), given, dims) // 2


def _inverse_real_fourier(_: Any, dims: Any, *__: Any, out_shape: Any, **___: Any) -> int:
    return _fourier(math.prod(out_shape), out_shape, dims) // 2


_FORMULAS: dict[Any, Callable[..., int]] = {
    # Scores and sums of values; backwards scores again, and gradients of all that entered.
    **{op: _attention(op, by_query_width=1, by_value_width=1) for op in _ATTENTIONS},
    **{op: _attention(op, by_query_width=3, by_value_width=2) for op in _ATTENTION_BACKWARDS},
    _aten.mv: _mv,
    _aten.addmv: _addmv,
    _aten.addmv_: _addmv,
    _aten.dot: _dot,
    _aten.vdot: _dot,
    _aten.addmm_: _added_product,
    _aten.baddbmm_: _added_product,
    _aten.addbmm: _added_product,
    _aten.addbmm_: _added_product,
    _aten._addmm_activation: _added_product,
    _aten.linalg_solve_triangular: _triangular_solve,
    _aten.triangular_solve: _old_triangular_solve,
    _aten._fft_c2c: _complex_fourier,
    _aten._fft_r2c: _real_fourier,
    _aten._fft_c2r: _inverse_real_fourier,
}
"""What torch's counter lacks, and attention by the pairs its mask leaves rather than by all."""
