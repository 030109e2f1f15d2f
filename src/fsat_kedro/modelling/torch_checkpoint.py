"""A reader of PyTorch's checkpoints that needs no PyTorch and runs no pickle.

`torch.save` writes a zip archive: `data.pkl` is a pickle that describes the tensors, and each
member of the folder `data` holds the numbers of one. A pickle can call any function. Here, a small
interpreter executes only the opcodes of a table of tensors, and knows only its names.
"""

import math
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fsat_kedro.errors import InputError

_MAX_PICKLE = 2**22
"""Bytes of a description; those of the largest encoder take 40,000."""

_DTYPES: dict[str, np.dtype] = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch LongStorage": np.dtype("<i8"),
}
_TABLE = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"

_BOOLEANS = {"NEWTRUE": True, "NEWFALSE": False}

ReadStorage = Callable[[str, np.dtype, int], np.ndarray]
"""Returns a storage (length,) by its name, type and length."""


class _Refused(Exception):
    """The file is no checkpoint, or holds more than tensors."""


def read_tensors(path: Path | str) -> dict[str, np.ndarray]:
    """Read the tensors of a checkpoint, by name.

    What the file claims to hold is checked before it is read: the memory is bounded by its size.

    Args:
        path: a file written by `torch.save` of a module's `state_dict`, in float32 and int64.

    Raises:
        InputError: the file cannot be read, is damaged, or holds anything but tensors.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            content, read_storage = _open(archive, path.stat().st_size)
            table = _interpret(content, read_storage)
    except (
        *(OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, _Refused),
        *(ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError),
    ) as error:
        raise InputError(
            f"{path} is damaged, or no checkpoint of PyTorch with only tensors: "
            f"{type(error).__name__} {error}. Remove it and download it again, or set "
            "model.weights to another file"
        ) from error
    return table


def _open(archive: zipfile.ZipFile, n_bytes: int) -> tuple[bytes, ReadStorage]:
    """Return the pickle of an archive, and the function that reads a storage by its name."""
    members = {member.filename: member for member in archive.infolist()}
    # PyTorch compresses nothing. So no member is larger than the file, nor are all together.
    for member in archive.infolist():
        stored = member.compress_type == zipfile.ZIP_STORED
        if not stored or member.compress_size != member.file_size:
            raise _Refused("a member is compressed")
    if sum(member.file_size for member in archive.infolist()) > n_bytes:
        raise _Refused("the members are larger than the file")
    described = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(described) != 1:
        raise _Refused("there is no data.pkl")
    if members[described[0]].file_size > _MAX_PICKLE:
        raise _Refused("data.pkl is too large")
    folder = described[0].removesuffix(".pkl")
    storages: dict[str, np.ndarray] = {}

    def read_storage(name: str, dtype: np.dtype, length: int) -> np.ndarray:
        if members[f"{folder}/{name}"].file_size != length * dtype.itemsize:
            raise _Refused(f"storage {name} has another size than described")
        if name not in storages:
            storages[name] = np.frombuffer(archive.read(f"{folder}/{name}"), np.uint8)
        return storages[name].view(dtype)

    return archive.read(described[0]), read_storage


def _interpret(content: bytes, read_storage: ReadStorage) -> dict[str, np.ndarray]:
    """Execute a pickle that makes a table of tensors."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def pop_to_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name in ("BINUNICODE", "BININT", "BININT1", "BININT2"):
            stack.append(argument)
        elif name in _BOOLEANS:
            stack.append(_BOOLEANS[name])
        elif name == "GLOBAL":
            if argument not in (*_DTYPES, _TABLE, _TENSOR):
                raise _Refused(f"{argument!r:.80} is not allowed")
            stack.append(_Global(argument))
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = [stack.pop() for _ in range(int(name[-1]))]
            stack.append(tuple(items[::-1]))
        elif name == "TUPLE":
            stack.append(tuple(pop_to_mark()))
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(), stack.pop()][::-1] if name == "SETITEM" else pop_to_mark()
            _set_items(stack[-1], items)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop(), read_storage))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_call(function, arguments))
        elif name == "BUILD":
            stack.pop()  # Attributes of a table: the versions of the layers.
        elif name not in ("PROTO", "STOP"):
            raise _Refused(f"opcode {name} is not allowed")
    (table,) = stack
    if not isinstance(table, dict) or not table:
        raise _Refused("it holds no table of tensors")
    for key, value in table.items():
        if not isinstance(value, np.ndarray):
            raise _Refused(f"{key!r:.80} is no tensor")
    return table


class _Global(str):
    """A name in a pickle; never the text of the same letters."""


def _set_items(table: object, items: list[Any]) -> None:
    keys, values = items[::2], items[1::2]
    if not isinstance(table, dict) or not all(type(key) is str for key in keys):
        raise _Refused("a table is not of names")
    table.update(zip(keys, values, strict=True))


def _storage(identity: Any, read_storage: ReadStorage) -> np.ndarray:
    match identity:
        case ("storage", _Global() as kind, str() as name, str(), int() as length):
            return read_storage(name, _DTYPES[kind], length)
    raise _Refused("a storage is not of float32 or int64")


def _call(function: Any, arguments: Any) -> Any:
    """Make an empty table, or a tensor of a storage. Nothing else can be called."""
    match function, arguments:
        case _Global() as name, () if name == _TABLE:
            return {}
        case _Global() as name, (
            np.ndarray() as storage,
            int(offset),
            tuple(shape),
            tuple(strides),
            bool(),
            {},
        ) if name == _TENSOR:
            return _tensor(storage, offset, shape, strides)
    raise _Refused("it calls a function")


def _tensor(storage: np.ndarray, offset: int, shape: tuple, strides: tuple) -> np.ndarray:
    """Return the part of a storage that is a tensor, whose numbers follow each other."""
    if not all(type(number) is int and number >= 0 for number in (offset, *shape)):
        raise _Refused("a tensor has no shape")
    expected = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    for length, stride, contiguous in zip(shape, strides, expected, strict=True):
        if length > 1 and stride != contiguous:
            raise _Refused("the numbers of a tensor do not follow each other")
    size = math.prod(shape)
    if storage.ndim != 1 or offset + size > len(storage):
        raise _Refused("a tensor is larger than its storage")
    return storage[offset : offset + size].reshape(shape)
