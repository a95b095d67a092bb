"""Networks of EDM's published checkpoints, and how they are read (Karras et al. 2022, arXiv:2206.00364).

`tools/edm_to_safetensors.py` makes folders of them that `sgm.load` reads.
"""

from sgm.interop.edm.dhariwal_unet import DhariwalUNet as DhariwalUNet
from sgm.interop.edm.song_unet import SongUNet as SongUNet
