"""FLOPs and bytes of the path that a program takes through its loops and conditionals.

XLA's cost analysis counts the body of a loop once, however often it runs, and of a conditional
its dearest branch. Here a program is evaluated once with its real arguments, and each loop or
conditional counts for what it ran: the body as often as it ran, the branch that was taken. What a
part costs is XLA's count for that part compiled alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import (
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    Literal,
    Var,
    jaxpr_as_fun,
    jaxprs_in_params,
)
from jax.extend.core.primitives import cond_p, scan_p, while_p


@dataclass(frozen=True)
class Cost:
    """XLA's count of work: operations, and bytes that they read and write, caches or not."""

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.flops - other.flops, self.bytes - other.bytes)


def analyzed_cost(compiled: jax.stages.Compiled) -> Cost:
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
    analysis knows nothing. `compiled_for_host` is that program, where the caller has it already.
    """
    host = jax.local_devices(backend="cpu")[0]
    args = jax.device_put(args, host)
    with jax.default_device(host):
        whole = compiled_for_host or compile_quickly(jax.jit(function).lower(*args))
        program = jax.make_jaxpr(function)(*args)
        _, missed = _Walk().evaluate(program, jax.tree.leaves(args), last=True)
    return analyzed_cost(whole) + missed


def compile_quickly(lowered: jax.stages.Lowered, **options: Any) -> jax.stages.Compiled:
    """Compiles on a CPU, for the analysis or a single run: the same work in slower machine code."""
    options |= {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return lowered.compile(options)


class _Walk:
    """Evaluates jaxprs and adds up by how much XLA's count of them misses what they run."""

    def __init__(self):
        self._programs: dict[Jaxpr, jax.stages.Compiled] = {}
        self._costs: dict[JaxprEqn, Cost] = {}

    def evaluate(
        self, program: ClosedJaxpr, values: Sequence[Any], *, last: bool = False
    ) -> tuple[list[Any], Cost]:
        """Returns the program's outputs, and its cost on this path minus XLA's count.

        `last` leaves out what follows the last loop or conditional, and the outputs with it.
        """
        jaxpr, equations, missed = program.jaxpr, program.eqns, Cost()
        reads = [(n, atom) for n, equation in enumerate(equations) for atom in equation.invars]
        reads += [(len(equations), atom) for atom in jaxpr.outvars]
        last_reads = {atom: number for number, atom in reads if isinstance(atom, Var)}
        environment = dict(zip(jaxpr.constvars, program.consts, strict=True))
        environment.update(zip(jaxpr.invars, values, strict=True))
        while last and equations and not _holds_branch(equations[-1]):
            equations = equations[:-1]
        for number, equation in enumerate(equations):
            inputs = dict.fromkeys(v for v in equation.invars if isinstance(v, Var))
            outputs = [variable for variable in equation.outvars if variable in last_reads]
            alone = jaxpr.replace(constvars=[], invars=[*inputs], outvars=outputs, eqns=[equation])
            found, more = self._evaluate_alone(alone, [environment[v] for v in inputs])
            missed += more
            environment.update(zip(outputs, found, strict=True))
            environment = {v: x for v, x in environment.items() if last_reads.get(v, -1) > number}
        return [] if last else [_read(atom, environment) for atom in jaxpr.outvars], missed

    def _evaluate_alone(self, jaxpr: Jaxpr, values: list[Any]) -> tuple[list[Any], Cost]:
        """Does the same for a jaxpr of one equation."""
        (equation,), program = jaxpr.eqns, ClosedJaxpr(jaxpr, ())
        if not _holds_branch(equation):
            return jaxpr_as_fun(program)(*values), Cost()
        environment: dict[Any, Any] = dict(zip(jaxpr.invars, values, strict=True))
        inputs = [_read(atom, environment) for atom in equation.invars]
        if equation.primitive in _RUNNERS:
            outputs, taken = _RUNNERS[equation.primitive](self, equation, inputs)
            if equation not in self._costs:
                self._costs[equation] = analyzed_cost(_compile(program, values))
            missed = taken - self._costs[equation]
        else:
            (inner,) = (p for p in equation.params.values() if isinstance(p, (Jaxpr, ClosedJaxpr)))
            # From JAX 0.11 on the two are one class.
            called = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
            outputs, missed = self.evaluate(called, inputs)
        found: dict[Any, Any] = dict(zip(equation.outvars, outputs, strict=True))
        return [found[variable] for variable in jaxpr.outvars], missed

    def _run(self, program: ClosedJaxpr, values: Sequence[Any]) -> tuple[list[Any], Cost]:
        """Returns the program's outputs, and its cost on this path."""
        if program.jaxpr not in self._programs:
            self._programs[program.jaxpr] = _compile(program, values)
        compiled = self._programs[program.jaxpr]
        if not any(map(_holds_branch, program.eqns)):
            return compiled(*values), analyzed_cost(compiled)
        outputs, missed = self.evaluate(program, values)
        return outputs, analyzed_cost(compiled) + missed

    def _while(self, equation: JaxprEqn, values: list[Any]) -> tuple[list[Any], Cost]:
        params = equation.params
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

    def _scan(self, equation: JaxprEqn, values: list[Any]) -> tuple[list[Any], Cost]:
        params, length = equation.params, equation.params["length"]
        # What is scanned over has one axis more outside; from JAX 0.11 on no parameter counts it.
        body = params["jaxpr"]
        num_columns = _num_stacked(equation.invars, body.in_avals)
        num_carry = len(equation.outvars) - _num_stacked(equation.outvars, body.out_avals)
        num_consts = len(equation.invars) - num_columns - num_carry
        consts, columns = values[:num_consts], values[num_consts + num_carry :]
        carry, rows, cost = values[num_consts : num_consts + num_carry], {}, Cost()
        for index in reversed(range(length)) if params["reverse"] else range(length):
            row = [column[index] for column in columns]
            outputs, ran = self._run(body, [*consts, *carry, *row])
            carry, rows[index] = outputs[:num_carry], outputs[num_carry:]
            cost += ran
        stacked = zip(*(rows[index] for index in range(length)), strict=True)
        return [*carry, *(jax.numpy.stack(column) for column in stacked)], cost

    def _conditional(self, equation: JaxprEqn, values: list[Any]) -> tuple[list[Any], Cost]:
        branches = equation.params["branches"]
        index = min(max(int(values[0]), 0), len(branches) - 1)
        return self._run(branches[index], values[1:])


_RUNNERS: dict[Any, Callable[[_Walk, JaxprEqn, list[Any]], tuple[list[Any], Cost]]] = {
    while_p: _Walk._while,
    scan_p: _Walk._scan,
    cond_p: _Walk._conditional,
}


def _compile(program: ClosedJaxpr, values: Sequence[Any]) -> jax.stages.Compiled:
    return compile_quickly(jax.jit(jaxpr_as_fun(program)).lower(*values))


def _num_stacked(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """Counts the variables of a scan that have one axis more than in its body."""
    return sum(atom.aval.ndim == aval.ndim + 1 for atom, aval in zip(outside, inside, strict=True))


def _read(atom: Any, environment: dict[Any, Any]) -> Any:
    return atom.val if isinstance(atom, Literal) else environment[atom]


def _holds_branch(equation: JaxprEqn) -> bool:
    """Whether there is a loop or a conditional, at any depth."""
    return equation.primitive in _RUNNERS or any(
        _holds_branch(inner) for jaxpr in jaxprs_in_params(equation.params) for inner in jaxpr.eqns
    )
