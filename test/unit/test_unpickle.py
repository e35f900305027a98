# SPDX-License-Identifier: Apache-2.0
"""Files of torch.save: read exactly, damaged ones refused, and nothing in them ever run."""

import builtins
import collections
import fractions
import io
import os
import pickle
import pickletools
import random
import struct
import subprocess
import sys
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.model.checkpoints.torch_file import KNOWN, read_torch_file
from dimp_ros.model.checkpoints.unpickle import Foreign, unpickle


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args, state=None):
        self.function, self.args, self.state = function, args, state

    def __reduce__(self):
        return (self.function, self.args) if self.state is None else (self.function, self.args, self.state)


class Meter:
    """An object with a state, of a class of this file."""

    def __init__(self):
        self.value = 3


def save(content, path, legacy):
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


both_layouts = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def sample():
    """Return tensors of every kind: types, strides, views that share a storage, empty ones, a scalar, a parameter."""
    base = torch.arange(24.0).view(4, 6)
    return {
        "float": base,
        "transposed": base.t(),
        "part": base[1:3, 2:5],
        "steps": base[:, ::2],
        "expanded": torch.ones(1).expand(3, 2),
        "half": torch.randn(3).half(),
        "bfloat": torch.randn(3).bfloat16(),
        "double": torch.randn(3, dtype=torch.float64),
        "long": torch.tensor(7),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "bools": torch.tensor([True, False, True]),
        "complex": torch.randn(2, dtype=torch.complex64),
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    }


@both_layouts
def test_tensors_come_back_bit_by_bit(tmp_path, legacy):
    content = {"net": collections.OrderedDict(sample()), "epoch": 7, "rate": 0.5, "size": torch.zeros(2, 3).shape}
    loaded = read_torch_file(save(content, tmp_path / "file.pth", legacy))
    assert list(loaded["net"]) == list(content["net"])
    for key, value in content["net"].items():
        got = loaded["net"][key]
        assert type(got) is torch.Tensor and not got.requires_grad
        assert (got.dtype, got.shape, got.stride()) == (value.dtype, value.shape, value.stride()), key
        assert torch.equal(got, value.detach()), key
    assert (loaded["epoch"], loaded["rate"], loaded["size"]) == (7, 0.5, (2, 3))


@both_layouts
def test_tensors_that_shared_numbers_share_them_again(tmp_path, legacy):
    loaded = read_torch_file(save(sample(), tmp_path / "file.pth", legacy))
    loaded["float"][1, 2] = -5
    assert loaded["transposed"][2, 1] == -5 and loaded["part"][0, 0] == -5
    assert loaded["steps"][1, 1] == -5


@pytest.mark.parametrize("protocol", range(6))
def test_plain_objects_of_every_protocol_are_read_as_pickle_reads_them(protocol):
    shared = [1, 2]
    content = {
        "a": (1, (2,), (), (3, 4), (5, 6, 7, 8)),
        "b": [shared, shared],
        3: None,
        "c": [True, False, -(2**70), 1.5],
    }
    content |= {"text": "ü\n", ("x", 1): "pair", "many": list(range(300)), "nested": {"k": {"l": []}}}
    loaded = unpickle(io.BytesIO(pickle.dumps(content, protocol)), {})
    assert loaded == content
    assert loaded["b"][0] is loaded["b"][1]


@pytest.mark.parametrize("protocol", range(6))
def test_other_objects_become_inert_records(protocol):
    content = {"object": Meter(), "class": Meter, "call": Call(fractions.Fraction, 1, 2), "set": {1, 2}}
    content["appended"] = collections.deque([1, 2])
    content["counted"] = collections.Counter("aab")
    loaded = unpickle(io.BytesIO(pickle.dumps(content, protocol)), {})
    assert isinstance(loaded["object"], Foreign)
    assert loaded["object"].state == {"value": 3}
    assert loaded["call"].name == "fractions.Fraction" and loaded["call"].args == (1, 2)
    assert isinstance(loaded["class"], Foreign) and loaded["class"].name.endswith("Meter")
    assert isinstance(loaded["appended"], Foreign) and isinstance(loaded["counted"], Foreign)


def hostile_objects(mark):
    """Return objects whose unpickling by pickle leaves a mark."""
    touch = f"open({str(mark)!r}, 'w').close()"
    return {
        "system": Call(os.system, f"touch '{mark}'"),
        "exec": Call(builtins.exec, touch),
        "eval": Call(builtins.eval, f"open({str(mark)!r}, 'w')"),
        "open": Call(open, str(mark), "w"),
        "in a state": Call(Meter, state={"value": Call(os.system, f"touch '{mark}'")}),
        "as a key": {Call(os.mkdir, str(mark)): 1},
        "nested": [[Call(builtins.map, builtins.exec, [touch])]],
        "loader": Call(pickle.loads, pickle.dumps(Call(os.system, f"touch '{mark}'"))),
    }


