"""Networks of EDM's published checkpoints, and their timesteps (Karras et al. 2022, arXiv:2206.00364).

`docs/examples/to_safetensors.py` makes folders of them that `sgm.load` reads.
"""

from sgm.interop.edm.dhariwal_unet import DhariwalUNet as DhariwalUNet
from sgm.interop.edm.song_unet import SongUNet as SongUNet
from sgm.interop.edm.timesteps import LogVETimesteps as LogVETimesteps
from sgm.interop.edm.timesteps import VPTimesteps as VPTimesteps
