"""The Dockerfile and the manifests: linted, and held against what the code takes. No engine is needed."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from coremachine.cli.main import find_whole_command
from coremachine.local.serve import Serving, check_environment
from coremachine.reference.settings_page import OTHERS
from infrastructure.settings import Settings, load_settings, variables_of
from tests.keda import problems_of

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
FOLDER = ROOT / "deploy" / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
DOCUMENTS = [document for file in FILES for document in yaml.safe_load_all(file.read_text())]
# Kinds without a schema in Kubernetes itself.
OTHER_KINDS = {"Kustomization", "ScaledObject", "TriggerAuthentication"}
VARIABLES = {name for field in Settings.model_fields.values() for name in variables_of(field)} | OTHERS.keys()
KILL_SECONDS = 10


def of_kind(kind):
    return {each["metadata"]["name"]: each for each in DOCUMENTS if each["kind"] == kind}


DEPLOYMENTS, SCALERS, SETTINGS = of_kind("Deployment"), of_kind("ScaledObject"), of_kind("ConfigMap")["coremachine"]


def pod_of(document):
    return document["spec"]["template"]["spec"]


def containers_of(document):
    return [*pod_of(document).get("initContainers", []), *pod_of(document)["containers"]]


def container_of(document):
    (container,) = pod_of(document)["containers"]
    return container


PODS = [*DEPLOYMENTS.values(), *of_kind("Job").values()]


def environment_of(document, container=None):
    """What a process of the pod gets, as far as it is in the files."""
    container = container or container_of(document)
    assert container["envFrom"] == [{"configMapRef": {"name": SETTINGS["metadata"]["name"]}}]
    own = {each["name"]: each.get("value", "from a secret") for each in container.get("env", [])}
    return SETTINGS["data"] | own


def instructions():
    """(INSTRUCTION, rest) of the Dockerfile, in order; lines that are continued are one."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def copied():
    """What the Dockerfile takes from the checkout."""
    words = [shlex.split(rest) for name, rest in instructions() if name == "COPY" and "--from" not in rest]
    return [source for *sources, _ in words for source in sources]


def test_the_secret_is_made_where_the_pods_look_for_it():
    """The command had no namespace: the pods waited for a secret that was in another one."""
    (namespace,) = of_kind("Namespace")
    names = {
        each["valueFrom"]["secretKeyRef"]["name"]
        for pod in PODS
        for each in container_of(pod).get("env", [])
        if "valueFrom" in each
    }
    text = (FOLDER / "settings.yaml").read_text()
    assert all(f"kubectl -n {namespace} create secret generic {name} " in text for name in names)


def test_dockerfile_passes_the_linter():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_the_dockerfile_copies_is_there_and_not_ignored():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert [source for source in copied() if not (ROOT / source).exists()] == []
    assert set(copied()) == kept


def test_every_package_of_the_wheel_is_copied():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.rstrip(".*") for name in packages} <= set(copied())


def test_container_runs_as_a_user_without_rights_and_starts_what_exists():
    found = instructions()
    stages = [index for index, (name, _) in enumerate(found) if name == "FROM"]
    assert len(stages) == 2
    last = dict(found[stages[-1] :])
    user, _, _ = last["USER"].partition(":")
    assert int(user) > 0
    assert {pod_of(each)["securityContext"]["runAsUser"] for each in PODS} == {int(user)}
    assert last["ENTRYPOINT"] == '["/usr/bin/tini", "--"]'
    run_by_typer(yaml.safe_load(last["CMD"]))


def run_by_typer(words):
    """Parse a command line as the container would; nothing runs."""
    program, *arguments = words
    assert program == "coremachine"
    command = find_whole_command()
    context = command.make_context(program, list(arguments), resilient_parsing=True)
    found = command
    while hasattr(found, "commands"):
        found, arguments = found.commands[arguments[0]], arguments[1:]
    return found.make_context(found.name, list(arguments), parent=context).params


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if each["kind"] not in OTHER_KINDS], ids=str)
def test_manifest_fits_the_schema_of_kubernetes(document):
    for version in ("1.30", "1.37"):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_manifest_that_does_not_fit_is_refused():
    wrong = {**DEPLOYMENTS["platform"], "spec": {**DEPLOYMENTS["platform"]["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


KEDA = [each for each in DOCUMENTS if each["apiVersion"].startswith("keda.sh/")]


@pytest.mark.parametrize("document", KEDA, ids=lambda each: f"{each['kind']} {each['metadata']['name']}")
def test_an_object_of_keda_fits_its_schema(document):
    assert problems_of(document) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"minReplicas": 1}, "ScaledObject.spec.minReplicas: expected one of ['advanced', "),
        ({"cooldownPeriod": "300"}, "ScaledObject.spec.cooldownPeriod: expected a whole number, found '300'"),
        ({"cooldownPeriod": None}, "ScaledObject.spec.cooldownPeriod: expected a whole number, found None"),
        ({"maxReplicaCount": 0}, "ScaledObject.spec.maxReplicaCount: expected at least 1, found 0"),
        ({"triggers": []}, "ScaledObject.spec.triggers: expected at least 1 items, found []"),
        ({"scaleTargetRef": {}}, "ScaledObject.spec.scaleTargetRef.name: expected it, since it is required"),
        ({"fallback": {}}, "ScaledObject.spec.fallback: expected a type that keda_schemas.json has, found none"),
        (
            {"triggers": [{"type": "azure-servicebus", "metadata": {"queue": "a"}}]},
            "azure-servicebus.queue: expected one of ['activationMessageCount', ",
        ),
        (
            {"triggers": [{"type": "azure-servicebus", "metadata": {"operation": "min"}}]},
            "azure-servicebus.operation: expected one of ['sum', 'max', 'avg'], found 'min'",
        ),
        (
            {"triggers": [{"type": "cron", "metadata": {"start": "0 6 * * *"}}]},
            "cron: expected a type of trigger that keda_schemas.json has, found none",
        ),
    ],
)
def test_an_object_of_keda_that_does_not_fit_is_refused(change, problem):
    scaler = SCALERS["worker-tasks"]
    (found,) = problems_of({**scaler, "spec": scaler["spec"] | change})
    assert found.startswith(problem)


