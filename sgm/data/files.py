"""Arrays in a file as a data set."""

import dataclasses
import functools

import numpy as np

from sgm.data.opened import open_file
from sgm.data.stored import AbstractStored, Parts, make_tuples


@dataclasses.dataclass(frozen=True)
class Files(AbstractStored):
    """Examples in a file or several, which are never loaded as a whole, in their own units.

    The file is .npy, .npz, .parquet, .csv, HDF5 (`pip install h5py`) or Zarr (`pip install zarr`), or a
    folder of .npy files. Each of the other arguments names an array of it, or a column. Several names stand for columns
    side by side. Several files of the same arrays are read as one, whose rows follow one another. What its arrays may
    hold is said at `Arrays`.

    Arguments:
        path: Path of the file; or a pattern, such as "maps-*.npz", whose files are taken in order of their names, or a
            tuple of paths.
        x: Name of the examples, or names of columns. The array of a .npy file is called x.
        params: Name of the vectors of parameters that are conditions, or names of columns.
        label: Name of the numbers of classes that are conditions.
        image: Name of the images that are conditions.
        held_out: Share of the examples that is held out as the split "test", or the name of an array of booleans, true
            for those that are.
        seed: Seed of the choice of held-out examples.
        grey_levels: Number of grey levels of unsigned integers: 256 for uint8 and 65536 for uint16 by default.
        classes: Number of classes: by default one more than the largest label.
        missing: Whether entries of x may be missing, which are nan: for a `Transformer`, which learns from the others.

    Raises:
        DataUnavailable: where there is no such file, or it cannot be read, when the data are first used.
        ValueError: for names that are not in the file, and what `Arrays` refuses, when the data are first used.

    Example:
        >>> data = Files("maps.npz", x="x", params="theta")
        >>> data.shape, data.size("train"), data.size("test")
        ((32, 32, 1), 90, 10)
    """

    path: str | tuple[str, ...]
    x: str | tuple[str, ...] = "x"
    params: str | tuple[str, ...] | None = None
    label: str | None = None
    image: str | None = None
    held_out: float | str = 0.1
    seed: int = 0
    grey_levels: int | None = None
    classes: int | None = None
    missing: bool = False

    def __post_init__(self):
        make_tuples(self, "path", "x", "params")

    @functools.cached_property
    def parts(self) -> Parts:
        file = open_file("Files", self.path)

        def named(name):
            if name not in file.names:
                known = ", ".join(file.names) or "none"
                raise ValueError(f"Files: there is no array {name!r} in {self.path}; there are {known}.")
            return file.array(name)

        def read(names):
            if names is None:
                return None
            names = (names,) if isinstance(names, str) else names
            arrays = [named(name) for name in names]
            return arrays[0] if len(arrays) == 1 else file.columns(names)

        mask = None
        if isinstance(self.held_out, str):
            source = named(self.held_out)
            mask = np.asarray(source[np.arange(source.shape[0])])
            if mask.ndim != 1 or not np.all((mask == 0) | (mask == 1)):
                raise ValueError(f"Files: held_out, {self.held_out!r}, is no array of booleans, one for each example.")
            mask = mask.astype(bool)
        x = read(self.x)
        assert x is not None  # It has a name.
        if x.dtype.kind in "iu" and len(x.shape) == 1:  # A column of whole numbers, as those side by side.
            x = file.columns((self.x,) if isinstance(self.x, str) else self.x)
        names = None if isinstance(self.x, str) or len(self.x) == 1 else tuple(self.x)
        return Parts(x, read(self.params), read(self.label), read(self.image), names, mask)
