"""FLOPs and bytes of the path that a program takes through its loops and conditionals.

XLA's cost analysis counts the body of a loop once, however often it runs, and of a conditional
its dearest branch. Here a program is evaluated once with its real arguments, and each loop or
conditional counts for what it ran: the body as often as it ran, the branch that was taken. What a
part costs is XLA's count for that part compiled alone.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun
from jax.extend.core.primitives import cond_p, scan_p, while_p


@dataclass(frozen=True)
class Cost:
    """XLA's count of work.

    Attributes:
        flops: floating-point operations.
        bytes: bytes read and written by all operations, caches or not.
    """

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.flops - other.flops, self.bytes - other.bytes)


def analysed_cost(compiled: jax.stages.Compiled) -> Cost:
    """Returns XLA's own count, in which a loop's body counts once."""
    analysis = compiled.cost_analysis()
    assert analysis is not None, "the CPU's compiler always has one"
    return Cost(analysis.get("flops", 0.0), analysis.get("bytes accessed", 0.0))


def path_cost(
    function: Callable, *args: Any, compiled_for_host: jax.stages.Compiled | None = None
) -> Cost:
    """Counts what a function computes for these very arguments.

    The count is that of the program compiled for the host's processor, whichever the default
    device is: on a GPU convolutions and matrix products become library calls, of whose work the
    analysis knows nothing.

    Args:
        function: from pytrees of arrays to pytrees of arrays, traceable.
        *args: real arguments; they decide how often loops run. They are left intact.
        compiled_for_host: the function, where the caller has it compiled already.
    """
    host = jax.local_devices(backend="cpu")[0]
    args = jax.device_put(args, host)
    with jax.default_device(host):
        whole = compiled_for_host or _compile(jax.jit(function).lower(*args))
        program = jax.make_jaxpr(function)(*args)
        _, correction = _Walk().evaluate(program, jax.tree.leaves(args), last=True)
    return analysed_cost(whole) + correction


class _Walk:
    """Evaluates jaxprs and adds up by how much XLA's count of them misses what they run."""

    def __init__(self):
        # Keyed by identity; the objects are kept, or an identity could come to mean another.
        self._programs: dict[int, tuple[object, jax.stages.Compiled]] = {}
        self._parts: dict[int, tuple[Jaxpr, list[Jaxpr]]] = {}

    def evaluate(
        self, program: ClosedJaxpr, values: Sequence[Any], *, last: bool = False
    ) -> tuple[list[Any], Cost]:
        """Returns the program's outputs, and its cost on this path minus XLA's count.

        Args:
            program: what to evaluate.
            values: its arguments.
            last: leaves out what follows the last loop or conditional, and the outputs with it.
        """
        jaxpr, correction = program.jaxpr, Cost()
        environment: dict[Any, Any] = dict(zip(jaxpr.constvars, program.consts, strict=True))
        environment.update(zip(jaxpr.invars, values, strict=True))
        if id(jaxpr) not in self._parts:
            self._parts[id(jaxpr)] = jaxpr, _cut(jaxpr)
        parts = self._parts[id(jaxpr)][1]
        if last and not _branches(parts[-1:]):
            parts = parts[:-1]
        for part in parts:
            inputs = [environment[variable] for variable in part.invars]
            outputs, extra = self._part(part, inputs)
            environment.update(zip(part.outvars, outputs, strict=True))
            correction += extra
        outputs = [] if last else [_read(atom, environment) for atom in jaxpr.outvars]
        return outputs, correction

    def _part(self, part: Jaxpr, inputs: list[Any]) -> tuple[list[Any], Cost]:
        if not _branches([part]):
            return list(self._compiled(ClosedJaxpr(part, ()), inputs, key=part)(*inputs)), Cost()
        (equation,) = part.eqns
        environment: dict[Any, Any] = dict(zip(part.invars, inputs, strict=True))
        values = [_read(atom, environment) for atom in equation.invars]
        if equation.primitive not in _RUNNERS:
            (inner,) = _subprograms(equation)
            outputs, correction = self.evaluate(inner, values)
        else:
            outputs, taken = _RUNNERS[equation.primitive](self, equation.params, values)
            alone = self._compiled(ClosedJaxpr(part, ()), inputs, key=part)
            correction = taken - analysed_cost(alone)
        found = dict(zip(equation.outvars, outputs, strict=True))
        return [_read(variable, found) for variable in part.outvars], correction

    def _run(self, program: ClosedJaxpr, values: Sequence[Any]) -> tuple[list[Any], Cost]:
        """Returns the program's outputs, and its cost on this path."""
        compiled = self._compiled(program, values, key=program)
        if not _branches([program.jaxpr]):
            return list(compiled(*values)), analysed_cost(compiled)
        outputs, correction = self.evaluate(program, values)
        return outputs, analysed_cost(compiled) + correction

    def _while(self, params: dict[str, Any], values: list[Any]) -> tuple[list[Any], Cost]:
        split = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        condition, body = values[: split[0]], values[split[0] : split[1]]
        carry, cost = values[split[1] :], Cost()
        while True:
            (again,), tested = self._run(params["cond_jaxpr"], [*condition, *carry])
            cost += tested
            if not again:
                return carry, cost
            carry, ran = self._run(params["body_jaxpr"], [*body, *carry])
            cost += ran

    def _scan(self, params: dict[str, Any], values: list[Any]) -> tuple[list[Any], Cost]:
        num_consts, num_carry, length = params["num_consts"], params["num_carry"], params["length"]
        consts, columns = values[:num_consts], values[num_consts + num_carry :]
        carry, rows, cost = values[num_consts : num_consts + num_carry], {}, Cost()
        for index in reversed(range(length)) if params["reverse"] else range(length):
            row = [column[index] for column in columns]
            outputs, ran = self._run(params["jaxpr"], [*consts, *carry, *row])
            carry, rows[index] = outputs[:num_carry], outputs[num_carry:]
            cost += ran
        stacked = zip(*(rows[index] for index in range(length)), strict=True)
        return [*carry, *(jax.numpy.stack(column) for column in stacked)], cost

    def _conditional(self, params: dict[str, Any], values: list[Any]) -> tuple[list[Any], Cost]:
        index = min(max(int(values[0]), 0), len(params["branches"]) - 1)
        return self._run(params["branches"][index], values[1:])

    def _compiled(
        self, program: ClosedJaxpr, values: Sequence[Any], *, key: object
    ) -> jax.stages.Compiled:
        if id(key) not in self._programs:
            lowered = jax.jit(jaxpr_as_fun(program)).lower(*values)
            self._programs[id(key)] = key, _compile(lowered)
        return self._programs[id(key)][1]


