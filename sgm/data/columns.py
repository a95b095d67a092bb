"""Checks of the columns of a data set, a few rows at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

# A column of at most so many distinct values, all whole, of ten entries each on average, looks like categories.
_CATEGORIES = 20


def checked_columns(
    call: str,
    name: Callable[[int], str],
    chunks: Iterable[np.ndarray],
    remedies: Mapping[str, str],
    missing: bool = False,
) -> Iterator[np.ndarray]:
    """The chunks, each with columns along its last axis, which must be finite and vary.

    Arguments:
        call: Name of the data set in messages.
        name: Name of a column, by its place.
        chunks: Arrays of one last axis.
        remedies: What to do about columns that are "constant". With one for "categories", which have no density, none
            may look like these either.
        missing: Whether entries may be nan, which are missing.

    Raises:
        ValueError: for a column that is not so.
    """
    low, high = np.asarray(np.inf), np.asarray(-np.inf)
    count, distinct = 0, {}
    for chunk in chunks:
        table = chunk.reshape(-1, chunk.shape[-1])
        wrong = np.isinf(table) if missing else ~np.isfinite(table)
        if np.any(wrong):
            place, finite = int(np.argwhere(wrong)[0][1]), "infinite" if missing else "missing or not finite"
            raise ValueError(f"{call}: {name(place)} has entries that are {finite}; mend or leave them out.")
        if not count and "categories" in remedies:
            distinct = {place: np.asarray([]) for place in range(table.shape[1])}
        low, high = np.fmin(low, np.fmin.reduce(table)), np.fmax(high, np.fmax.reduce(table))
        count += len(table)
        distinct = dict(_few_whole_values(table, distinct))
        yield chunk
    for place in np.flatnonzero(np.isinf(low)) if count else ():
        raise ValueError(f"{call}: {name(int(place))} has no value at all; {remedies['constant']}.")
    for place in np.flatnonzero(np.asarray(low == high)):
        raise ValueError(f"{call}: {name(int(place))} is constant (= {low[place]:.6g}); {remedies['constant']}.")
    for place, values in distinct.items():
        if len(values) * 10 <= count:
            listed = ", ".join(f"{value:.6g}" for value in values[:5]) + (", ..." if len(values) > 5 else "")
            found, remedy = f"{name(place)} has only the whole values {listed}", remedies["categories"]
            raise ValueError(f"{call}: {found}, as categories have; {remedy}.")


def _few_whole_values(table, distinct):
    """The distinct values of the columns in `distinct`, joined by those of `table`, while they are whole and few."""
    for place, known in distinct.items():
        column = table[:, place][~np.isnan(table[:, place])]
        for part in (column[:1000], column):  # most columns are done with after a few rows
            known = np.union1d(known, part) if np.array_equal(part, np.rint(part)) else None
            if known is None or len(known) > _CATEGORIES:
                break
        else:
            yield place, known
