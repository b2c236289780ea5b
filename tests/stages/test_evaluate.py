"""The stage that measures: what it kept from before a kill is taken whole or not at all."""

import pytest

from trainshed.errors import CheckpointError
from trainshed.evaluation.significance import Resampling
from trainshed.plan.directory import RunDirectory
from trainshed.stages.context import StageContext
from trainshed.stages.evaluate import _Measuring


@pytest.mark.parametrize("kept", ['{"counts": ', "{}", "[]", '{"per_example": {"ids": []}}'])
def test_damaged_measurements_are_told_and_left(tmp_path, kept):
    directory = RunDirectory(tmp_path)
    directory.checkpoints.mkdir()
    place = directory.checkpoints / "retrieval-after.json"
    place.write_text(kept)
    measuring = _Measuring(StageContext(directory, None), [], Resampling(samples=10))
    with pytest.raises(CheckpointError, match="what was measured before is damaged") as caught:
        measuring.retrieval("after", None, None, [1])
    assert caught.value.where == str(place)
    assert "delete this file" in caught.value.fix
    assert place.read_text() == kept