def test_kustomization_has_every_file():
    (found,) = [each for each in DOCUMENTS if each["kind"] == "Kustomization"]
    assert sorted([*found["resources"], "kustomization.yaml"]) == [file.name for file in FILES]


@pytest.mark.parametrize("document", PODS, ids=lambda each: each["metadata"]["name"])
def test_every_variable_is_a_setting(document):
    for container in containers_of(document):
        assert environment_of(document, container).keys() - VARIABLES == set()


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_app_would_start_with_its_settings(name):
    settings = load_settings(check_environment(Serving(ROOT), environment_of(DEPLOYMENTS[name])))
    assert settings.app_name == name
    assert settings.app_mode.value == ("platform" if name == "platform" else "worker")


def test_every_queue_has_a_deployment_that_reads_it_and_a_scaler_that_looks_at_it():
    settings = {name: load_settings(environment_of(each)) for name, each in DEPLOYMENTS.items()}
    read = {queue for each in settings.values() for queue in each.read_queues}
    assert read == set(settings["platform"].queue_names)
    for name, each in settings.items():
        if name == "platform":
            continue
        (queue,) = each.served_queues
        scaler = SCALERS[name]["spec"]
        (trigger,) = scaler["triggers"]
        assert scaler["scaleTargetRef"] == {"name": name}
        assert "replicas" not in DEPLOYMENTS[name]["spec"], "the scaler sets it"
        assert trigger["type"] == "azure-servicebus"
        assert trigger["metadata"]["queueName"] == each.queue_name(queue)
        assert trigger["metadata"]["namespace"] == (each.service_bus_namespace or "").partition(".")[0]
        assert trigger["authenticationRef"]["name"] in of_kind("TriggerAuthentication")
    assert set(SCALERS) == set(DEPLOYMENTS) - {"platform"}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_probes_and_the_time_to_end_are_those_of_the_command(name):
    container = container_of(DEPLOYMENTS[name])
    options = run_by_typer(container["args"])
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports == {"health": options["health_port"], **({"http": options["port"]} if name == "platform" else {})}
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {each["port"] for each in probes.values()} == {"health"}
    assert [probes[kind]["path"] for kind in probes] == ["/readyz", "/livez", "/readyz"]
    before = container.get("lifecycle", {}).get("preStop", {"exec": {"command": ["sleep", "0"]}})
    _, seconds = before["exec"]["command"]
    needed = int(seconds) + options["grace"] + KILL_SECONDS
    assert needed < pod_of(DEPLOYMENTS[name])["terminationGracePeriodSeconds"]


def test_service_leads_to_the_app_with_http():
    service = of_kind("Service")["coremachine"]["spec"]
    labels = DEPLOYMENTS["platform"]["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert [port["targetPort"] for port in service["ports"]] == ["http"]


def test_migration_is_the_command_of_this_release():
    job = of_kind("Job")["coremachine-migrate"]
    migrate, grant = (run_by_typer(each["args"]) for each in containers_of(job))
    assert migrate["plan"] is False
    app = conninfo_to_dict(SETTINGS["data"]["COREMACHINE_DATABASE_URL"])
    assert (grant["role"], grant["entra"]) == (app["user"], True)


def test_migration_has_an_identity_of_its_own_on_the_same_database():
    """That of the apps may not change the schema."""
    job = of_kind("Job")["coremachine-migrate"]
    app = conninfo_to_dict(SETTINGS["data"]["COREMACHINE_DATABASE_URL"])
    for container in containers_of(job):
        address = environment_of(job, container)["COREMACHINE_DATABASE_URL"]
        assert conninfo_to_dict(address) == app | {"user": pod_of(job)["serviceAccountName"]}
    accounts = of_kind("ServiceAccount")
    ids = {
        name: each["metadata"]["annotations"]["azure.workload.identity/client-id"] for name, each in accounts.items()
    }
    assert ids.keys() == {pod_of(each)["serviceAccountName"] for each in PODS}
    assert len(set(ids.values())) == 2
    (authentication,) = of_kind("TriggerAuthentication").values()
    assert authentication["spec"]["podIdentity"]["identityId"] == ids["coremachine"]


def test_no_secret_is_in_the_files():
    for file in FILES:
        assert not re.search(r"SharedAccessKey=|password|:[^/@\s]+@", file.read_text()), file.name
