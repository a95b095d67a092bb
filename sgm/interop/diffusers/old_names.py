"""Tensors by the names that diffusers gives them today."""

import re
from collections.abc import Iterator, Mapping

import numpy as np

_OF_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_LAYER = re.compile(rf"(?<=attentions\.)(\d+)\.({'|'.join(_OF_OLD)})\.(?=(weight|bias)$)")


class ModernNames(Mapping[str, np.ndarray]):
    """The same tensors, by today's names where a file has those of old.

    Layers of attention named query, key, value and proj_attn are to_q, to_k, to_v and to_out.0. The frequencies of the
    timestep were saved as time_proj.W, alone or beside time_proj.weight, which is the same. A tensor is read when it is
    asked for.

    Arguments:
        tensors: Tensors by the names of a file.

    Example:
        >>> ModernNames({"mid_block.attentions.0.query.bias": bias})["mid_block.attentions.0.to_q.bias"]
    """

    def __init__(self, tensors: Mapping[str, np.ndarray]):
        self.tensors = tensors
        self._names = {_modern(name): name for name in tensors}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.tensors[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _modern(name):
    if name == "time_proj.W":
        return "time_proj.weight"
    return _LAYER.sub(lambda match: f"{match[1]}.{_OF_OLD[match[2]]}.", name)
