"""What callers ask is checked where the request is made, whoever makes it."""

import pytest

from core.models.control import IfEnded, RerunMode, RerunRequest
from core.models.submission import SubmitRequest


@pytest.mark.parametrize(
    ("mode", "from_stage"), [(RerunMode.FAILED, None), (RerunMode.ALL, None), (RerunMode.FROM_STAGE, 2)]
)
def test_stage_of_a_rerun_goes_with_its_mode(mode, from_stage):
    assert RerunRequest(mode=mode, from_stage=from_stage).from_stage == from_stage
    with pytest.raises(ValueError, match=f"expected .*from_stage.*, found mode '{mode}' and from_stage"):
        RerunRequest(mode=mode, from_stage=None if from_stage else 2)


@pytest.mark.parametrize("if_ended", [IfEnded.RETURN, IfEnded.FORCE])
def test_force_wants_a_new_job_whether_or_not_if_ended_does(if_ended):
    assert SubmitRequest("shapes", {}, force=True, if_ended=if_ended).makes_new_job


@pytest.mark.parametrize("if_ended", [IfEnded.RERUN, IfEnded.FAIL])
def test_force_beside_another_wish_is_refused(if_ended):
    with pytest.raises(ValueError, match=f"expected force or if_ended, not both, found .*{if_ended}"):
        SubmitRequest("shapes", {}, force=True, if_ended=if_ended)
    assert not SubmitRequest("shapes", {}, if_ended=if_ended).makes_new_job