@both_layouts
@pytest.mark.parametrize("name", list(hostile_objects("")))
def test_what_a_file_wants_to_run_does_not_run(tmp_path, name, legacy):
    mark = tmp_path / "it ran"
    path = save({"net": {"w": torch.ones(2)}, "evil": hostile_objects(mark)[name]}, tmp_path / "evil.pth", legacy)
    loaded = read_torch_file(path)
    assert torch.equal(loaded["net"]["w"], torch.ones(2))
    assert not mark.exists()


def test_the_hostile_files_do_run_when_pickle_reads_them(tmp_path):
    """Without this the test above would pass with files that are not hostile at all."""
    for name in ("system", "exec", "open", "in a state", "loader"):
        mark = tmp_path / name
        pickle.loads(pickle.dumps(hostile_objects(mark)[name]))
        assert mark.exists(), name


def opcodes(*parts):
    """Join opcodes to a pickle."""
    return b"\x80\x04" + b"".join(parts) + b"."


def text(value):
    return pickle.SHORT_BINUNICODE + bytes([len(value)]) + value.encode()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch._utils", "os.system"),
        ("collections", "OrderedDict.__init__.__globals__"),
        ("torch", "Size.__mro__"),
        ("torch", "load"),
        ("torch.serialization", "os.system"),
        ("dimp_ros.model.checkpoints.torch_file", "read_torch_file"),
        ("builtins", "eval"),
        ("", ""),
    ],
)
def test_only_the_exact_names_of_the_table_are_known(module, name):
    by_stack = opcodes(text(module), text(name), pickle.STACK_GLOBAL, text("x"), pickle.TUPLE1, pickle.REDUCE)
    by_line = opcodes(b"c" + module.encode() + b"\n" + name.encode() + b"\n", text("x"), pickle.TUPLE1, pickle.REDUCE)
    old_instance = opcodes(b"(", text("x"), b"i" + module.encode() + b"\n" + name.encode() + b"\n")
    for program in (by_stack, by_line, old_instance):
        made = unpickle(io.BytesIO(program), KNOWN)
        assert isinstance(made, Foreign) and made.args == ("x",)


def test_no_attribute_of_what_is_known_is_replaced():
    """BUILD with a state sets attributes of whatever lies on the stack; here nothing but a record takes a state."""
    state = pickle.dumps((None, {"function": 1, "__defaults__": (1,)}), 2)[2:-1]
    for module, name in KNOWN:
        program = opcodes(text(module), text(name), pickle.STACK_GLOBAL, state, pickle.BUILD)
        assert unpickle(io.BytesIO(program), KNOWN) is KNOWN[module, name]


GUARD = """
import sys, torch, encodings.idna
from dimp_ros.model.checkpoints.torch_file import read_torch_file
read_torch_file(sys.argv[1])  # what is imported lazily is imported now
def guard(event, args):
    forbidden = ("import", "compile", "exec", "pickle", "os", "subprocess", "ctypes")
    if event.split(".")[0] in forbidden:
        raise SystemExit(f"{event} {args}")
    if event == "open" and not str(args[0]).endswith(".pth"):
        raise SystemExit(f"{event} {args}")
sys.addaudithook(guard)
for path in sys.argv[1:]:
    read_torch_file(path)
print("nothing happened")
"""


