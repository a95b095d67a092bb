"""What schedulers of a discrete chain have in common: fields of betas, predictions, clipping and spacing."""

from functools import partial

from sgm.interop.diffusers.raised_grid import FIRST, RaisedGrid
from sgm.interop.timestep.fields import Fields
from sgm.model.base import AbstractModifier
from sgm.model.clipped import Clipped
from sgm.model.prediction import AbstractPrediction, Denoised, Noise, Velocity
from sgm.model.thresholded import Thresholded
from sgm.sde.betas import (
    AbstractBetas,
    CosineBetas,
    LinearBetas,
    ScaledLinearBetas,
    SigmoidBetas,
    TableBetas,
    ZeroTerminalSNR,
)
from sgm.sde.chain import DiscreteChain
from sgm.solve.chain_grid import ChainGrid, LeadingGrid, TrailingGrid, WithinGrid
from sgm.solve.grid import AbstractGrid, KarrasGrid, LogSNRGrid, UniformGrid

AT_LEVEL = "diffusers ends at a noise level ({}), sgm.sample in E[x0 | x]; pass saveat=SaveAt(t0=True) for x at t0"

SOLVER_TYPES = ("midpoint", "heun", "logrho", "bh1", "bh2")

_GRIDS = {
    "use_karras_sigmas": KarrasGrid(),
    "use_exponential_sigmas": LogSNRGrid(),
    "use_beta_sigmas": KarrasGrid(),
    "use_lu_lambdas": LogSNRGrid(),
}
SIGMAS = tuple(_GRIDS)
"""Fields that ask for levels other than those of the spacing."""

_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")


def read_chain(
    fields: Fields, *, first: float = 1e-4, last: float = 0.02, rescales: bool = True, pure: bool = True
) -> DiscreteChain:
    """The chain.

    Arguments:
        fields: Fields of the config.
        first: Value of `beta_start` where there is none.
        last: Value of `beta_end` where there is none.
        rescales: Whether the scheduler reads `rescale_betas_zero_snr`.
        pure: Whether the scheduler then begins at pure noise, or at sigma/alpha = 4096.
    """
    steps = fields.count("num_train_timesteps", 1000, least=2)
    ends = fields.number("beta_start", first), fields.number("beta_end", last)
    name, table = fields.choice("beta_schedule", "linear", _BETAS), fields.numbers("trained_betas")
    betas: AbstractBetas
    if table is not None:
        if len(table) != steps:
            fields.refuse("num_train_timesteps", f"trained_betas are {len(table)}, so it must be {len(table)}")
        betas = TableBetas(tuple(table))
    elif name == "linear":
        betas = LinearBetas(steps, *ends)
    elif name == "scaled_linear":
        betas = ScaledLinearBetas(steps, *ends)
    elif name == "sigmoid":
        betas = SigmoidBetas(steps, *ends)
    else:
        betas = CosineBetas(steps)
    if rescales and fields.flag("rescale_betas_zero_snr"):
        betas = ZeroTerminalSNR(betas)
        if not pure:
            fields.say(f"the first step begins at pure noise; that of diffusers at sigma/alpha = {FIRST:g}")
    try:
        return DiscreteChain(betas)
    except ValueError as error:
        raise ValueError(f"{fields.where}: {error}") from None


def read_prediction(fields: Fields, chain: DiscreteChain) -> AbstractPrediction:
    """What the output means, of a network of a chain."""
    known: dict[str | None, AbstractPrediction] = {
        "epsilon": Noise(),
        "sample": Denoised(),
        "original_sample": Denoised(),
        "v_prediction": Velocity(),
    }
    name = fields.choice("prediction_type", "epsilon", tuple(known))
    if not fields.flag("predict_epsilon", True) and known[name] != Denoised():
        fields.refuse("predict_epsilon", 'releases since 0.6 do not read it; write "prediction_type": "sample"')
    if not known[name].defined_at_pure_noise and chain.ends_in_pure_noise:
        fields.refuse(
            "prediction_type",
            "the chain ends in pure noise (rescale_betas_zero_snr, or a last beta of 1), where the noise tells nothing "
            "of the data; it must be v_prediction or sample there",
        )
    return known[name]


def read_clipping(
    fields: Fields, *, clips: bool = True, moves_noise: bool = True, thresholds: bool = True
) -> partial[AbstractModifier] | None:
    """How samples are clipped.

    Arguments:
        fields: Fields of the config.
        clips: Value of `clip_sample` where there is none.
        moves_noise: Whether the noise follows the clipped estimate.
        thresholds: Whether the scheduler reads `thresholding`.
    """
    is_clipped, reach = fields.flag("clip_sample", clips), fields.number("clip_sample_range", 1.0, least=0.0)
    thresholded = read_thresholding(fields, moves_noise=moves_noise) if thresholds else None
    if thresholded is not None or not is_clipped:
        return thresholded
    if reach == 0:
        fields.refuse("clip_sample_range", "it must be above 0")
    return partial(Clipped, low=-reach, high=reach, moves_noise=moves_noise)


def read_thresholding(fields: Fields, *, moves_noise: bool = True) -> partial[AbstractModifier] | None:
    """How samples are thresholded.

    Arguments:
        fields: Fields of the config.
        moves_noise: Whether the noise follows the thresholded estimate.
    """
    ratio, largest = fields.number("dynamic_thresholding_ratio", 0.995), fields.number("sample_max_value", 1.0)
    if not fields.flag("thresholding"):
        return None
    if not 0 < ratio <= 1:
        fields.refuse("dynamic_thresholding_ratio", "it must lie above 0, and be at most 1")
    if largest < 1:
        fields.refuse("sample_max_value", "it must be 1 or more")
    return partial(Thresholded, quantile=ratio, low=-1.0, high=1.0, largest=largest, moves_noise=moves_noise)


