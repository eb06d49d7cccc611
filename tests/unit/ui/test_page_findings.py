"""Parameters in a line of a list, and where findings lead."""

import pytest

from core.models.control import JobAction
from core.models.insight import Finding, Severity
from core.safety.roles import Role
from triggers.ui import texts
from triggers.ui.places import with_places, without_failures
from triggers.ui.short_parameters import short_parameters
from triggers.ui.visitor import Visitor


class SceneParameters:
    parameters_schema = {
        "folder": {"type": "str", "required": True},
        "scenes": {"type": "int", "default": 12},
        "resampling": {"type": "str", "default": "bilinear"},
        "broken": {"type": "list", "default": []},
        "held": {"type": "list", "default": []},
    }


class TestShortParameters:
    def short(self, parameters, job=SceneParameters):
        return [(each.name, each.text) for each in short_parameters(parameters, job)]

    def test_what_is_required_comes_first_and_defaults_are_left_out(self):
        given = {"scenes": 12, "held": [], "resampling": "cubic", "broken": [1], "folder": "abfs://a"}
        assert self.short(given) == [("folder", "abfs://a"), ("resampling", "cubic"), ("broken", "[1]")]
        assert self.short({"scenes": 12}) == []

    def test_of_an_unknown_job_type_the_first_are_shown_and_large_ones_are_not_there(self):
        assert self.short({"a": None, "b": {"c": 1}, "d": "x\ny", "e": 2}, None) == [
            ("a", "null"),
            ("d", "x y"),
            ("e", "2"),
        ]
        assert short_parameters(None, None) == []

    def test_of_a_long_path_the_end_is_shown_and_of_a_long_text_the_beginning(self):
        (path, words) = short_parameters({"p": "abfs://" + "a" * 60 + "/end.tif", "w": "word " * 40}, None)
        assert path.text.endswith("aaa/end.tif")
        assert (len(path.text), len(words.text), words.text[:5]) == (44, 44, "word ")
        assert path.whole.startswith("abfs://")


def test_what_is_to_be_typed_is_apart_in_a_sentence():
    assert texts.code_parts("fix it, then: coremachine rerun 0a --failed; or `x y`") == [
        (False, "fix it, then: "),
        (True, "coremachine rerun 0a --failed"),
        (False, "; or "),
        (True, "x y"),
    ]


class TestPlaces:
    JOB = "0" * 64

    def explained(self, finding, role=Role.OPERATOR, actions=(JobAction.RESUME, JobAction.RERUN)):
        (found,) = with_places([finding], self.JOB, actions, Visitor(has_roles=True, role=role))
        return found

    def test_a_command_is_left_out_where_a_button_does_it(self):
        finding = Finding("paused", Severity.WARNING, "paused", advice="coremachine resume 0")
        found = self.explained(finding)
        assert ([place.dialog for place in found.places], found.advice) == (["d-resume"], None)
        viewed = self.explained(finding, Role.VIEWER)
        assert (viewed.places, viewed.advice) == ((), "coremachine resume 0")
        assert self.explained(finding, actions=()).places == ()

    def test_a_job_that_waits_for_its_turn_can_be_adjusted_there(self):
        advice = "they have their turn; for a larger share: coremachine adjust 0a --priority high"
        finding = Finding("waits_for_turn", Severity.INFO, "m", advice=advice)
        found = self.explained(finding, actions=(JobAction.CANCEL, JobAction.PAUSE))
        assert ([place.dialog for place in found.places], found.advice) == (["d-adjust"], "they have their turn")
        assert self.explained(finding, actions=(JobAction.CANCEL,)).places == ()

    @pytest.mark.parametrize(
        ("advice", "left"),
        [
            ("all of them: coremachine failures 0 --fingerprint f", None),
            ("give one task less to do; all of them: coremachine failures 0", "give one task less to do"),
            ("for other numbers, at once and for all jobs: coremachine limits set a --at-once N", None),
            ("for other numbers, at once and for all jobs: coremachine limits set a; or: coremachine limits b", None),
            ("coremachine explain 0", None),
            ("fix the cause, then: coremachine rerun 0 --failed", "fix the cause, then: coremachine rerun 0 --failed"),
            (None, None),
        ],
    )
    def test_a_command_is_left_out_where_a_link_shows_the_same(self, advice, left):
        finding = Finding("tasks_failed", Severity.ERROR, "m", advice=advice, about={"fingerprint": "f"})
        assert self.explained(finding).advice == left

    def test_failures_are_shown_once_beside_their_groups(self):
        """ "What failed" listed the errors that "why" had listed just before."""
        only = "all of them: coremachine failures 0 --fingerprint f"
        findings = [
            Finding("failed", Severity.ERROR, "m"),
            Finding("tasks_failed", Severity.ERROR, "m", advice=only, about={"fingerprint": "f"}),
            Finding("tasks_failed", Severity.ERROR, "m", advice=f"give less to do; {only}", about={"fingerprint": "g"}),
            Finding("more_failures", Severity.INFO, "m", advice="coremachine failures 0"),
        ]
        explained = with_places(findings, self.JOB, (), Visitor(has_roles=True, role=Role.OPERATOR))
        left = [(each.finding.code, each.advice) for each in without_failures(explained)]
        assert left == [("failed", None), ("tasks_failed", "give less to do")]

    @pytest.mark.parametrize(
        ("code", "about", "parts", "anchor"),
        [
            ("waits_for_limit", {"limit": "a/b"}, ("limits", "a/b"), ""),
            ("queue_without_app", {"queue": "raster"}, ("queues",), "queue-raster"),
            ("job_is_open", {"job_id": "ab" * 32}, ("jobs", "ab" * 32), ""),
            ("interrupted", {"task_id": "s1-a"}, ("jobs", JOB, "tasks", "s1-a"), ""),
            ("tasks_failed", {"fingerprint": "f"}, ("jobs", JOB), ""),
            ("dead_lettered", {"fingerprint": "f"}, ("dead-letters",), ""),
            ("janitor_late", {}, ("queues",), "apps"),
            ("step_retry", {}, ("jobs", JOB), ""),
        ],
    )
    def test_a_finding_leads_to_its_cause(self, code, about, parts, anchor):
        (place,) = self.explained(Finding(code, Severity.INFO, "m", about=about)).places
        assert (place.parts, place.anchor) == (parts, anchor)
