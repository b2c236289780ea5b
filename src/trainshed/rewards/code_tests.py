"""The reward of a program: do its tests pass? Left out: how it is run (`sandbox`)."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from trainshed.config.rewards import CodeTestsOptions
from trainshed.errors import ConfigError
from trainshed.progress import say
from trainshed.rewards.functions import column, completion_text
from trainshed.rewards.sandbox import Limits, Outcome, namespaces_work, run_tests

_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)


class CodeTests:
    """1 where the program in a completion passes its tests, else 0; or the share of tests that it passes.

    Whatever a program does, it is a reward of 0 and a reason in ``failures``, never an error here.

    Parameters
    ----------
    options
        Which column holds the tests, and what a program may take.

    Raises
    ------
    ConfigError
        With ``require_isolation``, where the system allows no namespaces.
    """

    def __init__(self, options: CodeTestsOptions | None = None) -> None:
        self.options = options or CodeTestsOptions()
        self.isolated = namespaces_work()
        self.failures: list[str | None] = []
        if not self.isolated:
            if self.options.require_isolation:
                raise ConfigError(
                    "this system allows no namespaces, so programs cannot be kept off the network",
                    where="training.rewards, code_tests, require_isolation",
                    fix="run in a container without network, and leave require_isolation out",
                )
            say("code_tests: programs run with limits, but are not kept off the network on this system")

    def __call__(self, prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
        """Judge completions; see `functions.RewardFunction`."""
        given = column(self.options.tests_column, columns, "code_tests")
        tests = [[item] if isinstance(item, str) else [str(text) for text in item] for item in given]
        programs = [program_of(completion_text(completion)) for completion in completions]
        with ThreadPoolExecutor(self.options.workers) as pool:
            outcomes = list(pool.map(self._run, programs, tests))
        self.failures = [outcome.why for outcome in outcomes]
        return [self._reward(outcome) for outcome in outcomes]

    def _run(self, program: str, tests: list[str]) -> Outcome:
        if not tests:
            return Outcome(0, 0, "there are no tests")
        if not program.strip():
            return Outcome(0, len(tests), "there is no program")
        limits = Limits(self.options.time_s, self.options.memory_mb * 2**20, self.options.file_mb * 2**20)
        return run_tests(program, tests, limits=limits, isolated=self.isolated)

    def _reward(self, outcome: Outcome) -> float:
        if self.options.partial and outcome.tests:
            return outcome.passed / outcome.tests
        return float(outcome.tests > 0 and outcome.passed == outcome.tests)


def program_of(text: str) -> str:
    """Return the last fenced block of Python in a completion, or all of it where there is none."""
    blocks = _FENCE.findall(text)
    return str(blocks[-1]) if blocks else text
