"""The pickles of PyTorch's state dicts, interpreted here instead of being loaded.

Python's own unpickler calls what a file names, makes room for any number that a file gives a
remembered value, and hashes tuples however deep, which ends the interpreter. This one knows the
opcodes that PyTorch's weights-only rules allow for state dicts, and those by which later protocols
write the same.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any

_KEYS = (str, int, float, bool, type(None))


@dataclasses.dataclass(frozen=True, eq=False)
class Function:
    """What a pickle gets for what it names; `function` is None where that may not be called."""

    name: str
    function: Callable[..., Any] | None = None


class StateDict(dict):
    """What a pickle fills in place of an OrderedDict."""


def interpret(
    program: bytes, named: Callable[[str, str], Function], persistent: Callable[[Any], Any]
) -> Any:
    """Returns the value of a pickle, in time and memory that are linear in its length.

    `named` says what stands for a name in a module, and `persistent` for a reference to something
    outside. A ValueError, IndexError, KeyError or TypeError says that the pickle is damaged, or no
    state dict's.
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
            case "BINUNICODE" | "SHORT_BINUNICODE":
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
                # Attributes of a state dict are versions of modules.
                self.stack.pop()
                _need(self.stack[-1], StateDict)
            case "SETITEM" | "SETITEMS":
                values = self._since_mark() if opcode == "SETITEMS" else self._last(2)
                _set_items(self.stack[-1], values)
            case "APPEND" | "APPENDS":
                values = self._since_mark() if opcode == "APPENDS" else self._last(1)
                _need(self.stack[-1], list).extend(values)
            case "PROTO" | "FRAME":
                pass
            case _:
                raise ValueError(f"opcode {opcode} is in no state dict")

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
