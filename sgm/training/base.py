"""What training needs of a loss."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from sgm.model.base import check_pure_noise
from sgm.model.reverse import AbstractReverseModel, check_pair
from sgm.nn.condition import Condition
from sgm.sde.process import AbstractProcess
from sgm.training.masking import AbstractMasking
from sgm.types import Number

Times = Float[Array, " n"]
Levels = tuple[Times, Times]


class AbstractDrawn(eqx.Module):
    """Training examples with all the randomness of their errors, along a leading axis.

    `levels` is what the errors depend on the process by, so that a learned schedule can be trained; None where that is
    not known.
    """

    levels: eqx.AbstractVar[Levels | None]


class AbstractLoss(eqx.Module):
    """A loss that a model is trained on, the mean over examples of an error, called on clean data."""

    @property
    @abstractmethod
    def condition_dropout(self) -> Number:
        """Probability with which an example's condition is dropped."""

    @property
    @abstractmethod
    def masking(self) -> AbstractMasking | None:
        """Which entries of each example are observed; None of all."""

    @abstractmethod
    def check(self, sde: Any) -> None:
        """Raise unless the loss is finite under this process."""

    @abstractmethod
    def perturb(
        self,
        sde: Any,
        model: Any,
        x0: Any,
        key: PRNGKeyArray,
        cond: Condition | None = None,
        held_out: bool = False,
    ) -> AbstractDrawn:
        """What a call draws. Any part of it along its leading axis is a batch for `errors`.

        Arguments:
            sde: Process.
            model: Model.
            x0: Data as `model.as_seen` gives them, one example of shape `model.shape` or a batch: standardised ones,
                or categories.
            key: Key of all randomness.
            cond: Condition, one for all examples or one each.
            held_out: Whether the examples are not trained on, so that nothing is dropped.
        """

    @abstractmethod
    def errors(self, sde: Any, model: Any, drawn: Any) -> Float[Array, " n"]:
        """The error of each example that `perturb` has drawn, a mean over dimensions."""

    def __call__(
        self,
        sde: AbstractProcess,
        model: AbstractReverseModel,
        x: Shaped[Array | np.ndarray, "..."],
        key: PRNGKeyArray,
        cond: Condition | None = None,
    ) -> Float[Array, ""]:
        """An unbiased estimate of the loss.

        Arguments:
            sde: The process.
            model: The model.
            x: Clean data in their units, one example of shape `model.shape` or a batch.
            key: Key of all randomness. It also switches the network's dropout on.
            cond: Condition, one for all examples or one each.

        Returns:
            The mean over examples.

        Raises:
            ValueError: for a process that ends in pure noise and a model that predicts the noise, and for parts of the
                loss that do not go together.
        """
        call = type(self).__name__
        check_pair(call, sde, model)
        check_pure_noise(call, sde, model)
        self.check(sde)
        z = model.as_seen(call, x)
        return jnp.mean(self.errors(sde, model, self.perturb(sde, model, z, key, cond)))
