"""Forms for what the API's PUT takes, made from its model: with the same errors, beside the fields."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel, TypeAdapter, ValidationError

from core.basics.canonical import shown
from jobs.parameters import ParameterError
from triggers.problems import ProblemError
from triggers.ui.page import render
from triggers.ui.schema_form import PREFIX, as_text, make_fields, read_texts, read_values, top_name, words_of

_SHOWN_IN_FORM = (400, 409)


@dataclass(frozen=True)
class Editor:
    """What the forms of one kind are about.

    Args:
        place: Of its pages, below /ui; `creates` is that of the form for a new one.
        name: What a name has to be; `named` has that in words.
    """

    model: type[BaseModel]
    noun: str
    place: str
    creates: str
    name: TypeAdapter[str]
    named: str

    @cached_property
    def schema(self) -> dict[str, Any]:
        return self.model.model_json_schema()


@dataclass(frozen=True)
class Draft:
    """What a form has.

    Args:
        name: Of what is changed; None: it is new, and the form has a field for it.
        revision: The one that the form was made from.
        given: Texts by field.
        suggestions: Values to choose from by field, beside any others.
    """

    editor: Editor
    name: str | None = None
    revision: int | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    suggestions: Mapping[str, Sequence[str]] = field(default_factory=dict)


def draft_of(editor: Editor, name: str, found: BaseModel, **more: Any) -> Draft:
    """The form for something that is there, as the API answers it."""
    values = found.model_dump(mode="json")
    given = {key: as_text(values[key]) for key in editor.model.model_fields if values[key] not in (None, {}, [])}
    return Draft(editor, name, values["revision"], given, **more)


def show_form(request: Request, draft: Draft, errors: Sequence[ParameterError] = ()) -> Response:
    """The form; with errors, its status is 400. One without a field is shown above all fields."""
    editor = draft.editor
    known = {*editor.schema["properties"], "name"}
    beside = {top_name(error): words_of(error) for error in errors if top_name(error) in known}
    page = render(
        request,
        "edit.html",
        nav=editor.place,
        editor=editor,
        draft=draft,
        fields=make_fields(editor.schema, draft.given, beside, draft.suggestions),
        name_given=draft.given.get("name", ""),
        name_error=beside.get("name", ""),
        others=[
            error.expected if not error.field else error.message for error in errors if top_name(error) not in known
        ],
        error_count=len(errors),
        prefix=PREFIX,
    )
    page.status_code = 400 if errors else 200
    return page


def answer_form(
    request: Request,
    draft: Draft,
    form: Mapping[str, str],
    present_revision: int | None,
    put: Callable[[str, dict[str, Any]], Response],
) -> Response:
    """What `put` answers once all of the form can be read and it is refused by nothing; else the form again.

    Args:
        draft: Without the texts, which the form has.
        present_revision: Of what has this name now; None where nothing has it.
    """
    editor = draft.editor
    name = draft.name if draft.name is not None else form.get("name", "").strip()
    draft = replace(draft, given=read_texts(editor.schema, form) | {"name": name}, revision=present_revision)
    values, errors = read_values(editor.schema, form)
    errors += _wrong_name(editor, name) if draft.name is None else []
    if draft.name is None and present_revision is not None:
        errors.append(ParameterError("name", f"a name that no {editor.noun} has", shown(name, 100)))
    if draft.name is not None and form.get("revision") != str(present_revision):
        errors.append(ParameterError("", _CHANGED.format(editor.noun), ""))
    if errors:
        return show_form(request, draft, errors)
    try:
        return put(name, values)
    except ProblemError as problem:
        if problem.status not in _SHOWN_IN_FORM:
            raise
        return show_form(request, draft, _errors_of(problem))


_CHANGED = (
    "Somebody changed this {} after the form was opened. The form still has what you entered: save it again to replace "
    "that change, or open the page in another tab to see it first."
)


def _wrong_name(editor: Editor, name: str) -> list[ParameterError]:
    try:
        editor.name.validate_python(name)
    except ValidationError:
        return [ParameterError("name", editor.named, shown(name, 100) if name else "none")]
    return []


def _errors_of(problem: ProblemError) -> list[ParameterError]:
    found = [
        ParameterError(each.field, each.expected, each.found or "none", each.hint or "") for each in problem.errors
    ]
    return found or [ParameterError("", problem.detail, "")]
