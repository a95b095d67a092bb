"""What the networks of EDM have in common."""

import equinox as eqx

from sgm.interop.edm.blocks import one_hot
from sgm.interop.timestep.network import AbstractTimestepNetwork
from sgm.nn.layers import Features, check_divisible, check_options


class AbstractEDMNetwork(AbstractTimestepNetwork):
    """A network of EDM, with the arguments of EDM's own class."""

    img_resolution: eqx.AbstractVar[int]
    in_channels: eqx.AbstractVar[int]
    out_channels: eqx.AbstractVar[int]
    label_dim: eqx.AbstractVar[int]
    augment_dim: eqx.AbstractVar[int]
    dropout: eqx.AbstractVar[float]
    label_dropout: eqx.AbstractVar[float]
    channel_mult: eqx.AbstractVar[tuple[int, ...]]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.img_resolution, self.img_resolution, self.in_channels

    @property
    def outputs(self) -> int:
        return self.out_channels

    @property
    def classes(self) -> int | None:
        return self.label_dim or None

    @property
    def has_null(self) -> bool:
        return self.label_dim > 0 and self.label_dropout > 0

    @property
    def sizes(self) -> tuple[str, ...]:
        """Name of each level, by its resolution, as checkpoints have it."""
        return tuple(f"{self.img_resolution >> level}x{self.img_resolution >> level}" for level in self._levels)

    @property
    def _levels(self):
        return range(len(self.channel_mult))

    def _label(self, label) -> Features | None:
        """The label as a vector; None for a network without labels."""
        call = type(self).__name__
        if self.classes is not None:
            return one_hot(call, label, self.classes, self.has_null)
        if label is not None:
            raise ValueError(f"{call}: label is given, but the network reads none; leave it out.")
        return None


def check_network(network: AbstractEDMNetwork, **counts: int) -> None:
    """Raise unless the arguments are valid and fit each other.

    Arguments:
        network: Network, with its arguments set.
        counts: Other sizes that must be 1 or more.
    """
    call = type(network).__name__
    names = ("img_resolution", "in_channels", "out_channels")
    multipliers = {f"channel_mult[{level}]": count for level, count in enumerate(network.channel_mult)}
    sizes = {name: getattr(network, name) for name in names} | {"len(channel_mult)": len(network.channel_mult)}
    check_options(call, network.dropout, "float32", **sizes, **multipliers, **counts)
    for name in ("label_dim", "augment_dim"):
        if getattr(network, name) < 0:
            raise ValueError(f"{call}: {name} = {getattr(network, name)}; pass 0 for none, or their number.")
    if counts.get("model_channels", 0) % 2:
        raise ValueError(f"{call}: model_channels = {counts['model_channels']}; pass an even number.")
    check_levels(network, network.shape)


def check_levels(network: AbstractEDMNetwork, shape: tuple[int, ...]) -> None:
    """Raise unless the levels can halve the height and width."""
    check_divisible(type(network).__name__, shape, 2 ** (len(network.channel_mult) - 1), "resize the data")
