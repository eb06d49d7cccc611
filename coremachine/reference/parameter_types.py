"""What an entry of a job's `parameters_schema` may hold, from the checks of the schema, and the resource validators."""

from collections.abc import Iterator

from coremachine.reference.markdown import code, first_sentence, page, table
from jobs.parameter_schema import COMMON_KEYS, KEYS_OF_TYPE
from jobs.validators import registered_validators

_INTRODUCTION = """
`parameters_schema` of a job's class maps each parameter's name to an entry. A value that does not fit, and a name that
the schema does not have, are refused at submission with the path, what was expected and what was found. Texts of a
command line are converted to the entry's type first.

A pydantic model can take the place of the entries: [Declare a job](../howto/declare-a-job.md#parameters-as-a-model).
"""
TYPES = {
    "int": "an integer; true and false are not integers",
    "float": "a finite number; an integer is converted",
    "str": "text",
    "bool": "true or false",
    "list": "a list; each item is checked against `items`",
    "dict": "an object; its values are checked against `properties`",
}
KEYS = {
    "type": "the type of the value; required",
    "required": "true: a submission without this parameter is refused; a required parameter has no default",
    "default": "the value of a parameter that the submission leaves out",
    "allowed": "the list of permitted values",
    "nullable": "true: null is permitted",
    "description": "shown in `GET /api/job-types` and OpenAPI",
    "example": "shown in OpenAPI; it must be a valid value",
    "min": "the smallest number, or the smallest length of text or a list",
    "max": "the largest number, or the largest length of text or a list",
    "pattern": "a regular expression that the whole text must match",
    "format": "`path`: a place of this machine or a URL, which `coremachine submit` makes absolute",
    "items": "the entry that each item must fit",
    "properties": "the schema of the object: an entry per name",
}


def render() -> str:
    return page(
        "Parameter types",
        "`jobs/parameters.py`, `jobs/parameter_schema.py` and `jobs/validators.py`",
        _INTRODUCTION,
        "## Types",
        table(["type", "value", "its own keys"], _types()),
        "## Keys",
        table(["key", "of types", "meaning"], _keys()),
        "## Resource validators",
        "`resource_validators` of a job's class lists checks of what the parameters refer to. They run before a job "
        "is accepted.",
        table(["type", "what it checks"], _validators()),
    )


def _types() -> Iterator[list[str]]:
    for name, keys in KEYS_OF_TYPE.items():
        yield [code(name), TYPES[name], ", ".join(map(code, keys))]


def _keys() -> Iterator[list[str]]:
    for key, meaning in KEYS.items():
        types = [code(name) for name, keys in KEYS_OF_TYPE.items() if key in keys]
        yield [code(key), "all" if key in COMMON_KEYS else ", ".join(types), meaning]


def _validators() -> Iterator[list[str]]:
    for name, validator in registered_validators().items():
        if validator.__module__ == "jobs.validators":  # not those of a package of its own
            yield [code(name), first_sentence(validator.__doc__ or "")]
