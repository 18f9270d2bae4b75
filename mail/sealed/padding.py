"""Padding: how long a sealed body looks (Padmé: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and
Communication with PURBs", PETS 2019, section 4). Pure functions of lengths: what the padding is made of is known
where it is added.
"""

from __future__ import annotations

MINIMUM = 1024
"""Bytes below which all bodies look the same: a yes and a no."""


def padded_length(length: int) -> int:
    """The length in bytes that `length` is padded to: Padmé, and never less than MINIMUM.

    At most 12% more, decreasing with the length; a length leaks O(log log length) bits. Not decreasing, and a padded
    length is padded to itself.
    """
    if length < MINIMUM:
        return MINIMUM
    exponent = length.bit_length() - 1
    mask = (1 << exponent - exponent.bit_length()) - 1
    return (length + mask) & ~mask
