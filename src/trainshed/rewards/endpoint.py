"""A reward from an endpoint that takes and gives JSON over HTTP. Left out: serving one."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from trainshed.config.rewards import HTTPOptions
from trainshed.errors import ConfigError, RunError

#: answers after which another attempt may help
_PASSING = (408, 429)


class HTTPReward:
    """What an endpoint says about completions.

    It gets ``{"prompts": [...], "completions": [...], "columns": {name: [...]}}`` and must answer
    ``{"rewards": [...]}``, a number or null for each completion. Columns that JSON cannot hold are left out.

    Parameters
    ----------
    options
        Where it is, and how long to wait and how often to try.

    Raises
    ------
    ConfigError
        When the environment variable that should hold the token is not set.
    """

    def __init__(self, options: HTTPOptions) -> None:
        self.options = options
        self._headers = {"Content-Type": "application/json"}
        if options.token_variable:
            token = os.environ.get(options.token_variable)
            if not token:
                raise ConfigError(
                    f"the environment variable {options.token_variable} is not set",
                    where="training.rewards, http, token_variable",
                )
            self._headers["Authorization"] = f"Bearer {token}"

    def __call__(self, prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
        """Judge completions; see `functions.RewardFunction`.

        Raises
        ------
        RunError
            When the endpoint cannot be reached in all attempts, refuses, or answers something else.
        """
        sent = {name: values for name, values in columns.items() if _is_json(values)}
        found: list[float | None] = []
        size = self.options.batch_size
        for start in range(0, len(completions), size):
            part = slice(start, start + size)
            body = {
                "prompts": prompts[part],
                "completions": completions[part],
                "columns": {name: list(values[part]) for name, values in sent.items()},
            }
            found += self._rewards(self._post(json.dumps(body).encode()), len(completions[part]))
        return found

    def _post(self, body: bytes) -> bytes:
        """Return the answer; attempts wait twice as long each time."""
        wait = self.options.backoff_s
        for attempt in range(self.options.retries + 1):
            request = urllib.request.Request(self.options.url, data=body, headers=self._headers)
            try:
                with urllib.request.urlopen(request, timeout=self.options.timeout_s) as answer:
                    return bytes(answer.read())
            except urllib.error.HTTPError as error:
                why = f"it answered {error.code}"
                if error.code < 500 and error.code not in _PASSING:
                    raise self._error(why) from error
            except OSError as error:  # refused, no such host, too late
                why = str(getattr(error, "reason", error))
            if attempt < self.options.retries:
                time.sleep(wait)
                wait *= 2
        raise self._error(f"{why}, in {self.options.retries + 1} attempts")

    def _rewards(self, answer: bytes, count: int) -> Sequence[float | None]:
        try:
            found = json.loads(answer)
        except ValueError:
            raise self._error(f"its answer is no JSON: {answer[:80]!r}") from None
        rewards = found.get("rewards") if isinstance(found, Mapping) else None
        if not isinstance(rewards, list) or len(rewards) != count:
            raise self._error(f'its answer has no list "rewards" of {count} values')
        if not all(value is None or isinstance(value, int | float) for value in rewards):
            raise self._error("its rewards are not all numbers or null")
        return rewards

    def _error(self, why: str) -> RunError:
        return RunError(
            f"the reward endpoint gave no rewards: {why}",
            where=self.options.url,
            fix='let it answer {"rewards": [...]}, one for each completion; see its own log',
        )


def _is_json(values: Any) -> bool:
    try:
        json.dumps(values)
    except (TypeError, ValueError):
        return False
    return True
