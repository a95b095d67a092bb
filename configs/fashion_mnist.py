"""Fashion-MNIST, 28x28, conditioned on its ten classes, by the recipe of mnist.

The files are where the package dataset-fashion-mnist of Debian puts them; `--data.path` names another folder.
"""

from dataclasses import replace

from sgm.data import Idx
from sgm.experiment import load_config

experiment = replace(load_config("mnist"), data=Idx("/usr/share/datasets/fashion-mnist", classes=10))
