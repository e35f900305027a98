# SPDX-License-Identifier: Apache-2.0
"""Files of torch.save: tensors are read exactly, no code is run, hostile files cost bounded time."""

import builtins
import collections
import io
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import time
import zipfile
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.model.checkpoints import torch_file
from dimp_ros.model.checkpoints.torch_file import read_torch_file

both_layouts = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
NET = {"w": torch.ones(2)}


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args, state=None):
        self.function, self.args, self.state = function, args, state

    def __reduce__(self):
        return (self.function, self.args) if self.state is None else (self.function, self.args, self.state)


class Meter:
    """An object with a state, of a class that the reader does not know."""

    def __init__(self):
        self.value = 3


def save(content, path, legacy=False):
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def archive_of(program, storages, path, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("a/version", "3\n")  # for torch.load
        for key, data in storages.items():
            archive.writestr(f"a/data/{key}", data)
    return path


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
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    }


# What is read


@both_layouts
def test_tensors_come_back_bit_by_bit(tmp_path, legacy):
    net = collections.OrderedDict(sample())
    net._metadata = {"": {"version": 1}}  # as state_dict() has it
    content = {"net": net, "epoch": 7, "stats": [Meter(), {1, 2}], Meter: collections.deque([1])}
    loaded = read_torch_file(save(content, tmp_path / "file.pth", legacy))
    assert list(loaded.tensors) == list(net)
    for key, value in net.items():
        got = loaded.tensors[key]
        assert type(got) is torch.Tensor and not got.requires_grad
        assert (got.dtype, got.shape, got.stride()) == (value.dtype, value.shape, value.stride()), key
        assert torch.equal(got, value.detach()), key
    assert loaded.entries == ["epoch", "stats", "a type"] and loaded.info == ""


@both_layouts
def test_shared_storages_are_shared_again(tmp_path, legacy):
    tensors = read_torch_file(save(sample(), tmp_path / "file.pth", legacy)).tensors
    tensors["float"][1, 2] = -5
    assert tensors["transposed"][2, 1] == -5 and tensors["part"][0, 0] == -5 and tensors["steps"][1, 1] == -5


def test_a_bool_is_zero_or_one_whatever_the_file_says(tmp_path):
    path = save({"b": torch.tensor([True, True, True])}, tmp_path / "bools.pth", legacy=True)
    path.write_bytes(path.read_bytes()[:-3] + bytes([0, 1, 77]))
    assert read_torch_file(path).tensors["b"].view(torch.uint8).tolist() == [0, 1, 1]


# Nothing is run


def hostile_objects(mark):
    """Return objects whose unpickling by pickle leaves a mark."""
    touch = f"open({str(mark)!r}, 'w').close()"
    return {
        "system": Call(os.system, f"touch '{mark}'"),
        "exec": Call(builtins.exec, touch),
        "open": Call(open, str(mark), "w"),
        "state": Call(Meter, state={"value": Call(os.system, f"touch '{mark}'")}),
        "loader": Call(pickle.loads, pickle.dumps(Call(os.system, f"touch '{mark}'"))),
        "key": {Call(os.mkdir, str(mark)): 1},
        "nested": [[Call(builtins.map, builtins.exec, [touch])]],
    }


@both_layouts
@pytest.mark.parametrize("name", list(hostile_objects("")))
def test_calls_in_a_file_are_not_run(tmp_path, name, legacy):
    mark = tmp_path / "it ran"
    path = save({"net": NET, "evil": hostile_objects(mark)[name]}, tmp_path / "evil.pth", legacy)
    assert torch.equal(read_torch_file(path).tensors["w"], torch.ones(2))
    assert not mark.exists()


def test_the_hostile_files_do_run_when_pickle_reads_them(tmp_path):
    for name in ("system", "exec", "open", "state", "loader"):
        mark = tmp_path / name
        pickle.loads(pickle.dumps(hostile_objects(mark)[name]))
        assert mark.exists(), name
    for number in (0, 1, 4, 5):  # REDUCE, OBJ and INST; the other ways want a class, or a registered extension
        mark = tmp_path / str(number)
        pickle.loads(opcodes(calls("os", "system", f"touch '{mark}'")[number]))
        assert mark.exists(), number


