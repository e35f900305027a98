# SPDX-License-Identifier: Apache-2.0
"""Reading pickles without running them.

A pickle is a program that may call any function of the machine it is read on. `unpickle` is an interpreter of that
language in which there is nothing to call but the functions it is given: every other global becomes a `Foreign`, an
inert record of what the pickle wanted. No module is imported, no attribute is looked up, no method of a class runs.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO


class Foreign:
    """Stands for a global that is not known here, or for an object that the pickle wanted to make with one.

    :param name: ``module.name`` of the global.
    :param args: what it was to be called with. ``state`` is what the object was to be given afterwards, ``items`` what
        was to be appended to it, or set in it as pairs.
    """

    __slots__ = ("args", "items", "name", "state")

    def __init__(self, name: str, args: Any = ()) -> None:
        self.name = name
        self.args = args
        self.state: Any = None
        self.items: list[Any] = []

    def __repr__(self) -> str:
        return f"<foreign {ascii(self.name)[:100]}>"


@dataclass(frozen=True)
class Known:
    """A global that a pickle may call: ``function`` is ours and checks its arguments, raising ValueError."""

    function: Callable[..., Any]


def unpickle(
    stream: BinaryIO,
    known: Mapping[tuple[str, str], Any],
    persistent_load: Callable[[Any], Any] | None = None,
) -> Any:
    """Read one pickle from a stream, which is left right behind it.

    :param stream: with bounded reads, like ``io.BytesIO``: a length in the pickle must not allocate memory.
    :param known: what globals stand for, by module and name: a `Known`, or a value.
    :param persistent_load: what a persistent id stands for; None where there may be none.
    :raises ValueError: if it is damaged, truncated, or asks for what this cannot do.
    """
    machine = _Machine(known, persistent_load)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.run(opcode.name, argument)
    except (IndexError, KeyError, OverflowError, MemoryError) as error:
        raise ValueError(f"damaged pickle: {type(error).__name__} {error}") from error
    raise ValueError("damaged pickle: it has no end")


_LITERALS = frozenset(
    """INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE
    SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8""".split()
)
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The pickle machine: a stack, a stack of set-aside stacks (one per mark), and a memo."""

    def __init__(self, known: Mapping[tuple[str, str], Any], persistent_load: Callable[[Any], Any] | None) -> None:
        self.known = known
        self.persistent_load = persistent_load
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        """Carry out one operation."""
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            count = _TUPLES[name]
            if len(self.stack) < count:
                raise ValueError("damaged pickle: a tuple lacks items")
            self.stack[-count:] = [tuple(self.stack[-count:])]
        else:
            operation = getattr(self, "op_" + name.lower(), None)
            if operation is None:
                raise ValueError(f"damaged pickle: operation {name} has no place in a checkpoint")
            operation(argument)

    def pop_mark(self) -> list[Any]:
        """Take everything above the last mark."""
        items, self.stack = self.stack, self.marked.pop()
        return items

    def op_proto(self, _: int) -> None:
        """Accept any protocol: an operation that is not known is refused when it comes."""

    def op_frame(self, _: int) -> None:
        """Ignore frames: they only help to read ahead."""

    def op_mark(self, _: None) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def op_pop(self, _: None) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def op_pop_mark(self, _: None) -> None:
        self.pop_mark()

    def op_dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    # Memo

    def op_put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    op_binput = op_long_binput = op_put

    def op_memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def op_get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    op_binget = op_long_binget = op_get

    # Containers

    def op_list(self, _: None) -> None:
        items = self.pop_mark()
        self.stack.append(items)

    def op_tuple(self, _: None) -> None:
        items = self.pop_mark()
        self.stack.append(tuple(items))

    def op_dict(self, _: None) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self.set_items(items)

    def op_frozenset(self, _: None) -> None:
        items = self.pop_mark()
        self.stack.append(frozenset(map(_key, items)))

    def op_append(self, _: None) -> None:
        self.extend([self.stack.pop()])

    def op_appends(self, _: None) -> None:
        self.extend(self.pop_mark())

    def op_additems(self, _: None) -> None:
        self.extend(self.pop_mark())

    def extend(self, items: list[Any]) -> None:
        """Add items to the list, set or foreign object on the stack."""
        target = self.stack[-1]
        if isinstance(target, Foreign):
            target.items += items
        elif isinstance(target, list):
            target += items
        elif isinstance(target, set):
            target.update(map(_key, items))
        else:
            raise ValueError(f"damaged pickle: items are added to a {type(target).__name__}")

    def op_setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def op_setitems(self, _: None) -> None:
        self.set_items(self.pop_mark())

    def set_items(self, items: list[Any]) -> None:
        """Set alternating keys and values in the dict or foreign object on the stack."""
        if len(items) % 2:
            raise ValueError("damaged pickle: a key has no value")
        target, pairs = self.stack[-1], zip(items[::2], items[1::2], strict=True)
        if isinstance(target, Foreign):
            target.items += pairs
        elif isinstance(target, dict):
            target.update((_key(key), value) for key, value in pairs)
        else:
            raise ValueError(f"damaged pickle: items are set in a {type(target).__name__}")

    # Globals and objects

    def find(self, module: Any, name: Any) -> Any:
        """Return what a global stands for: exactly the pair is looked up, nothing is imported."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("damaged pickle: a global's name is no text")
        return self.known[module, name] if (module, name) in self.known else Foreign(f"{module}.{name}")

    def op_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(self.find(module, name))

    def op_stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self.find(module, name))

    def op_ext1(self, code: int) -> None:
        self.stack.append(Foreign(f"extension.{code}"))

    op_ext2 = op_ext4 = op_ext1

    def make(self, maker: Any, args: Any, named: Any = None) -> None:
        """Push what ``maker(*args)`` is: of a foreign maker a record, of a known one its function's result."""
        if isinstance(maker, Foreign):
            self.stack.append(Foreign(maker.name, args if not named else (args, named)))
        elif isinstance(maker, Known) and isinstance(args, tuple) and not named:
            try:
                self.stack.append(maker.function(*args))
            except TypeError as error:
                raise ValueError(f"damaged pickle: wrong arguments for a known function ({error})") from error
        else:
            raise ValueError(f"damaged pickle: a {type(maker).__name__} is called")

    def op_reduce(self, _: None) -> None:
        args, maker = self.stack.pop(), self.stack.pop()
        self.make(maker, args)

    op_newobj = op_reduce

    def op_newobj_ex(self, _: None) -> None:
        named, args, maker = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.make(maker, args, named)

    def op_obj(self, _: None) -> None:
        maker, *args = self.pop_mark() or [None]
        self.make(maker, tuple(args))

    def op_inst(self, argument: str) -> None:
        args = self.pop_mark()
        module, _, name = argument.partition(" ")
        self.make(self.find(module, name), tuple(args))

    def op_build(self, _: None) -> None:
        """Keep a foreign object's state; the attributes that a dict or a tensor was to get are dropped."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Foreign):
            self.stack[-1].state = state

    def op_binpersid(self, _: None) -> None:
        if self.persistent_load is None:
            raise ValueError("damaged pickle: a persistent id where there are none")
        self.stack.append(self.persistent_load(self.stack.pop()))


def _key(key: Any) -> Any:
    """Return a key for a dict or a set; what is no scalar and no flat tuple of scalars becomes a `Foreign`.

    Hashing a tuple hashes what is in it: of a deeply nested one that overflows the C stack.
    """
    scalars = (str, bytes, int, float, type(None), Foreign)
    if all(isinstance(item, scalars) for item in (key if isinstance(key, tuple) else (key,))):
        return key
    return Foreign(f"key.{type(key).__name__}")
