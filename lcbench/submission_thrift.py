"""Reads the structures a Parquet file describes itself with, Thrift's compact protocol.

Arrow reads them too, but tells of pages only by unpacking them, and its Python face ends the
process over some footers that were tampered with. A field is a byte with the step from the last
field's number in its high half and the type in its low, then the value.
"""

from typing import Any

_TRUE, _FALSE, _BYTE, _INTEGERS, _DOUBLE = 1, 2, 3, (4, 5, 6), 7
_BYTES, _LISTS, _STRUCT = 8, (9, 10), 12
_DOUBLE_BYTES = 8
_MOST_DEPTH = 12
_MOST_VARINT_BYTES = 10

Struct = dict[int, Any]
"""Values by the numbers of their fields: integers, truths, bytes, lists and structures."""


def read_struct(data: memoryview, place: int, depth: int = 0) -> tuple[Struct, int]:
    """The structure that begins at a place, and the place after it.

    Raises:
        ValueError: What lies there is none.
        IndexError: It goes on beyond the end.
    """
    if depth > _MOST_DEPTH:
        raise ValueError("structures lie in one another without end")
    fields: Struct = {}
    number = 0
    while head := data[place]:
        place += 1
        step, kind = head >> 4, head & 15
        if step:
            number += step
        else:
            number, place = _read_integer(data, place)
        if kind in (_TRUE, _FALSE):
            fields[number] = kind == _TRUE
        else:
            fields[number], place = _read_value(data, place, kind, depth)
    return fields, place + 1


def _read_value(data: memoryview, place: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _INTEGERS:
        return _read_integer(data, place)
    if kind == _STRUCT:
        return read_struct(data, place, depth + 1)
    if kind in _LISTS:
        return _read_list(data, place, depth)
    if kind == _BYTES:
        length, place = _read_varint(data, place)
    elif kind in (_TRUE, _FALSE, _BYTE):
        length = 1
    elif kind == _DOUBLE:
        length = _DOUBLE_BYTES
    else:
        raise ValueError(f"a value of kind {kind}")
    if place + length > len(data):
        raise IndexError(f"{length} bytes at {place}")
    return data[place : place + length].tobytes(), place + length


def _read_list(data: memoryview, place: int, depth: int) -> tuple[list[Any], int]:
    count, kind = data[place] >> 4, data[place] & 15
    place += 1
    if count == 15:
        count, place = _read_varint(data, place)
    if count > len(data) - place:
        raise IndexError(f"{count} values at {place}")
    values: list[Any] = []
    for _ in range(count):
        value, place = _read_value(data, place, kind, depth + 1)
        values.append(value)
    return values, place


def _read_varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for count in range(_MOST_VARINT_BYTES):
        byte = data[place + count]
        value |= (byte & 127) << (7 * count)
        if byte < 128:
            return value, place + count + 1
    raise ValueError("an integer without an end")


def _read_integer(data: memoryview, place: int) -> tuple[int, int]:
    zigzag, place = _read_varint(data, place)
    return (zigzag >> 1) ^ -(zigzag & 1), place
