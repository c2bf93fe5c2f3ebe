"""The kit's errors: each says what was wrong, what was expected, and what to do."""


class SpectrakitError(ValueError):
    """Base of every error the kit raises on purpose; a ``ValueError``, so ordinary handlers still catch it."""


class SpectrumError(SpectrakitError):
    """A spectrum that cannot be used as it is: wrong shape, NaN, no usable pixel, negative continuum."""


class MismatchError(SpectrakitError):
    """Two things that were not made for each other: grid, medium, normalisation, library, weights."""


class LabelError(SpectrakitError):
    """A label that is missing, has the wrong unit, or lies outside the library's hull."""


class DataFileError(SpectrakitError):
    """A file that is missing, truncated, corrupted, or not what its name says."""
