"""Adaptive solves of a batch, each with steps of its own, that are differentiated together.

Backwards, step k of all examples is taken at once, so that what they share, such as a network's weights, is
differentiated by products over the batch, and summed once a stage. A Runge-Kutta step of length h,

    k_i = h f(t + c_i h, Y_i),    Y_i = y + sum_j a_ij k_j,    y' = y + sum_i b_i k_i

takes a derivative g' by y' to g = g' + sum_i G_i by y, from its last stage to its first:

    G_i = (b_i g' + sum_j a_ji G_j) dk_i/dY_i

Reference: Hager 2000 (doi:10.1007/s002110000178).
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sgm.likelihood.flow import MAX_STEPS, FlowAndDivergence, Path
from sgm.solve.controllers import frozen

# So many first steps are kept. Of those after them one state in so many is, from which the others are found again.
SEGMENT = 64

States = tuple[Float[Array, "n *shape"], Float[Array, "n estimates"]]


class Outcome(eqx.Module):
    """How a solve ended, or each of a batch."""

    state: Any
    steps: Int[Array, "*n"]
    result: diffrax.RESULTS


class Segment(eqx.Module):
    """The state at the start of each of 64 steps, and what each stage adds to it."""

    states: Any
    stages: Any

    def put(self, step: Any, state: Any, stages: Any) -> "Segment":
        """The segment with this step; unchanged by a step beyond it."""
        return Segment(_put(self.states, step, state), _put(self.stages, step, stages))


class Record(eqx.Module):
    """The accepted steps of one solve so far: the first segment, and the states with which each segment starts."""

    count: Int[Array, ""]
    first: Segment
    starts: Any

    def add(self, state: Any, stages: Any) -> "Record":
        """The record with one more step."""
        number, within = jnp.divmod(self.count, SEGMENT)
        starts = _put(self.starts, jnp.where(within == 0, number, MAX_STEPS), state)
        return Record(self.count + 1, self.first.put(self.count, state, stages), starts)


class Recording(diffrax.AbstractAdaptiveSolver, diffrax.AbstractWrappedSolver):
    """A solver whose state has a `Record` as well. What it does in a step that is refused, Diffrax undoes."""

    solver: diffrax.AbstractERK

    @property
    def term_structure(self):
        return self.solver.term_structure

    @property
    def interpolation_cls(self):
        return self.solver.interpolation_cls

    @property
    def scan_kind(self):
        return self.solver.scan_kind

    def order(self, terms):
        return self.solver.order(terms)

    def init(self, terms, t0, t1, y0, args):
        stages = _room(len(_tableau(self.solver)[1]), y0)
        segment = Segment(_room(SEGMENT, y0), _room(SEGMENT, stages))
        record = Record(jnp.zeros((), int), segment, _room(MAX_STEPS // SEGMENT, y0))
        return self.solver.init(terms, t0, t1, y0, args), record

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        state, record = solver_state
        y1, error, dense, state, result = self.solver.step(terms, t0, t1, y0, args, state, made_jump)
        return y1, error, dense, (state, record.add(y0, _stages(self.solver, dense))), result

    def func(self, terms, t0, y0, args):
        return self.solver.func(terms, t0, y0, args)


def solve_together(
    flow: FlowAndDivergence,
    paths: Path,
    states: States,
    solver: diffrax.AbstractERK,
    controllers: diffrax.AbstractAdaptiveStepSizeController,
    adjoint: diffrax.AbstractAdjoint | None,
) -> Outcome:
    """Solve along each path of a batch, from the states at its start.

    Without an adjoint, derivatives are those of the steps that are taken, whose shares of the way are held; what an
    example that does not finish would add to them is left out.

    Arguments:
        flow: What all examples share.
        paths, states, controllers: What each has of its own, along a leading axis.
        solver: Runge-Kutta method.
        adjoint: Way of Diffrax to differentiate each solve by itself, or None.
    """
    # Of ends that are one constant for all examples, XLA's simplifier goes in a circle until it gives up.
    paths = eqx.tree_at(_ends, paths, jax.lax.optimization_barrier(_ends(paths)))
    if adjoint is None:
        # Loops that can be differentiated forwards, for second derivatives.
        solver = eqx.tree_at(lambda solver: solver.scan_kind, solver, "lax", is_leaf=lambda leaf: leaf is None)
        return _together((flow, paths, states), solver, frozen(controllers))
    return _alone((flow, paths, states), solver, controllers, adjoint)


def _ends(paths):
    return paths.start, paths.end, paths.first_step


def _alone(inputs, solver, controllers, adjoint):
    flow, paths, states = inputs

    def of_one(path, state, controller):
        solution = flow.solve(path, state, solver, controller, adjoint)
        last = jax.tree.map(lambda leaf: leaf[-1], solution.ys)
        return Outcome(last, solution.stats["num_steps"], solution.result)

    return eqx.filter_vmap(of_one)(paths, states, controllers)


@eqx.filter_custom_vjp
def _together(inputs, solver, controllers):
    return _alone(inputs, solver, controllers, diffrax.ForwardMode())


@_together.def_fwd
def _forwards(perturbed, inputs, solver, controllers):
    flow, paths, states = inputs
    saveat = diffrax.SaveAt(
        subs=(diffrax.SubSaveAt(t1=True), diffrax.SubSaveAt(steps=True, fn=lambda t, y, args: None)),
        solver_state=True,
    )

    def of_one(path, state, controller):
        solution = flow.solve(path, state, Recording(solver), controller, diffrax.ForwardMode(), saveat)
        last = jax.tree.map(lambda leaf: leaf[-1], solution.ys[0])
        _, record = solution.solver_state
        taken = jnp.arange(MAX_STEPS) < record.count
        clocks = jnp.concatenate([path.start[None], jnp.where(taken, solution.ts[1], path.end)])
        return Outcome(last, solution.stats["num_steps"], solution.result), (record, jax.lax.stop_gradient(clocks))

    outcome, kept = eqx.filter_vmap(of_one)(paths, states, controllers)
    return outcome, (outcome, *kept)


@_together.def_bwd
def _backwards(residuals, cotangents, perturbed, inputs, solver, controllers):
    outcome, records, clocks = residuals
    flow, paths, _ = inputs
    finished = outcome.result == diffrax.RESULTS.successful
    # One that did not finish stands aside: a nan times zero would be nan in the sums over the batch.
    rows = jnp.where(finished, jnp.arange(len(finished)), jnp.argmax(finished))
    paths, records, clocks, ends = jax.tree.map(lambda leaf: leaf[rows], (paths, records, clocks, outcome.state))
    steps = _Steps(flow, paths, clocks, records.count, ends, solver)
    bars = jax.tree.map(
        lambda leaf, bar: jnp.zeros_like(leaf) if bar is None else _where(finished, bar, 0),
        ends,
        cotangents.state,
    )
    last = jnp.max(jnp.where(finished, records.count, 0))
    segments = (last + SEGMENT - 1) // SEGMENT
    variables, _ = eqx.partition((flow, paths), perturbed[:2])

    def of_segment(number, carry):
        begin = (segments - 1 - number) * SEGMENT
        stop = jnp.minimum(begin + SEGMENT, last)
        at_start = jax.tree.map(lambda leaf: leaf[:, begin // SEGMENT], records.starts)
        segment = steps.find_again(at_start, begin, stop, records.first)

        def of_step(number, carry):
            return steps.back(stop - 1 - number, segment, variables, *carry)

        return jax.lax.fori_loop(0, stop - begin, of_step, carry)

    # As the values are found.
    with jax.default_matmul_precision("highest"):
        by_states, by_variables = jax.lax.fori_loop(
            0, segments, of_segment, (bars, jax.tree.map(jnp.zeros_like, variables))
        )
    return *by_variables, by_states


class _Steps(eqx.Module):
    """The steps of a batch by number. Those after an example's last are of length zero, at its end."""

    flow: FlowAndDivergence
    paths: Path
    clocks: Float[Array, "n _"]
    counts: Int[Array, " n"]
    ends: States
    solver: diffrax.AbstractERK

    def find_again(self, states: States, begin: Any, stop: Any, first: Segment) -> Segment:
        """The segment of these steps from the states at its start, unless it is the first, which is at hand."""

        def of_one(path, clock0, clock1, state):
            term = diffrax.ODETerm(self.flow.of(path.own))
            arguments = term, path.at(clock0), path.at(clock1), state, path.args
            y1, _, dense, _, _ = self.solver.step(*arguments, self.solver.init(*arguments), True)
            return y1, _stages(self.solver, dense)

        def of_step(k, carry):
            states, segment = carry
            following, stages = jax.vmap(of_one)(self.paths, self.clocks[:, k], self.clocks[:, k + 1], states)
            segment = jax.vmap(lambda segment, *of: segment.put(k - begin, *of))(segment, states, stages)
            return following, segment

        states = jax.tree.map(lambda state, end: _where(begin < self.counts, state, end), states, self.ends)
        return jax.lax.fori_loop(jnp.where(begin == 0, stop, begin), stop, of_step, (states, first))[1]

    def back(self, k: Any, segment: Segment, variables: Any, bars: States, total: Any) -> tuple[States, Any]:
        """The derivatives by the states before step k, and those by the variables so far."""
        a, b, c = (jnp.asarray(part, self.clocks.dtype) for part in _tableau(self.solver))
        taken, within = k < self.counts, k % SEGMENT
        state, stages = jax.tree.map(lambda leaf: leaf[:, within], (segment.states, segment.stages))
        state = jax.tree.map(lambda leaf, end: _where(taken, leaf, end), state, self.ends)
        stages = jax.tree.map(lambda leaf: _where(taken, leaf, 0), stages)

        def add(variables, c, inner):
            flow, paths = eqx.combine(variables, (self.flow, self.paths))

            def of_one(path, clock0, clock1, inner):
                clock = path.at(clock0)
                length = path.at(clock1) - clock
                rates = flow.of(path.own)(clock + c * length, inner, path.args)
                return jax.tree.map(lambda rate: length * rate, rates)

            return jax.vmap(of_one)(paths, self.clocks[:, k], self.clocks[:, k + 1], inner)

        def of_stage(number, carry):
            inner_bars, total = carry
            i = len(b) - 1 - number
            inner = jax.tree.map(lambda leaf, added: leaf + _dot(a[i], added), state, stages)
            bar = jax.tree.map(lambda bar, inner_bar: b[i] * bar + _dot(a[:, i], inner_bar), bars, inner_bars)
            _, pull = jax.vjp(lambda variables, inner: add(variables, c[i], inner), variables, inner)
            by_variables, inner_bar = pull(bar)
            inner_bars = jax.tree.map(lambda leaf, bar: leaf.at[:, i].set(bar), inner_bars, inner_bar)
            return inner_bars, jax.tree.map(jnp.add, total, by_variables)

        inner_bars, total = jax.lax.fori_loop(0, len(b), of_stage, (jax.tree.map(jnp.zeros_like, stages), total))
        return jax.tree.map(lambda bar, inner_bar: bar + jnp.sum(inner_bar, 1), bars, inner_bars), total


def _tableau(solver):
    """a, b and c of the method, without last stages that serve its error alone."""
    tableau = solver.tableau
    count = int(np.flatnonzero(tableau.b_sol)[-1]) + 1
    a = np.zeros((count, count))
    for i, row in enumerate(tableau.a_lower[: count - 1]):
        a[i + 1, : i + 1] = row
    return a, tableau.b_sol[:count], np.append(0.0, tableau.c)[:count]


def _stages(solver, dense):
    return jax.tree.map(lambda leaf: leaf[: len(_tableau(solver)[1])], dense["k"])


def _room(count, tree):
    return jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), tree)


def _put(tree, index, values):
    return jax.tree.map(lambda leaf, value: leaf.at[index].set(value, mode="drop"), tree, values)


def _where(rows: Bool[Array, " n"], leaf: Any, other: Any) -> Array:
    return jnp.where(rows.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, other)


def _dot(weights: Float[Array, " stages"], leaf: Float[Array, "n stages *shape"]) -> Float[Array, "n *shape"]:
    return jnp.einsum("s,ns...->n...", weights, leaf)
