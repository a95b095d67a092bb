"""The network of ADM's published checkpoints (Dhariwal and Nichol 2021, arXiv:2105.05233).

`docs/examples/to_safetensors.py` makes folders of them that `sgm.load` reads.
"""

from sgm.interop.adm.unet import UNetModel as UNetModel
