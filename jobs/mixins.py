"""What every job does alike, so that an author writes about 80 lines."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel

from core.authors.own_code import of_declarations
from core.basics.canonical import job_id_for
from core.models import JobQueueMessage, JobRecord
from core.models.definition import JobDefinition
from jobs.model_parameters import validate_with_model
from jobs.parameters import validate_parameters
from jobs.validators import run_resource_validators


class JobBaseMixin:
    """The first four methods of `JobBase`, from its declarations. List it before `JobBase`."""

    job_type: ClassVar[str]
    parameters_schema: ClassVar[Mapping[str, Mapping[str, Any]] | type[BaseModel]]
    resource_validators: ClassVar[Any]
    # Parameters that change how a job runs but not what it makes; they stay out of the job's id.
    parameters_outside_job_id: ClassVar[frozenset[str]] = frozenset()

    if TYPE_CHECKING:

        @classmethod
        def definition(cls) -> JobDefinition: ...

    @classmethod
    @of_declarations
    def validate_job_parameters(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        """Validate against `parameters_schema`, then ask the resource validators.

        Raises:
            ParameterErrors: All problems at once.
        """
        schema = cls.parameters_schema
        validated = (
            validate_with_model(schema, params) if isinstance(schema, type) else validate_parameters(schema, params)
        )
        run_resource_validators(cls.resource_validators, validated)
        return validated

    @classmethod
    @of_declarations
    def generate_job_id(cls, params: Mapping[str, Any]) -> str:
        identifying = {name: value for name, value in params.items() if name not in cls.parameters_outside_job_id}
        return job_id_for(cls.job_type, identifying)

    @classmethod
    @of_declarations
    def create_job_record(cls, job_id: str, params: Mapping[str, Any], *, correlation_id: str) -> JobRecord:
        definition = cls.definition()
        return JobRecord(
            job_id=job_id,
            job_type=cls.job_type,
            total_stages=len(definition.stages),
            parameters=dict(params),
            # What is not declared is left out, so that a worker of the release before can read what it knows.
            definition=definition.model_dump(mode="json", exclude_none=True),
            correlation_id=correlation_id,
        )

    @classmethod
    @of_declarations
    def queue_job(cls, job_id: str, params: Mapping[str, Any], *, correlation_id: str) -> JobQueueMessage:
        del params  # rows hold them; a message carries ids
        return JobQueueMessage(job_id=job_id, job_type=cls.job_type, correlation_id=correlation_id)
