"""Everything that is wrong with a configuration, gathered, so that one run of the program tells all of it.

Left out: finding the problems (see `load`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from trainshed.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that a configuration says and that cannot be meant.

    Parameters
    ----------
    what
        What is wrong.
    place
        ``file:line``, or ``command line``.
    key
        Dotted path of the key, or ``""`` for the file as a whole.
    fix
        What would be right.
    """

    what: str
    place: str
    key: str = ""
    fix: str | None = None

    @property
    def where(self) -> str:
        """File, line and key in one piece."""
        return f"{self.place}, {self.key}" if self.key else self.place


def configuration_error(problems: Iterable[Problem]) -> ConfigError:
    """Return one exception that tells every problem once, in the order in which they were found."""
    unique = list(dict.fromkeys(problems))
    if len(unique) == 1:
        only = unique[0]
        return ConfigError(only.what, where=only.where, fix=only.fix)
    lines = [f"{len(unique)} problems in the configuration:"]
    for problem in unique:
        lines.append(f"- {problem.what}")
        lines.append(f"    where: {problem.where}")
        if problem.fix:
            lines.append(f"    fix:   {problem.fix}")
    return ConfigError("\n".join(lines))
