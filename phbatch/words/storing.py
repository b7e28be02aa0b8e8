"""What the integers of an output stand for: one stated range, and none for floats, for which it would do nothing."""

from __future__ import annotations

from phbatch.words.wording import say


def require_one_range(
    dtype: str, value_range: tuple[float, float] | None, scale: float | None, *, rescale: bool
) -> None:
    """Refuse integers without a stated range, or with several, and floats with one; see `phbatch.RunSettings`.

    Raises
    ------
    ValueError
        Says what to add or to leave out.

    Examples
    --------
    >>> require_one_range("uint8", (0, 4), None, rescale=False)
    >>> require_one_range("uint8", (4, 0), None, rescale=False)
    Traceback (most recent call last):
    ValueError: range 4:0 is LOW:HIGH, of which the second must be above the first
    """
    given = {"rescale": rescale, "range": value_range is not None, "scale": scale is not None}
    stated = [name for name, is_given in given.items() if is_given]
    if dtype.startswith("uint"):
        if not stated:
            raise ValueError(
                say(
                    f"--dtype={dtype} needs a stated range: add --rescale to write the input's intensities, or"
                    " --range LOW:HIGH or --scale N to write normalized values"
                )
            )
        if len(stated) > 1:
            raise ValueError(f"{' and '.join(stated)} are two ways to store a value: leave one out")
    elif stated not in ([], ["rescale"]):
        raise ValueError(say(f"{stated[-1]} is for integers and dtype is {dtype}: add --dtype uint16, or leave it out"))
    if value_range is not None and not value_range[1] - value_range[0] > 1e-30:
        low, high = value_range
        raise ValueError(f"range {low:g}:{high:g} is LOW:HIGH, of which the second must be above the first")
