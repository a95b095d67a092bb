"""How many evaluations a log-likelihood of given error takes: adaptive steps, a shared grid, multistep, Gauss nodes.

    python main.py --config digits --run digits
    python tests/benchmarks/likelihood_evaluations.py digits

For images of the test set, with one probe, against Dopri8 at tolerance 1e-6. The shared grid is one for all images,
from the quantiles of the adaptive solves' own steps. `nodes` solves for the image alone, and adds up the divergence at
Gauss nodes of each step, found on the solver's dense output: fewer products of a trace than evaluations of the network.
"""

import argparse
import functools
import itertools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import sgm
from sgm.likelihood.flow import Course, FlowAndDivergence
from sgm.likelihood.prepare import prepare

SOLVER = diffrax.Dopri5()
STAGES = 6


class Problem:
    """The paths of some test images to the prior, and their log-likelihoods at the end of a solve."""

    def __init__(self, run, count):
        sde, model = sgm.load(run)
        data = sgm.data.Digits()
        x = sgm.likelihood.dequantise(data.rows("test", 0, count)[0], 17, jr.key(0), -0.5, 16.5)
        self.sde, model, z, keys, own, cond, *_ = prepare(
            "likelihood_evaluations", sde, model, x, jr.key(1), None, None
        )
        self.flow = FlowAndDivergence(model, cond, sgm.Hutchinson(1), to_data=False, course=Course())
        start = lambda z, own, key: self.flow.path(self.sde, own, z / jnp.asarray(self.sde.rho(self.sde.t0)), key)  # noqa: E731
        self.paths, self.states = eqx.filter_vmap(start)(z, own, keys)

    def derivative(self, path, t, state):
        return self.flow.of(path.own)(t, state, path.args)

    def value(self, path, state):
        u, (change, *_) = self.flow.carried(self.sde, path, state)
        return self.sde.prior.log_prob(jnp.asarray(self.sde.rho(self.sde.t1)) * u) + change

    def each(self, function):
        """The function of each image's path and state, compiled."""
        return eqx.filter_jit(eqx.filter_vmap(function))(self.paths, self.states)

    def adaptive(self, solver, tolerance):
        """The values, the times of the accepted steps and their number, and the number of steps tried."""
        steps = diffrax.SaveAt(t1=True, steps=True, fn=lambda t, y, args: (t, y))
        control = diffrax.PIDController(rtol=tolerance, atol=tolerance)

        def one(path, state):
            solved = self.flow.solve(path, state, solver, control, diffrax.ForwardMode(), steps)
            accepted = solved.stats["num_accepted_steps"]
            times, states = solved.ys
            last = jax.tree.map(lambda leaf: leaf[accepted - 1], states)
            return self.value(path, last), times, accepted, solved.stats["num_steps"]

        return self.each(one)

    def stepped(self, grid, derivative):
        """For each image the state after Dopri5 on the grid, and the dense output of each step."""

        def one(path, state):
            term = diffrax.ODETerm(lambda t, y, args: derivative(path, t, y))
            kept = SOLVER.init(term, grid[0], grid[1], state, path.args)

            def step(carry, ends):
                y, _, dense, kept, _ = SOLVER.step(term, *ends, carry[0], path.args, carry[1], False)
                return (y, kept), dense

            (y, _), dense = jax.lax.scan(step, (state, kept), (grid[:-1], grid[1:]))
            return y, dense

        return one


def shared_grid(problem, times, accepted, steps):
    """A grid of so many steps at the quantiles of the images' own steps."""
    start, end = float(problem.paths.start[0]), float(problem.paths.end[0])
    fine, share = np.linspace(start, end, 2001), 0
    for own, count in zip(np.asarray(times), np.asarray(accepted), strict=True):
        own = np.concatenate([[start], own[:count]])
        share = share + np.interp(fine, own, np.linspace(0, 1, len(own))) / len(accepted)
    return np.interp(np.linspace(0, 1, steps + 1), share, fine)


def by_grid(problem, grid):
    one = problem.stepped(jnp.asarray(grid, jnp.float32), problem.derivative)
    return problem.each(lambda path, state: problem.value(path, one(path, state)[0]))


