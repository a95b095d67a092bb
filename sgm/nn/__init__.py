"""Networks: called as `network(level, u, cond, key=None)` on one example, with `level = log tan(theta)`."""

from sgm.nn.condition import Condition as Condition
from sgm.nn.conditioning import Conditioning as Conditioning
from sgm.nn.conditioning import with_statistics as with_statistics
from sgm.nn.conv_dense import ConvDense as ConvDense
from sgm.nn.dit import DIT_PRESETS as DIT_PRESETS
from sgm.nn.dit import DiT as DiT
from sgm.nn.frozen import Frozen as Frozen
from sgm.nn.mlp import MLP as MLP
from sgm.nn.network import AbstractLevelNetwork as AbstractLevelNetwork
from sgm.nn.network import AbstractNetwork as AbstractNetwork
from sgm.nn.stepwise import StepwisePerceptron as StepwisePerceptron
from sgm.nn.transformer import Transformer as Transformer
from sgm.nn.unet import UNet as UNet
from sgm.nn.units import Units as Units