def read_spacing(fields: Fields, default: str, *, early_end: bool = False, whole: bool = True) -> AbstractGrid:
    """Where the scheduler evaluates the network.

    Arguments:
        fields: Fields of the config.
        default: Value of `timestep_spacing` where there is none.
        early_end: Whether it spaces one step more, and leaves that out.
        whole: Whether it rounds what is "linspace" to whole steps.
    """
    spacing = fields.choice("timestep_spacing", default, ("linspace", "leading", "trailing"))
    offset = fields.count("steps_offset", 0, least=0)
    if spacing == "leading":
        return LeadingGrid(offset, early_end)
    if spacing == "trailing":
        return TrailingGrid()
    return ChainGrid(early_end) if whole else UniformGrid()


def read_sigmas(
    fields: Fields, chain: DiscreteChain, *, lu: bool = False, rounded: tuple[str, ...] = ()
) -> AbstractGrid | None:
    """Levels that `use_karras_sigmas` or the like asks for; None if nothing does.

    Arguments:
        fields: Fields of the config.
        chain: Chain.
        lu: Whether the scheduler reads `use_lu_lambdas`.
        rounded: Fields whose levels have their timesteps rounded by the scheduler.
    """
    asked = asked_sigmas(fields, lu=lu)
    if not asked:
        return None
    if len(asked) > 1:
        fields.refuse(asked[0], f"{asked[1]} is true as well; only one may be")
    if asked[0] == "use_beta_sigmas":
        fields.say("levels of a beta distribution are not here; the steps are those of KarrasGrid")
    if asked[0] in rounded:
        fields.say(f"the network is asked at timesteps between whole ones, which diffusers rounds ({asked[0]})")
    grid = _GRIDS[asked[0]]
    return RaisedGrid(grid) if chain.ends_in_pure_noise else grid


def asked_sigmas(fields: Fields, *, lu: bool = False) -> list[str]:
    """The fields that ask for levels other than those of the spacing; `lu` for a scheduler with `use_lu_lambdas`."""
    return [name for name in _GRIDS if (lu or name != "use_lu_lambdas") and fields.flag(name)]


def say_even(fields: Fields, *, lu: bool = False) -> None:
    """Say which levels are left out along a flow; `lu` for a scheduler with `use_lu_lambdas`."""
    for name in asked_sigmas(fields, lu=lu):
        fields.say(f"the steps are even in the shifted time, without {name}")


def within(spacing: AbstractGrid, inner: AbstractGrid | None) -> AbstractGrid:
    """The grid of a spacing, with other levels between its first and its last where there are any."""
    if inner is None:
        return spacing
    return inner if isinstance(spacing, UniformGrid) else WithinGrid(spacing, inner)


def read_order(fields: Fields, most: int = 3) -> int:
    """Order of a solver.

    Arguments:
        fields: Fields of the config.
        most: Largest order that the scheduler has.
    """
    order = fields.count("solver_order", 2)
    if order > most:
        fields.refuse("solver_order", f"it must be {most} or less")
    return order


def read_multistep_order(fields: Fields) -> int:
    """Order of DPM-Solver++, whose steps are ours but for those of two kinds."""
    order = read_order(fields)
    if fields.choice("solver_type", "midpoint", SOLVER_TYPES) == "heun":
        fields.say("steps of order 2 are those of solver_type: midpoint, which have the same limit")
    if order == 3:
        fields.say("steps of order 3 have the curvature of the expansion, which is twice that of diffusers")
    is_lowered, is_euler = fields.flag("lower_order_final", True), fields.flag("euler_at_final")
    to_level = not _denoises(fields)
    if is_lowered and order > 2 - to_level:
        fields.say(f"the last two of fewer than 15 steps have order {order}; diffusers lowers it (lower_order_final)")
    if is_euler and order > 1 and to_level:
        fields.say(f"the last step has order {order}; that of diffusers has order 1 (euler_at_final)")
    return order


def refuse_dynamic_shift(fields: Fields, shift: str) -> None:
    """Raise ValueError for a shift by the size of the image; `shift` is the field that has a fixed one."""
    remedy = f"the shift follows from the size of the image there; set it to false, and {shift} to the exponential"
    fields.absent("use_dynamic_shifting", f"{remedy} of its mu")


def read_end(fields: Fields) -> bool:
    """Whether the last step leads to the denoised estimate, as that of a sample always does, or to a noise level."""
    denoises = _denoises(fields)
    if not denoises:
        fields.say(AT_LEVEL.format("final_sigmas_type: sigma_min"))
    return denoises


def _denoises(fields):
    return fields.choice("final_sigmas_type", "zero", ("zero", "sigma_min")) == "zero"


def last_step(chain: DiscreteChain, evaluations: int, grid: AbstractGrid) -> int:
    """Number of steps between so many evaluations, or between as many as the chain has."""
    grid = grid.ends if isinstance(grid, WithinGrid) else grid
    most = chain.steps - (grid.offset if isinstance(grid, LeadingGrid) else 0)
    if isinstance(grid, ChainGrid | LeadingGrid):
        most -= grid.early_end
    return max(1, min(evaluations, most) - 1)
