# pyright: reportUnnecessaryTypeIgnoreComment=true
"""Calls for a type checker, never run: right ones have the types they say, wrong ones are errors at their comments."""

from typing import Any

import diffrax
import jax.random as jr
import numpy as np
from jaxtyping import Array

import sgm
from sgm.likelihood import DiscreteLogProb, discrete_log_prob, reconstruction
from sgm.likelihood.elbo import ELBO
from sgm.training.weightings import KarrasWeighting

SDE, MODEL, KEY = sgm.VP(), sgm.model.Gaussian(jr.normal(jr.key(0), (2,)), jr.normal(jr.key(1), (2, 2))), jr.key(2)
CHAIN, X, LEVELS = sgm.DiscreteChain(np.full(9, 0.1)), jr.normal(jr.key(3), (4, 2)), np.zeros((4, 2), int)


def right(full: bool, saveat: diffrax.SaveAt | None) -> None:
    x: Array = sgm.sample(SDE, MODEL, KEY)
    x: Array = sgm.sample(SDE, MODEL, KEY, 4, method=sgm.DDIM(eta=0.5), cond=sgm.Condition(), batch_size=2)
    frames: Any = sgm.sample(SDE, MODEL, KEY, 4, saveat=diffrax.SaveAt(t0=True))
    frames: Any = sgm.sample(SDE, MODEL, KEY, 4, saveat=saveat)
    value: Array = sgm.log_prob(SDE, MODEL, x, trace=sgm.Exact())
    value: Array = sgm.log_prob(SDE, MODEL, np.zeros((4, 2)), KEY, accuracy=0.1, prior=SDE.prior)
    result: sgm.LogProb = sgm.log_prob(SDE, MODEL, x, KEY, solver=diffrax.Tsit5(), full=True)
    either: Array | sgm.LogProb = sgm.log_prob(SDE, MODEL, x, KEY, full=full)
    value: Array = discrete_log_prob(SDE, MODEL, LEVELS, KEY, count=8, samples=2, accuracy=0.1)
    discrete: DiscreteLogProb = discrete_log_prob(SDE, MODEL, LEVELS, KEY, trace=sgm.Exact(), full=True)
    value: Array = sgm.elbo(CHAIN, MODEL, X, KEY, steps=3)
    bound: ELBO = sgm.elbo(CHAIN, MODEL, X, KEY, variance=sgm.model.FixedLarge(), full=True)
    value: Array = reconstruction(SDE, MODEL, X, X)
    value: Array = sgm.prior_mismatch(SDE, X)
    loss: Array = sgm.score_matching_loss(SDE, MODEL, X, KEY, weighting=KarrasWeighting(), condition_dropout=0.1)
    loss: Array = sgm.Loss(KarrasWeighting())(SDE, MODEL, X, KEY)
    latent: Array = sgm.encode(SDE, MODEL, X, solver=diffrax.Tsit5())
    x: Array = sgm.decode(SDE, MODEL, latent, cond=sgm.Condition())
    x: Array = sgm.sample(SDE, MODEL, KEY, x1=latent)
    x: Array = sgm.sample(SDE, MODEL, KEY, start=(0.5, X))
    value: Array = sgm.continuous_elbo(SDE, MODEL, X, KEY, noise_levels=8)
    bound: ELBO = sgm.continuous_elbo(SDE, MODEL, X, KEY, full=True)
    pair: tuple[Array, Array] = sgm.sample_and_log_prob(SDE, MODEL, KEY, 4, trace=sgm.Exact())
    both: tuple[Array, sgm.LogProb] = sgm.sample_and_log_prob(SDE, MODEL, KEY, 4, full=True)
    trained = sgm.train(SDE, MODEL, sgm.data.Arrays(X), KEY, steps=3)
    history: dict[str, np.ndarray] = trained[2]
    report: sgm.evaluation.Report = sgm.evaluate(SDE, MODEL, sgm.data.Moons(), [sgm.evaluation.LogLikelihood()], KEY)
    print(pair, both, history, report)
    print(frames, result, either, discrete, bound, value, loss)


def wrong() -> None:
    sgm.sample(MODEL, SDE, KEY)  # pyright: ignore[reportArgumentType]
    sgm.sample(SDE, MODEL, KEY, method="ddim")  # pyright: ignore[reportArgumentType]
    sgm.sample(SDE, MODEL, KEY, method=sgm.DDIM)  # pyright: ignore[reportArgumentType]
    sgm.sample(SDE, MODEL, KEY, steps=10)  # pyright: ignore[reportCallIssue]
    sgm.log_prob(SDE, MODEL, X, KEY, fulll=True)  # pyright: ignore[reportCallIssue]
    sgm.log_prob(SDE, MODEL, X, KEY, trace="exact")  # pyright: ignore[reportArgumentType]
    sgm.log_prob(SDE, MODEL, X, KEY, trace=sgm.Exact)  # pyright: ignore[reportArgumentType]
    sgm.log_prob(SDE, MODEL, [[0.0, 1.0]], KEY)  # pyright: ignore[reportArgumentType]
    sgm.log_prob(MODEL, SDE, X, KEY)  # pyright: ignore[reportArgumentType]
    array: Array = sgm.log_prob(SDE, MODEL, X, KEY, full=True)  # pyright: ignore[reportAssignmentType]
    discrete_log_prob(SDE, MODEL, LEVELS, KEY, sampels=2)  # pyright: ignore[reportCallIssue]
    discrete_log_prob(SDE, MODEL, LEVELS, KEY, trace="exact")  # pyright: ignore[reportArgumentType]
    discrete_log_prob(SDE, MODEL, LEVELS, KEY, dequantisation="u")  # pyright: ignore[reportArgumentType]
    array: Array = discrete_log_prob(SDE, MODEL, LEVELS, KEY, full=True)  # pyright: ignore[reportAssignmentType]
    sgm.elbo(SDE, MODEL, X, KEY)  # pyright: ignore[reportArgumentType]
    sgm.elbo(CHAIN, MODEL, X, KEY, draw=2)  # pyright: ignore[reportCallIssue]
    sgm.elbo(CHAIN, MODEL, X, KEY, variance="large")  # pyright: ignore[reportArgumentType]
    array: Array = sgm.elbo(CHAIN, MODEL, X, KEY, full=True)  # pyright: ignore[reportAssignmentType]
    reconstruction(MODEL, SDE, X, X)  # pyright: ignore[reportArgumentType]
    sgm.prior_mismatch(MODEL, X)  # pyright: ignore[reportArgumentType]
    sgm.score_matching_loss(SDE, MODEL, X, KEY, weighting="Karras")  # pyright: ignore[reportArgumentType]
    sgm.score_matching_loss(SDE, MODEL, X, KEY, weights=1)  # pyright: ignore[reportCallIssue]
    sgm.encode(MODEL, SDE, X)  # pyright: ignore[reportArgumentType]
    sgm.sample(SDE, MODEL, KEY, start=X)  # pyright: ignore[reportArgumentType]
    sgm.sample_and_log_prob(SDE, MODEL, KEY, trace="exact")  # pyright: ignore[reportArgumentType]
    sgm.train(SDE, MODEL, X, KEY, steps=3)  # pyright: ignore[reportArgumentType]
    sgm.evaluate(SDE, MODEL, sgm.data.Moons(), ["log_prob"], KEY)  # pyright: ignore[reportArgumentType]
    print(array)
