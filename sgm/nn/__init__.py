"""Networks: called as `network(level, u, cond, key=None)` on one example, with `level = log tan(theta)`."""

from sgm.nn.mlp import MLP as MLP
from sgm.nn.unet import UNet as UNet
