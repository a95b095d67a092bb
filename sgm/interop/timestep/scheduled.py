"""What the config of a scheduler says."""

import dataclasses
from functools import partial

import equinox as eqx

from sgm.checks import check_count
from sgm.interop.timestep.network import AbstractTimestepNetwork
from sgm.interop.timestep.of_timesteps import OfTimesteps
from sgm.interop.timestep.timesteps import AbstractTimesteps
from sgm.model.base import AbstractModel, AbstractModifier
from sgm.model.prediction import AbstractPrediction, WithVariance
from sgm.model.score_model import ScoreModel
from sgm.nn.layers import Precision
from sgm.nn.units import Units
from sgm.sde.base import AbstractSDE
from sgm.solve.sampler import AbstractSampler


class Scheduler(eqx.Module):
    """A scheduler of diffusers: a process, what a network's input and output mean, and a sampler.

    Arguments:
        sde: Process.
        prediction: Meaning of the network's output.
        timesteps: Timestep of a noise level.
        sampler: Sampler that does as diffusers' pipeline does by default, as far as there is one.
        clipping: Change of the model that samples are drawn by, in the network's coordinates: a `functools.partial` of
            `Clipped` or `Thresholded`, None for no change.
        steps_in_one: Number of diffusers' steps in one step of the sampler.
        denoises: Whether the last of diffusers' steps leads to E[x0 | x], as `sgm.sample` does after all steps.

    Example:
        >>> scheduler = Scheduler(chain, Noise(), ChainTimesteps(chain), sgm.DDIM(20))
        >>> scheduler.sampler_of(10).steps  # the step to E[x0 | x] is the tenth
        9
    """

    sde: AbstractSDE
    prediction: AbstractPrediction
    timesteps: AbstractTimesteps
    sampler: AbstractSampler
    clipping: partial[AbstractModifier] | None = eqx.field(static=True, default=None)
    steps_in_one: int = eqx.field(static=True, default=1)
    denoises: bool = eqx.field(static=True, default=True)

    def sampler_of(self, num_inference_steps: int) -> AbstractSampler:
        """Make the sampler of other than the default number of steps.

        Arguments:
            num_inference_steps: Number of steps by the name that it has in pipelines of diffusers. It counts the last
                step, to E[x0 | x], which samplers here do not.

        Returns:
            The sampler, of one step less where that is so: DDIM of 20 steps is `sgm.DDIM(19, grid=LeadingGrid())`.

        Raises:
            ValueError: for fewer than one step of the sampler; more steps than the chain has are refused by its grid.

        Example:
            >>> x = sgm.sample(sde, scheduler.sampled(model), key, 4, method=scheduler.sampler_of(20))
        """
        check_count("Scheduler.sampler_of", "num_inference_steps", num_inference_steps, self.denoises + 1)
        return dataclasses.replace(
            self.sampler, steps=max(1, (num_inference_steps - self.denoises) // self.steps_in_one)
        )

    def model(
        self, network: AbstractTimestepNetwork, units: Units | None = None, precision: Precision = "float32"
    ) -> ScoreModel:
        """Make a model of a network.

        Arguments:
            network: Network that is trained under this scheduler.
            units: Units of the data; the network's coordinates are the standardised ones.
            precision: Precision in which the network computes.

        Returns:
            The model. It is not clipped, so that it has a likelihood; samples are drawn by `sampled(model)`.

        Raises:
            ValueError: for a network whose number of outputs does not fit the prediction.
        """
        shares, rest = divmod(network.outputs, network.shape[-1])
        prediction = self.prediction
        # Pipelines of such networks drop the second half, unless the scheduler has a learned variance.
        prediction = WithVariance(prediction) if (shares, prediction.outputs) == (2, 1) else prediction
        if rest or shares != prediction.outputs:
            raise ValueError(
                f"Scheduler: the network has {network.outputs} outputs for {network.shape[-1]} channels, but "
                f"{type(prediction).__name__} reads {prediction.outputs} a channel; pass the network of this scheduler."
            )
        of_level = OfTimesteps(network=network, timesteps=self.timesteps, precision=precision)
        return ScoreModel(of_level, prediction, shape=network.shape, units=units)

    def sampled(self, model: AbstractModel) -> AbstractModel:
        """Make the model that diffusers draws samples by.

        Arguments:
            model: Model of this scheduler.

        Returns:
            The model, with its denoised estimate clipped where the scheduler does so. For likelihoods, use the model
            itself: the flow of a clipped one does not belong to its density.

        Raises:
            ValueError: where the scheduler clips, and the units of the model differ between channels.
        """
        if self.clipping is None:
            return model
        if model.units.shape not in ((), (1,)):
            raise ValueError(
                "Scheduler: it clips all channels alike, but the model's units differ by channel; pass a model with "
                "units of one number, or wrap it in sgm.model.Clipped."
            )
        ends = {name: float(model.units.restore(self.clipping.keywords[name]).reshape(())) for name in ("low", "high")}
        return self.clipping(model, **ends)