def test_reading_hostile_files_imports_compiles_and_starts_nothing(tmp_path):
    torch.save({"net": {}}, tmp_path / "plain.pth")
    paths = [tmp_path / "plain.pth"]
    for legacy in (False, True):
        for name, content in hostile_objects(tmp_path / "it ran").items():
            paths.append(save({"net": content}, tmp_path / f"{name}-{legacy}.pth", legacy))
    command = [sys.executable, "-c", GUARD, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == "nothing happened", done.stderr


# Damage


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    content = {"net": sample(), "stats": [Meter(), {"a": 1.5}]}
    return [save(content, folder / f"{legacy}.pth", legacy).read_bytes() for legacy in (False, True)]


def read_bytes(data, folder):
    path = folder / "damaged.pth"
    path.write_bytes(data)
    return read_torch_file(path)


@settings(deadline=None, max_examples=60)
@given(which=st.integers(0, 1), share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(files, tmp_path_factory, which, share):
    data = files[which]
    with pytest.raises(ValueError, match=r"damaged\.pth"):
        read_bytes(data[: int(share * len(data))], tmp_path_factory.getbasetemp())


@settings(deadline=None, max_examples=120)
@given(which=st.integers(0, 1), seed=st.integers(0, 2**32 - 1), changes=st.integers(1, 20))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(files, tmp_path_factory, which, seed, changes):
    draw, data = random.Random(seed), bytearray(files[which])
    for _ in range(changes):
        place = draw.randrange(len(data))
        if draw.random() < 0.3:
            del data[place : place + draw.randrange(9)]
        else:
            data[place] = draw.choice([0, 255, 46, 82, 98, draw.randrange(256)])
    try:
        read_bytes(bytes(data), tmp_path_factory.getbasetemp())
    except ValueError:
        pass


programs = st.lists(
    st.sampled_from([opcode.code.encode("latin-1") for opcode in pickletools.opcodes]) | st.binary(max_size=3)
)


@settings(deadline=None, max_examples=200)
@given(programs.map(b"".join))
def test_any_row_of_opcodes_is_read_or_refused_and_nothing_else(program):
    try:
        unpickle(io.BytesIO(program + b"."), KNOWN, lambda _: None)
    except ValueError:
        pass


def test_what_is_no_file_of_torch_is_refused(tmp_path):
    for data in (b"", b"PK\x03\x04", b"{}", pickle.dumps({"net": {}}), b"\x80\x02."):
        with pytest.raises(ValueError, match=r"damaged\.pth"):
            read_bytes(data, tmp_path)
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match=r"no data\.pkl"):
        read_torch_file(tmp_path / "other.pth")


def tensor_program(count, offset, size, stride, key="0", dtype="FloatStorage"):
    """Write the pickle of one tensor by hand, as protocol 2."""

    class Persistent:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            return ("storage", getattr(torch, dtype), key, "cpu", count) if isinstance(item, Persistent) else None

    stream = io.BytesIO()
    call = Call(torch._utils._rebuild_tensor_v2, Persistent(), offset, size, stride, False, {})
    Pickler(stream, 2).dump(call)
    return stream.getvalue()


def archive_of(program, storages, path, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("a/version", "3\n")  # for torch.load
        for key, data in storages.items():
            archive.writestr(f"a/data/{key}", data)
    return path


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ((4, 0, (5,), (1,)), "reaches to number 4"),
        ((4, 4, (1,), (1,)), "reaches to number 4"),
        ((4, -1, (1,), (1,)), "whole numbers"),
        ((4, 0, (2, 2), (-1, 1)), "whole numbers"),
        ((4, 0, (2, 2), (3, 2)), "reaches to number 5"),
        ((4, 0, (2, 2), (1,)), "2 sizes and 1 strides"),
        ((4, 0, (2**62, 2**62), (0, 0)), "out of all proportion"),
        ((4, 0, (2,), (2**63,)), "out of all proportion"),
        ((4, 0, (2.0,), (1,)), "whole numbers"),
        ((5, 0, (4,), (1,)), "has 16 bytes"),
        ((2**50, 0, (4,), (1,)), "larger than the file"),
        ((-1, 0, (4,), (1,)), "kind, key or length"),
        ((4, 0, (0, 2**62), (1, 1)), "out of all proportion"),
    ],
)
def test_a_view_beyond_its_storage_is_refused_before_any_memory_is_taken(tmp_path, view, words):
    path = archive_of(tensor_program(*view), {"0": bytes(16)}, tmp_path / "damaged.pth")
    with pytest.raises(ValueError, match=words):
        read_torch_file(path)


def test_the_hand_written_file_is_otherwise_a_good_one(tmp_path):
    data = struct.pack("<4f", 1, 2, 3, 4)
    path = archive_of(tensor_program(4, 1, (3,), (1,)), {"0": data}, tmp_path / "good.pth")
    assert read_torch_file(path).tolist() == [2, 3, 4]
    assert torch.load(path, weights_only=True).tolist() == [2, 3, 4]


def test_an_archive_that_unpacks_to_more_than_itself_is_refused(tmp_path):
    program = tensor_program(2**20, 0, (2**20,), (1,))
    path = archive_of(program, {"0": bytes(2**22)}, tmp_path / "bomb.pth", zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**16
    with pytest.raises(ValueError, match="compressed"):
        read_torch_file(path)


def test_lengths_and_numbers_in_a_pickle_take_no_memory():
    """The length of a text, or the number of a place in the memo, may be anything up to 2 ** 64."""
    huge = struct.pack("<Q", 2**62)
    for program in (
        opcodes(pickle.BINUNICODE8, huge),
        opcodes(pickle.BINBYTES8, huge),
        opcodes(pickle.BYTEARRAY8, huge),
        opcodes(pickle.LONG4, struct.pack("<i", 2**31 - 1)),
    ):
        with pytest.raises(ValueError):
            unpickle(io.BytesIO(program), {})
    program = opcodes(pickle.NONE, pickle.LONG_BINPUT, struct.pack("<I", 2**32 - 1))
    assert unpickle(io.BytesIO(program), {}) is None


def test_deep_nesting_does_not_overflow_the_stack():
    deep = pickle.EMPTY_TUPLE + pickle.TUPLE1 * 100_000
    assert isinstance(unpickle(io.BytesIO(opcodes(deep)), {}), tuple)
    keyed = unpickle(io.BytesIO(opcodes(pickle.EMPTY_DICT, deep, pickle.NONE, pickle.SETITEM)), {})
    assert [type(key) for key in keyed] == [Foreign]


@both_layouts
def test_a_bool_is_zero_or_one_whatever_the_file_says(tmp_path, legacy):
    path = save(torch.tensor([True, True, True]), tmp_path / "bools.pth", legacy)
    if legacy:
        path.write_bytes(path.read_bytes()[:-3] + bytes([0, 1, 77]))
        assert read_torch_file(path).view(torch.uint8).tolist() == [0, 1, 1]
    else:
        assert read_torch_file(path).tolist() == [True] * 3
