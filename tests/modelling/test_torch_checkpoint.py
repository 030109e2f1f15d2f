"""Checkpoints made by hand, and hostile ones. None of them needs PyTorch."""

import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from torch_files import (
    NO_HOOKS,
    PROTOCOL,
    STOP,
    number,
    storage,
    table,
    tensor,
    text,
    write_archive,
    write_tensors,
)

from fsat_kedro.errors import InputError
from fsat_kedro.modelling.torch_checkpoint import read_tensors

FOUR = {"0": np.arange(4, dtype=np.float32).tobytes()}
OF_FOUR = storage("0", 4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pt"


def test_tensors_are_read_by_name_with_shape_and_type(path, rng):
    written = {
        "kernel": rng.normal(size=(2, 3, 4, 5)).astype(np.float32),
        "steps": np.array(7),
        "bias": np.array([1.5], np.float32),
    }
    read = read_tensors(write_tensors(path, written))
    assert list(read) == list(written)
    for name, array in written.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_tensors_may_share_a_storage(path):
    content = table(a=tensor(OF_FOUR, (2,)), b=tensor(OF_FOUR, (1, 2), offset=2))
    read = read_tensors(write_archive(path, content, FOUR))
    assert (read["a"].tolist(), read["b"].tolist()) == ([0, 1], [[2, 3]])


def test_a_table_may_have_attributes_as_those_of_a_module_have(path):
    ordered, name = NO_HOOKS, text("a")
    versions = b"}" + text("_metadata") + NO_HOOKS + b"s"
    content = PROTOCOL + ordered + b"(" + name + tensor(OF_FOUR, (4,)) + b"u" + versions + b"b"
    read = read_tensors(write_archive(path, content + STOP, FOUR))
    assert read["a"].tolist() == [0, 1, 2, 3]


class Call:
    """Something whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_function_is_called(path, tmp_path, protocol):
    made = tmp_path / "made"
    for function in (type(made).touch, exec):
        argument = made if function is not exec else f"open({str(made)!r}, 'w')"
        content = pickle.dumps({"a": Call(function, argument)}, protocol)
        with pytest.raises(InputError, match=r"weights\.pt is damaged, or no checkpoint"):
            read_tensors(write_archive(path, content, FOUR))
    assert not made.exists()


ALLOWED_NAMES_MISUSED = {
    "a table of items": PROTOCOL + b"ccollections\nOrderedDict\n(](" + number(1) + b"etR.",
    "a type called": PROTOCOL + b"ctorch\nFloatStorage\n" + b"(" + number(9) + b"tR.",
    "a text called": PROTOCOL + text("collections OrderedDict") + b")R.",
    "a storage of a text": table(
        a=tensor(
            storage("0", 4).replace(b"ctorch\nFloatStorage\n", text("torch FloatStorage")), (4,)
        )
    ),
    "a storage of a table": table(
        a=tensor(storage("0", 4).replace(b"torch\nFloatStorage", b"collections\nOrderedDict"), (4,))
    ),
    "another name": PROTOCOL + b"cos\nsystem\n.",
    "a longer name": PROTOCOL + b"ctorch\nFloatStorage.from_file\n.",
    "no table": PROTOCOL + number(1) + STOP,
    "an empty table": PROTOCOL + b"}" + STOP,
    "a number in the table": table(a=number(1)),
    "a storage in the table": table(a=table()[2:-1]),
    "a table of numbers": PROTOCOL + b"}" + number(1) + tensor(OF_FOUR, (4,)) + b"s.",
    "nothing": b"",
    "only its end": STOP,
    "no end": table(a=tensor(OF_FOUR, (4,)))[:-1],
    "two values": table(a=tensor(OF_FOUR, (4,)))[:-1] + number(1) + STOP,
    "an empty stack": PROTOCOL + b"s.",
    "no mark": PROTOCOL + b"t.",
    "an unknown memo": PROTOCOL + b"h\x05.",
    "an unknown opcode": PROTOCOL + b"\xff.",
    "an extension": PROTOCOL + b"\x82\x01.",
    "a deep key": PROTOCOL + b"})" + b"\x85" * 100_000 + tensor(OF_FOUR, (4,)) + b"s.",
}


@pytest.mark.parametrize("content", ALLOWED_NAMES_MISUSED.values(), ids=ALLOWED_NAMES_MISUSED)
def test_a_pickle_of_anything_else_is_refused(path, content):
    with pytest.raises(InputError, match="or no checkpoint of PyTorch"):
        read_tensors(write_archive(path, content, FOUR))


HUGE = 2**31 - 1


@pytest.mark.parametrize(
    "content",
    [
        tensor(OF_FOUR, (5,)),
        tensor(OF_FOUR, (2,), offset=3),
        tensor(OF_FOUR, (2,), offset=-1),
        tensor(OF_FOUR, (-4,)),
        tensor(OF_FOUR, (-1, -4)),
        tensor(OF_FOUR, (HUGE, HUGE, HUGE), strides=(HUGE, HUGE, 1)),
        tensor(OF_FOUR, (HUGE,), strides=(0,)),
        tensor(OF_FOUR, (2,), strides=(2,)),
        tensor(OF_FOUR, (2, 2), strides=(1, 2)),
        tensor(OF_FOUR, (2, 2), strides=(2,)),
        tensor(storage("0", 5), (4,)),
        tensor(storage("0", HUGE), (4,)),
        tensor(storage("0", -4), (4,)),
        tensor(storage("1", 4), (4,)),
        tensor(storage("../data.pkl", 4), (4,)),
        tensor(storage("0", 4, "int64"), (4,)),
        tensor(number(4), (4,)),
    ],
)
def test_a_tensor_that_is_not_in_its_storage_is_refused(path, content):
    with pytest.raises(InputError, match="or no checkpoint of PyTorch"):
        read_tensors(write_archive(path, table(a=content), FOUR))


def test_a_file_that_is_no_archive_or_not_whole_is_refused(path):
    with pytest.raises(InputError, match="No such file"):
        read_tensors(path)
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match="not a zip file"):
        read_tensors(path)
    content = write_archive(path, table(a=tensor(OF_FOUR, (4,))), FOUR).read_bytes()
    for length in range(0, len(content) - 1, 7):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="download it again"):
            read_tensors(path)
    at = content.index(FOUR["0"])
    path.write_bytes(content[:at] + b"\xff" + content[at + 1 :])
    with pytest.raises(InputError, match="CRC"):
        read_tensors(path)


def test_an_archive_of_something_else_is_refused(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(InputError, match=r"there is no data\.pkl"):
        read_tensors(path)


def test_a_bomb_takes_no_memory(path):
    """The process may use as much memory as it has after the imports, and 64 MB."""
    zeros = bytes(2**28)
    bomb = write_archive(
        path, table(a=tensor(storage("0", 2**26), (2**26,))), {"0": zeros}, zipfile.ZIP_DEFLATED
    )
    long_memo = path.with_name("memo.pt")
    write_archive(long_memo, PROTOCOL + b"}r" + struct.pack("<I", 2**32 - 1) + STOP, FOUR)
    large = path.with_name("large.pt")
    write_archive(large, PROTOCOL + b")" * 2**24 + STOP, FOUR)
    program = """
import resource, sys
from fsat_kedro.errors import InputError
from fsat_kedro.modelling.torch_checkpoint import read_tensors
n_pages = int(open("/proc/self/statm").read().split()[0])
limit = n_pages * resource.getpagesize() + 2**26
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[1:]:
    try:
        read_tensors(path)
    except InputError as error:
        print(error)
"""
    command = [sys.executable, "-c", program, *map(str, (bomb, long_memo, large))]
    if not sys.platform.startswith("linux"):
        pytest.skip("the limit is that of Linux")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for reason in ("a member is compressed", "no table of tensors", "data.pkl is too large"):
        assert reason in done.stdout


def test_a_member_that_claims_to_be_larger_than_the_file_is_refused(path):
    content = bytearray(write_archive(path, table(a=tensor(OF_FOUR, (4,))), FOUR).read_bytes())
    for offset in (20, 24):  # The two sizes of a member in the table of contents.
        claim = content.copy()
        claim[content.index(b"PK\1\2") + offset + 3] = 127
        path.write_bytes(claim)
        with pytest.raises(InputError, match="a member is compressed"):
            read_tensors(path)
