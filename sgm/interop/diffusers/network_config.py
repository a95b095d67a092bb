"""From the config.json of a network to its class and its shapes."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.random as jr

from sgm.interop.adm.unet import UNetModel
from sgm.interop.diffusers.dit import DiTTransformer2DModel
from sgm.interop.diffusers.unet import UNet2DModel
from sgm.interop.edm.dhariwal_unet import DhariwalUNet
from sgm.interop.edm.song_unet import SongUNet
from sgm.interop.timestep.network import AbstractTimestepNetwork
from sgm.options import options
from sgm.serial import described, from_json

OF_DIFFUSERS: tuple[type[AbstractTimestepNetwork], ...] = (UNet2DModel, DiTTransformer2DModel)
"""The networks that diffusers has too."""

NETWORKS: tuple[type[AbstractTimestepNetwork], ...] = (*OF_DIFFUSERS, UNetModel, SongUNet, DhariwalUNet)
"""The networks that a config.json can name."""

WITHOUT_EFFECT: dict[str, dict[str, tuple[tuple[Any, ...], str]]] = {
    "DiTTransformer2DModel": {
        "attention_type": (("default",), "attention without a gate for a layout"),
        "caption_channels": ((None,), "no captions are read"),
        "cross_attention_dim": ((None,), "tokens attend to each other alone"),
        "double_self_attention": ((False,), "each block attends once"),
        "interpolation_scale": ((None,), "it is of the positions of PixArt"),
        "num_vector_embeds": ((None,), "an example is an image, not codes of a table"),
        "only_cross_attention": ((False,), "tokens attend to each other"),
        "use_additional_conditions": ((None, False), "the resolution and the aspect ratio are no conditions"),
        "use_linear_projection": ((False,), "patches are projected by a convolution"),
    },
    **{cls.__name__: {} for cls in NETWORKS if cls is not DiTTransformer2DModel},
}
"""Fields that change nothing at the values that are listed, each with the reason, by the class that has them."""

_OLD_TRANSFORMER = "Transformer2DModel"
_READS_TEXT = (
    *("AuraFlowTransformer2DModel", "CogView3PlusTransformer2DModel", "CogView4Transformer2DModel"),
    *("FluxTransformer2DModel", "HiDreamImageTransformer2DModel", "HunyuanDiT2DModel", "Kandinsky3UNet"),
    *("LuminaNextDiT2DModel", "Lumina2Transformer2DModel", "PixArtTransformer2DModel", "QwenImageTransformer2DModel"),
    *("SanaTransformer2DModel", "SD3Transformer2DModel", "UNet2DConditionModel", "UVit2DModel"),
)


def class_of_config(written: Mapping[str, Any], where: str) -> type[AbstractTimestepNetwork]:
    """The class that the config.json of a network names.

    Arguments:
        written: Fields of the file.
        where: Path of the file, for errors.

    Raises:
        ValueError: for a class that is not known, with those that are.
    """
    name, norm = written.get("_class_name"), written.get("norm_type")
    if name == _OLD_TRANSFORMER and norm == "ada_norm_zero":
        return DiTTransformer2DModel
    found = next((cls for cls in NETWORKS if cls.__name__ == name), None)
    if found is not None:
        return found
    why = "which is not known here"
    if name in _READS_TEXT or (name == _OLD_TRANSFORMER and norm == "ada_norm_single"):
        why = "which reads text, and no network that reads text is known here"
    elif name == _OLD_TRANSFORMER:
        why = f'of norm_type = {norm!r}, and of this class "ada_norm_zero" alone is known here'
    raise ValueError(
        f"{where}: it is of the class {name}, {why}; known are {', '.join(sorted(cls.__name__ for cls in NETWORKS))}."
    )


def skeleton_of_config(written: Mapping[str, Any], where: str) -> AbstractTimestepNetwork:
    """The network of a config.json, with shapes in the place of arrays.

    Arguments:
        written: Fields of the file. Those whose names begin with _ say nothing of the network but its class.
        where: Path of the file, for errors.

    Raises:
        ValueError: for a class or a field that is not known, and for a field of a wrong type or value.
    """
    cls = class_of_config(written, where)
    known, name = options(cls, whole=True), cls.__name__
    fields = {field: value for field, value in written.items() if not field.startswith("_")}
    for field, (values, reason) in WITHOUT_EFFECT[name].items():
        if field in fields and not _is_among(value := fields.pop(field), values):
            listed = " or ".join(map(repr, values))
            raise ValueError(f"{where}: {field} = {value!r}, but a {name} is known with {listed} alone: {reason}.")
    if unknown := fields.keys() - known.keys():
        raise ValueError(
            f"{where}: {name} has no field {', '.join(sorted(unknown))} here; what it changes is not known. "
            "Remove it where it changes nothing."
        )
    for field, option in known.items():
        if option.is_required and field not in fields:
            raise ValueError(f"{where}: {name} lacks the field {field}; add it: {described(option.kind)}.")
    given = {field: from_json(value, known[field].kind, f"{where}: {field}") for field, value in fields.items()}
    try:
        return eqx.filter_eval_shape(cls, **given, key=jr.key(0))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


def _is_among(value, values):
    return any(value == known and type(value) is type(known) for known in values)