def by_nodes(problem, grid, count):
    """Dopri5 for the image alone, and the divergence at `count` Gauss nodes of each step."""
    places, weights = np.polynomial.legendre.leggauss(count)
    middles, halves = (grid[1:] + grid[:-1])[:, None] / 2, np.diff(grid)[:, None] / 2
    nodes = tuple(
        jnp.asarray(part.reshape(-1), dtype)
        for part, dtype in (
            (middles + halves * places, jnp.float32),
            (halves * weights, jnp.float32),
            (np.repeat(np.arange(len(halves)), count), jnp.int32),
        )
    )
    grid = jnp.asarray(grid, jnp.float32)

    def of_image(path, t, state):
        change, rest = problem.derivative(path, t, state)
        return change, jax.tree.map(jnp.zeros_like, rest)

    solve = problem.stepped(grid, of_image)

    def one(path, state):
        (u, _), dense = solve(path, state)

        def add(total, node):
            t, weight, step = node
            own = jax.tree.map(lambda leaf: leaf[step], dense)
            there, _ = SOLVER.interpolation_cls(t0=grid[step], t1=grid[step + 1], **own).evaluate(t)
            _, rest = problem.derivative(path, t, (there, state[1]))
            return jax.tree.map(lambda total, part: total + weight * part, total, rest), None

        return problem.value(path, (u, jax.lax.scan(add, state[1], nodes)[0]))

    return problem.each(one)


def by_adams(problem, grid, order):
    """Adams-Bashforth-Moulton of an order, one evaluation a step, after first steps by Dopri5."""
    steps = range(order - 1, len(grid) - 1)
    before = jnp.asarray(
        [_weights(grid[i - order + 1 : i + 1][::-1], grid[i], grid[i + 1]) for i in steps], jnp.float32
    )
    after = jnp.asarray([_weights(grid[i - order + 2 : i + 2][::-1], grid[i], grid[i + 1]) for i in steps], jnp.float32)
    grid = jnp.asarray(grid, jnp.float32)

    def one(path, state):
        known, y = [problem.derivative(path, grid[0], state)], state
        for i in range(order - 1):
            y, _ = problem.stepped(grid[i : i + 2], problem.derivative)(path, y)
            known.insert(0, problem.derivative(path, grid[i + 1], y))
        known = jax.tree.map(lambda *parts: jnp.stack(parts), *known)

        def step(carry, given):
            (y, known), (before, after, t) = carry, given
            guess = jax.tree.map(lambda y, parts: y + jnp.tensordot(before, parts, 1), y, known)
            newest = problem.derivative(path, t, guess)
            known = jax.tree.map(lambda parts, new: jnp.concatenate([new[None], parts[:-1]]), known, newest)
            return (jax.tree.map(lambda y, parts: y + jnp.tensordot(after, parts, 1), y, known), known), None

        return problem.value(path, jax.lax.scan(step, (y, known), (before, after, grid[order:]))[0][0])

    return problem.each(one)


def _weights(nodes, start, end):
    """The integrals from start to end of the polynomials that are 1 at one node and 0 at the others."""
    powers = np.vander(np.asarray(nodes) - start, increasing=True).T
    return np.linalg.solve(powers, (end - start) ** np.arange(1, len(nodes) + 1) / np.arange(1, len(nodes) + 1))


def main():
    parser = argparse.ArgumentParser(description="Evaluations and errors of log-likelihoods of digits.")
    parser.add_argument("run", help="Folder of a trained run of configs/digits.json.")
    parser.add_argument("--images", type=int, default=32, help="Number of test images.")
    arguments = parser.parse_args()
    problem = Problem(arguments.run, arguments.images)
    truth = problem.adaptive(diffrax.Dopri8(), 1e-6)[0]
    print("| method | evaluations | divergences | mean error (nats) | largest |\n|---|---|---|---|---|")

    def row(name, evaluations, divergences, values):
        error = jnp.abs(values - truth)
        print(
            f"| {name} | {evaluations:.0f} | {divergences:.0f} | {error.mean():.1e} | {error.max():.1e} |", flush=True
        )

    for tolerance in (1e-3, 1e-4, 1e-5):
        values, times, accepted, tried = problem.adaptive(SOLVER, tolerance)
        evaluations = float(jnp.mean(tried)) * STAGES + 2
        row(f"Dopri5, tolerance {tolerance:g}", evaluations, evaluations, values)
        if tolerance == 1e-4:
            grid = functools.partial(shared_grid, problem, times, accepted)
    for steps in (16, 20, 24):
        row(f"shared grid of {steps}", STAGES * steps + 1, STAGES * steps + 1, by_grid(problem, grid(steps)))
    for order, steps in itertools.product((4, 5), (60, 90)):
        evaluations = STAGES * (order - 1) + steps - order + 1
        row(f"Adams of order {order}, {steps} steps", evaluations, evaluations, by_adams(problem, grid(steps), order))
    for steps, count in itertools.product((20, 24), (2, 3)):
        values = by_nodes(problem, grid(steps), count)
        row(f"shared grid of {steps}, {count} nodes", STAGES * steps + 1, count * steps, values)


if __name__ == "__main__":
    main()