def opcodes(*parts):
    """Join opcodes to a pickle of a dict that holds what they leave on the stack."""
    return b"\x80\x04}" + text("evil") + b"".join(parts) + b"s."


def text(value):
    return pickle.SHORT_BINUNICODE + bytes([len(value)]) + value.encode()


def calls(module, name, argument):
    """Return every way in which opcodes can call a global with a text."""
    line = module.encode() + b"\n" + name.encode() + b"\n"
    by_line, by_stack = b"c" + line, text(module) + text(name) + pickle.STACK_GLOBAL
    args = text(argument) + pickle.TUPLE1
    return [
        by_line + args + pickle.REDUCE,
        by_stack + args + pickle.REDUCE,
        by_stack + args + pickle.NEWOBJ,
        by_stack + args + pickle.EMPTY_DICT + pickle.NEWOBJ_EX,
        pickle.MARK + by_line + text(argument) + pickle.OBJ,
        pickle.MARK + text(argument) + b"i" + line,
        pickle.EXT1 + b"\1" + args + pickle.REDUCE,
        by_stack + text(argument) + pickle.BUILD,
        by_stack + pickle.EMPTY_DICT + text("__call__") + by_stack + b"s" + pickle.BUILD + args + pickle.REDUCE,
    ]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("torch._utils", "os.system"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("collections", "OrderedDict.__init__.__globals__"),
        ("torch.serialization", "os.system"),
        ("__main__", "os.system"),
        ("pickle", "os"),
    ],
)
def test_no_opcode_reaches_a_global_outside_the_table(tmp_path, module, name):
    mark = tmp_path / "it ran"
    for program in calls(module, name, f"touch '{mark}'"):
        try:
            read_torch_file(archive_of(opcodes(program), {}, tmp_path / "evil.pth"))
        except ValueError:
            pass
        assert not mark.exists()


# Hostile files cost bounded time and memory


def shared_lists(depth=100):
    """Return 2 ** depth numbers in ``depth`` lists."""
    content = [1, 1]
    for _ in range(depth):
        content = [content, content]
    return content


def shared_tuples(depth=100):
    content = (1, 1)
    for _ in range(depth):
        content = (content, content)
    return content


def colliding(opcode, empty=b"", values=b""):
    """Return a container of numbers with one hash, written by hand: building it takes too long."""
    numbers = (pickle.dumps(number * sys.hash_info.modulus, 2)[2:-1] + values for number in range(1, 40_000))
    return opcodes(empty, pickle.MARK, *numbers, opcode)


@both_layouts
@pytest.mark.parametrize("entry", [shared_lists(), shared_tuples(), [[[]]] * 1000], ids=["lists", "tuples", "repeated"])
def test_deep_sharing_beside_the_tensors_costs_nothing(tmp_path, entry, legacy):
    path = save({"net": NET, "stats": entry}, tmp_path / "file.pth", legacy)
    assert read_torch_file(path).entries == ["stats"]


