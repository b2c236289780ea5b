"""Seeds that follow from one number and names, the same in every process and on every machine."""

from trainshed.files import canonical_json, digest_text


def derive_seed(seed: int, *names: str) -> int:
    """Return a seed for one purpose.

    Parameters
    ----------
    seed
        The run's seed.
    names
        What it is for, such as ``"pretrain", "shuffle"``.

    Returns
    -------
    int
        In ``[0, 2**32)``, which every generator in use takes.
    """
    return int(digest_text(canonical_json([seed, *names]), 8), 16)
