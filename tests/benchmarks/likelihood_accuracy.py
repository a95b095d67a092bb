"""The error of log_prob on exact models, by tolerance and process.

    python tests/benchmarks/likelihood_accuracy.py

`solver` is the mean absolute error in nats with the exact density at t1 as `prior`, `prior` that with the standard
prior, which adds the mismatch of the two; `evaluations` is the mean over examples.

The second table has the means, over data x0 and x at t0, of log p_t0(x) - log p(x0), of the same with the
reconstruction term, and of the bound on the mismatch of the prior.
"""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr

import sgm
from sgm.model import Gaussian, GaussianMixture

FACTOR = jr.normal(jr.key(16), (16, 16)) / 4
MODELS = {
    "mixture, 2-D": GaussianMixture(jr.normal(jr.key(4), (5, 2)), jnp.linspace(0.1, 0.5, 5), jnp.full(5, 0.2)),
    "Gaussian, 16-D": Gaussian(jr.normal(jr.key(17), (16,)), FACTOR @ FACTOR.T + 0.01 * jnp.eye(16)),
}


def main():
    print("| model | process | tolerance | solver | prior | evaluations |")
    print("|---|---|---|---|---|---|")
    for name, model in MODELS.items():
        for sde in (sgm.VP(), sgm.SubVP(), sgm.VE(), sgm.Rectified()):
            start, end = model.marginal(sde, sde.t0), model.marginal(sde, sde.t1)
            x = start.sample(jr.key(0), 500)
            truth = jax.vmap(start.log_prob)(x)
            for tolerance in (1e-3, 1e-4, 1e-5):
                options = dict(trace=sgm.Exact(), controller=diffrax.PIDController(rtol=tolerance, atol=tolerance))
                exact = sgm.log_prob(sde, model, x, prior=end, full=True, **options)
                standard = sgm.log_prob(sde, model, x, **options)
                solver, prior = (float(jnp.abs(value - truth).mean()) for value in (exact.value, standard))
                print(
                    f"| {name} | {type(sde).__name__} | {tolerance:.0e} | {solver:.1e} | {prior:.1e} | "
                    f"{float(exact.nfe.mean()):.0f} |",
                    flush=True,
                )

    print("\n| model | process | p_t0 over p | with reconstruction | mismatch of the prior |")
    print("|---|---|---|---|---|")
    for name, model in MODELS.items():
        for sde in (sgm.VP(), sgm.SubVP(), sgm.VE(), sgm.Rectified()):
            x0 = model.sample(jr.key(1), 100_000)
            mean, std = sde.marginal(sde.t0, x0)
            x = mean + std * jr.normal(jr.key(2), x0.shape)
            noisy = jax.vmap(model.marginal(sde, sde.t0).log_prob)(x) - jax.vmap(model.log_prob)(x0)
            bound = noisy + sgm.likelihood.reconstruction(sde, model, x0, x)
            cells = [f"{part.mean():.1e} ± {part.std() / len(part) ** 0.5:.0e}" for part in (noisy, bound)]
            mismatch = float(sgm.prior_mismatch(sde, x0).mean())
            print(f"| {name} | {type(sde).__name__} | {cells[0]} | {cells[1]} | {mismatch:.1e} |", flush=True)


if __name__ == "__main__":
    main()