HUGE = struct.pack("<Q", 2**62)
BOMBS = {
    "shared lists in our entry": lambda: pickle.dumps({"net": 0, "dimp_ros": shared_lists()}),
    "shared tuples as a key": lambda: opcodes(b"}", pickle.dumps(shared_tuples(), 4)[2:-1], b"Ns"),
    "keys of a dict": lambda: colliding(pickle.SETITEMS, pickle.EMPTY_DICT, pickle.NONE),
    "items of a set": lambda: colliding(pickle.ADDITEMS, pickle.EMPTY_SET),
    "items of a frozenset": lambda: colliding(pickle.FROZENSET),
    "a deep key": lambda: opcodes(b"}", pickle.EMPTY_TUPLE + pickle.TUPLE1 * 1_000_000, b"Ns"),
    "deep lists": lambda: opcodes(pickle.EMPTY_LIST * 100_000 + pickle.APPEND * 99_999),
    "memo": lambda: opcodes(pickle.NONE, pickle.LONG_BINPUT, struct.pack("<I", 2**32 - 1)),
    "text": lambda: opcodes(pickle.BINUNICODE8, HUGE),
    "bytes": lambda: opcodes(pickle.BINBYTES8, HUGE),
    "bytearray": lambda: opcodes(pickle.BYTEARRAY8, HUGE),
    "bytearray of 3 GiB": lambda: opcodes(pickle.BYTEARRAY8, struct.pack("<Q", 3 << 30)),
    "frame": lambda: opcodes(pickle.FRAME, HUGE),
    "number": lambda: opcodes(pickle.LONG4, struct.pack("<i", 2**31 - 1)),
    "digits": lambda: opcodes(b"I" + b"9" * 1_000_000 + b"\n"),
    "long names": lambda: pickle.dumps({"a" * 10**6: 1, "b" * 10**6: 2}),
    "many names": lambda: pickle.dumps({f"name {number}": 0 for number in range(10**5)}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_bounded_time_with_a_short_text(tmp_path, monkeypatch, name):
    monkeypatch.setattr(torch_file, "CPU_SECONDS", 1)
    path = archive_of(BOMBS[name](), {}, tmp_path / "bomb.pth")
    used = os.times()
    with pytest.raises(ValueError, match=r"bomb\.pth") as error:
        read_torch_file(path)
    assert os.times().children_user - used.children_user < 3 and os.times().user - used.user < 3
    assert len(str(error.value)) < 1000 and str(error.value).isprintable()


def test_the_wall_clock_is_bounded_too(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "WALL_SECONDS", 0.5)
    path = archive_of(BOMBS["shared tuples as a key"](), {}, tmp_path / "bomb.pth")
    with pytest.raises(ValueError, match=r"timed out after 0\.5 s"):
        read_torch_file(path)


LOADING = """
import signal, sys
from dimp_ros.model.checkpoints.torch_file import read_torch_file
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("loading", flush=True)
read_torch_file(sys.argv[1])
"""


def test_a_signal_ends_the_loading_of_a_bomb(tmp_path):
    path = archive_of(BOMBS["shared tuples as a key"](), {}, tmp_path / "bomb.pth")
    with subprocess.Popen([sys.executable, "-c", LOADING, str(path)], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        time.sleep(0.5)
        process.terminate()
        begin = time.monotonic()
        assert process.wait(timeout=60) == 7
    assert time.monotonic() - begin < 5


def tensor_program(count, offset, size, stride):
    """Write the pickle of one tensor by hand, as protocol 2."""

    def written(*values):
        return b"".join(pickle.dumps(value, 2)[2:-1] for value in values)

    storage = b"(" + written("storage") + b"ctorch\nFloatStorage\n" + written("0", "cpu", count) + b"tQ"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + written(offset, size, stride, False, {}) + b"tR"
    return b"\x80\x02}" + written("w") + call + b"s."


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ((4, 0, (5,), (1,)), "out of bounds"),
        ((4, 4, (1,), (1,)), "out of bounds"),
        ((4, -1, (1,), (1,)), "offset -1"),
        ((4, 0, (2, 2), (-1, 1)), "stride"),
        ((4, 0, (2, 2), (3, 2)), "out of bounds"),
        ((4, 0, (2, 2), (1,)), "stride"),
        ((4, 0, (2**62, 2**62), (0, 0)), "beyond"),
        ((4, 0, (0, 2**62), (1, 1)), "beyond"),
        ((4, 0, (2,), (2**63,)), "stride"),
        ((4, 0, (2.0,), (1,)), "invalid"),
        ((5, 0, (4,), (1,)), "has 16 bytes"),
        ((2**50, 0, (4,), (1,)), "bytes together"),
        ((-1, 0, (4,), (1,)), "type, key or length"),
    ],
)
def test_a_view_beyond_its_storage_is_refused(tmp_path, view, words):
    path = archive_of(tensor_program(*view), {"0": bytes(16)}, tmp_path / "damaged.pth")
    with pytest.raises(ValueError, match=words):
        read_torch_file(path)


def test_the_hand_written_file_is_otherwise_a_good_one(tmp_path):
    data = struct.pack("<4f", 1, 2, 3, 4)
    path = archive_of(tensor_program(4, 1, (3,), (1,)), {"0": data}, tmp_path / "good.pth")
    assert read_torch_file(path).tensors["w"].tolist() == [2, 3, 4]
    assert torch.load(path, weights_only=True)["w"].tolist() == [2, 3, 4]


def test_a_declared_storage_of_an_old_file_takes_no_memory(tmp_path):
    path = save({"net": NET}, tmp_path / "old.pth", legacy=True)
    count = pickle.dumps(2, 2)[2:-1] + b"Nt"  # of the storage, the last but one of its persistent id
    data = path.read_bytes().replace(count, pickle.dumps(2**31 - 1, 2)[2:-1] + b"Nt")
    path.write_bytes(data)
    with pytest.raises(ValueError, match="another length"):
        read_torch_file(path)


def test_a_zip_bomb_is_refused(tmp_path):
    path = archive_of(
        tensor_program(2**20, 0, (2**20,), (1,)), {"0": bytes(2**22)}, tmp_path / "bomb.pth", zipfile.ZIP_DEFLATED
    )
    assert path.stat().st_size < 2**16
    with pytest.raises(ValueError, match="compressed"):
        read_torch_file(path)


def test_overlapping_storages_are_refused(tmp_path):
    """Every storage of the archive holds all later ones with their headers, so that few bytes count many times."""
    data = bytes(2**20)
    for key in reversed(range(20)):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as one:
            one.writestr(f"a/data/{key}", data)
        data = packed.getvalue()[: one.start_dir]
    path, starts = tmp_path / "overlap.pth", len(data)
    net = {str(key): torch.zeros(1) for key in range(20)}
    with zipfile.ZipFile(save({"net": net}, tmp_path / "plain.pth")) as plain:
        names = [n for n in plain.namelist() if "/data/" in n]
        program = plain.read(next(n for n in plain.namelist() if n.endswith("data.pkl")))
    assert len(names) == 20
    program = program.replace(b"FloatStorage", b"ByteStorage")
    program = re.sub(rb"K\x01t(q.|r....)?Q", b"J" + struct.pack("<i", 2**20) + b"tQ", program, flags=re.DOTALL)
    path.write_bytes(data)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/data.pkl", program)
        offset = size = 0
        for key in range(20):
            entry = zipfile.ZipInfo(f"a/data/{key}")
            header = 30 + len(entry.filename)
            size = starts - offset - header
            entry.header_offset, entry.file_size, entry.compress_size = offset, size, size
            entry.CRC = zlib.crc32(data[offset + header :])
            archive.filelist.append(entry)
            archive.NameToInfo[entry.filename] = entry
            offset += header
        archive._didModify = True
    with pytest.raises(ValueError, match=r"bytes together, and the file has \d+"):
        read_torch_file(path)


def test_only_regular_files_of_bounded_size_are_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.pth")
    (tmp_path / "folder.pth").mkdir()
    with (tmp_path / "sparse.pth").open("wb") as file:
        file.truncate(2**40)
    for name, words in (("fifo", "FIFO"), ("folder", "folder"), ("sparse", "at most")):
        with pytest.raises(ValueError, match=words):
            read_torch_file(tmp_path / f"{name}.pth")


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


@settings(deadline=None, max_examples=20)
@given(which=st.integers(0, 1), share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(files, tmp_path_factory, which, share):
    data = files[which]
    with pytest.raises(ValueError, match=r"damaged\.pth"):
        read_bytes(data[: int(share * len(data))], tmp_path_factory.getbasetemp())


@settings(deadline=None, max_examples=40)
@given(which=st.integers(0, 1), seed=st.integers(0, 2**32 - 1), changes=st.integers(1, 20))
def test_a_damaged_file_is_read_or_refused_with_its_name(files, tmp_path_factory, which, seed, changes):
    draw, data = random.Random(seed), bytearray(files[which])
    for _ in range(changes):
        place = draw.randrange(len(data))
        if draw.random() < 0.3:
            del data[place : place + draw.randrange(9)]
        else:
            data[place] = draw.choice([0, 255, 46, 82, 98, draw.randrange(256)])
    try:
        read_bytes(bytes(data), tmp_path_factory.getbasetemp())
    except ValueError as error:
        assert "damaged.pth" in str(error) and len(str(error)) < 1000


def test_other_files_are_refused(tmp_path):
    for data in (b"", b"PK\x03\x04", b"{}", pickle.dumps({"net": {}}), b"\x80\x02."):
        with pytest.raises(ValueError, match=r"damaged\.pth"):
            read_bytes(data, tmp_path)
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match=r"no data\.pkl"):
        read_torch_file(tmp_path / "other.pth")
