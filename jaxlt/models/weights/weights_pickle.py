"""The pickles of PyTorch's state dicts, interpreted here instead of being loaded.

Python's own unpickler calls what a file names, makes room for any number that a file gives a
remembered value, and hashes tuples however deep, which ends the interpreter. This one knows the
opcodes that PyTorch's weights-only rules allow for state dicts, and those by which later protocols
write the same.
"""

import pickletools
from collections.abc import Callable
from typing import Any

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE")
)
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CONTAINERS = {"EMPTY_LIST": list, "EMPTY_DICT": dict}
_KEYS = (str, int, float, bool, type(None))


class Function:
    """What a pickle gets in place of something that it names.

    Args:
        name: of that.
        function: what a call does, of one tuple's values; None where it may not be called.
    """

    def __init__(self, name: str, function: Callable[..., Any] | None = None):
        self.name, self.function = name, function


class StateDict(dict):
    """What a pickle fills in place of an OrderedDict."""


def interpret(
    program: bytes, named: Callable[[str, str], Function], persistent: Callable[[Any], Any]
) -> Any:
    """Returns the value of a pickle; time and memory are linear in its length.

    Args:
        program: the pickle.
        named: what stands for a name of a module.
        persistent: what stands for a reference to something outside the pickle.

    Raises:
        ValueError, IndexError, KeyError, TypeError: it is damaged, or no state dict's.
    """
    machine = _Machine(named, persistent)
    for opcode, argument, _ in pickletools.genops(program):
        if opcode.name == "STOP":
            return machine.pop()
        machine.do(opcode.name, argument)
    raise ValueError("the pickle has no end")


class _Machine:
    def __init__(
        self, named: Callable[[str, str], Function], persistent: Callable[[Any], Any]
    ) -> None:
        self._named, self._persistent = named, persistent
        self._stack: list[Any] = []
        self._below_marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        return self._stack.pop()

    def do(self, opcode: str, argument: Any) -> None:
        if opcode in _LITERALS:
            self._stack.append(argument)
        elif opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode])
        elif opcode in _CONTAINERS:
            self._stack.append(_CONTAINERS[opcode]())
        elif opcode in _TUPLES:
            values = [self.pop() for _ in range(_TUPLES[opcode])]
            self._stack.append(tuple(reversed(values)))
        else:
            self._do_other(opcode, argument)

    def _do_other(self, opcode: str, argument: Any) -> None:
        match opcode:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self._below_marks.append(self._stack)
                self._stack = []
            case "TUPLE":
                values = tuple(self._since_mark())
                self._stack.append(values)
            case "GLOBAL":
                self._stack.append(self._named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = self.pop(), self.pop()
                if not (isinstance(module, str) and isinstance(name, str)):
                    raise TypeError("a global has no name")
                self._stack.append(self._named(module, name))
            case "BINPERSID":
                self._stack.append(self._persistent(self.pop()))
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self._stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._stack[-1]
            case "BINGET" | "LONG_BINGET":
                self._stack.append(self._memo[argument])
            case "REDUCE":
                arguments = self.pop()
                self._stack.append(_called(self.pop(), arguments))
            case "BUILD":
                # Attributes of a state dict are versions of modules.
                self.pop()
                _need(self._stack[-1], StateDict)
            case "SETITEM" | "SETITEMS":
                values = self._since_mark() if opcode == "SETITEMS" else self._last(2)
                _set_items(self._stack[-1], values)
            case "APPEND" | "APPENDS":
                values = self._since_mark() if opcode == "APPENDS" else self._last(1)
                _need(self._stack[-1], list).extend(values)
            case _:
                raise ValueError(f"opcode {opcode} is in no state dict")

    def _since_mark(self) -> list[Any]:
        values, self._stack = self._stack, self._below_marks.pop()
        return values

    def _last(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]


def _called(function: Any, arguments: Any) -> Any:
    if _need(function, Function).function is None:
        raise TypeError(f"{function.name} was called")
    return function.function(*_need(arguments, tuple))


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