_RUNNERS: dict[Any, Callable[[_Walk, dict[str, Any], list[Any]], tuple[list[Any], Cost]]] = {
    while_p: _Walk._while,
    scan_p: _Walk._scan,
    cond_p: _Walk._conditional,
}


def _compile(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compiles for the analysis or a single run: the same work in slower machine code."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return lowered.compile(compiler_options=options)


def _cut(jaxpr: Jaxpr) -> list[Jaxpr]:
    """Cuts a jaxpr where loops and conditionals are: each equation that holds one is a part.

    The results of a part are the variables that later parts, or the outputs, read.
    """
    stretches: list[list[JaxprEqn]] = []
    after_branching = True
    for equation in jaxpr.eqns:
        branching = _holds_branch(equation)
        if branching or after_branching:
            stretches.append([])
        stretches[-1].append(equation)
        after_branching = branching
    parts, wanted = [], _variables(jaxpr.outvars)
    for equations in reversed(stretches):
        made = _variables(variable for equation in equations for variable in equation.outvars)
        read = _variables(atom for equation in equations for atom in equation.invars)
        inputs, outputs = [v for v in read if v not in made], [v for v in made if v in wanted]
        parts.append(jaxpr.replace(constvars=[], invars=inputs, outvars=outputs, eqns=equations))
        wanted |= read
    return parts[::-1]


def _variables(atoms: Iterable[Any]) -> dict[Any, None]:
    """Returns the variables among some atoms, each once, in their order."""
    return {atom: None for atom in atoms if not isinstance(atom, Literal)}


def _read(atom: Any, environment: dict[Any, Any]) -> Any:
    return atom.val if isinstance(atom, Literal) else environment[atom]


def _branches(jaxprs: Iterable[Jaxpr]) -> bool:
    """Whether there is a loop or a conditional, at any depth."""
    return any(_holds_branch(equation) for jaxpr in jaxprs for equation in jaxpr.eqns)


def _holds_branch(equation: JaxprEqn) -> bool:
    inner = (program.jaxpr for program in _subprograms(equation))
    return equation.primitive in (cond_p, scan_p, while_p) or _branches(inner)


def _subprograms(equation: JaxprEqn) -> list[ClosedJaxpr]:
    programs = []
    for value in equation.params.values():
        for item in value if isinstance(value, (tuple, list)) else [value]:
            if isinstance(item, ClosedJaxpr):
                programs.append(item)
            elif isinstance(item, Jaxpr):
                programs.append(ClosedJaxpr(item, ()))
    return programs
