"""Pickles of plain values, interpreted here instead of being loaded.

Python's own unpickler calls what a file names, makes room for any number that a file gives a
remembered value, and hashes tuples however deep, which ends the interpreter. This one knows the
opcodes that PyTorch's weights-only rules allow for state dicts, those by which later protocols
write the same, and bytes, in which Python 2 wrote texts and NumPy writes arrays.
"""

import abc
import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any

_KEYS = (str, bytes, int, float, bool, type(None))


@dataclasses.dataclass(frozen=True, eq=False)
class Function:
    """What a pickle gets for what it names; `function` is None where that may not be called."""

    name: str
    function: Callable[..., Any] | None = None


class Built(abc.ABC):
    """What a pickle makes in place of an object, and then gives a state."""

    @abc.abstractmethod
    def set_state(self, state: Any) -> None:
        """Takes what the pickle says of the object, of any type and size."""


class StateDict(dict, Built):
    """What a pickle fills in place of an OrderedDict."""

    def set_state(self, state: Any) -> None:
        """Does nothing: attributes of a state dict are versions of modules."""


def interpret(
    program: bytes, named: Callable[[str, str], Function], persistent: Callable[[Any], Any]
) -> Any:
    """Returns the value of a pickle, in time and memory that are linear in its length.

    `named` says what stands for a name in a module, and `persistent` for a reference to something
    outside. A ValueError, IndexError, KeyError or TypeError says that the pickle is damaged, or
    holds other values.
    """
    machine = _Machine(named, persistent)
    for opcode, argument, _ in pickletools.genops(program):
        if opcode.name == "STOP":
            return machine.stack.pop()
        machine.do(opcode.name, argument)
    raise ValueError("the pickle has no end")


class _Machine:
    def __init__(self, named: Callable[[str, str], Function], persistent: Callable[[Any], Any]):
        self._named, self._persistent = named, persistent
        self.stack: list[Any] = []
        self._below_marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def do(self, opcode: str, argument: Any) -> None:
        match opcode:
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                self.stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINSTRING" | "SHORT_BINSTRING":
                self.stack.append(argument)
            case "BINBYTES" | "SHORT_BINBYTES":
                self.stack.append(argument)
            case "NONE":
                self.stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                self.stack.append(opcode == "NEWTRUE")
            case "EMPTY_LIST":
                self.stack.append([])
            case "EMPTY_DICT":
                self.stack.append({})
            case "EMPTY_TUPLE":
                self.stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(tuple(self._last(int(opcode[-1]))))
            case "TUPLE":
                values = tuple(self._since_mark())
                self.stack.append(values)
            case "MARK":
                self._below_marks.append(self.stack)
                self.stack = []
            case "GLOBAL":
                self.stack.append(self._named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                module, name = (_need(value, str) for value in self._last(2))
                self.stack.append(self._named(module, name))
            case "BINPERSID":
                self.stack.append(self._persistent(self.stack.pop()))
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                self.stack.append(self._memo[argument])
            case "REDUCE":
                called, arguments = self._last(2)
                if _need(called, Function).function is None:
                    raise TypeError(f"{called.name} was called")
                self.stack.append(called.function(*_need(arguments, tuple)))
            case "BUILD":
                target, state = self._last(2)
                _need(target, Built).set_state(state)
                self.stack.append(target)
            case "SETITEM" | "SETITEMS":
                values = self._since_mark() if opcode == "SETITEMS" else self._last(2)
                _set_items(self.stack[-1], values)
            case "APPEND" | "APPENDS":
                values = self._since_mark() if opcode == "APPENDS" else self._last(1)
                _need(self.stack[-1], list).extend(values)
            case "PROTO" | "FRAME":
                pass
            case _:
                raise ValueError(f"opcode {opcode} is for other values")

    def _since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self._below_marks.pop()
        return values

    def _last(self, count: int) -> list[Any]:
        return [self.stack.pop() for _ in range(count)][::-1]


def _set_items(target: Any, values: list[Any]) -> None:
    _need(target, dict)
    for key, value in zip(values[::2], values[1::2], strict=True):
        # The hash of a deep tuple recurses without bound.
        if type(key) not in _KEYS:
            raise TypeError(f"a key is a {type(key).__name__}")
        target[key] = value


def _need(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} stands where a {kind.__name__} must")
    return value
