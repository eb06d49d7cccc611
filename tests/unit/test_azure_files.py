"""The files that deploy to Azure: whole in themselves, and in agreement with the code. Nobody runs them here."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from coremachine.reference import settings_page
from coremachine.scaffold.project import write_project
from infrastructure.settings import Settings, load_settings, variables_of
from tests import facts
from tests.bicep import Expression, Resource, Template, read_template
from tests.bicep_types import KEPT, check_resource, made_in
from triggers.app_shape import RESERVE_THREADS, read_shape, threads_needed

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
TEMPLATES = {path.name: read_template(path) for path in sorted(INFRA.glob("*.bicep"))}
MADE = made_in(INFRA)
PUBLISHED = facts.read(KEPT)
PAGE = (ROOT / "docs" / "howto" / "deploy-with-azd.md").read_text()
CONCURRENT_CALLS = json.loads((ROOT / "host.json").read_text())["extensions"]["serviceBus"]["maxConcurrentCalls"]
# Read by the Functions host and by the SDKs, not by us.
OF_THE_HOST = re.compile(
    r"AzureWebJobsStorage__(accountName|credential|clientId)|ServiceBusConnection__credential"
    r"|APPLICATIONINSIGHTS_(CONNECTION|AUTHENTICATION)_STRING|AZURE_CLIENT_ID"
)
# What Azure allows apps of each database, by Microsoft's page of limits.
CONNECTIONS = {"Standard_B2s": 414, "Standard_D2ds_v5": 844, "Standard_D8ds_v5": 3422}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_file_is_whole(template: Template) -> None:
    """No syntax error, and nothing that is declared and not used: the compiler's linter would refuse both."""
    assert template.errors == []
    assert [name for name, count in template.mentions.items() if count < 1 and name not in template.exported] == []


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_modules_get_what_they_declare_and_imports_are_exported(template: Template) -> None:
    for module in template.modules:
        target = TEMPLATES[module.path]
        assert set(module.parameters) <= set(target.parameters), module.symbol
        assert target.required <= set(module.parameters), module.symbol
        used = set(re.findall(rf"\b{module.symbol}(?:\[[^\]]+\])?\.\??outputs\.(\w+)", template.path.read_text()))
        assert used <= set(target.outputs), module.symbol
    for path, names in template.imports.items():
        assert names <= TEMPLATES[path].exported


@pytest.mark.parametrize("resource", MADE, ids=lambda each: f"{each.symbol} {each.type}")
def test_a_resource_fits_its_published_type(resource: Resource) -> None:
    """Every name, choice and required property, as the compiler checks them."""
    assert check_resource(resource, PUBLISHED) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"properties": {"maximumThroughput": 4}}, "properties.maximumThroughput: expected one of"),
        (
            {"properties": {"disableLocalAuth": "yes"}},
            "properties.disableLocalAuth: expected true or false, found 'yes'",
        ),
        ({"properties": {"status": "Active"}}, "properties.status: expected nothing, since it is read-only"),
        ({"properties": {"encryption": {}}}, "properties.encryption: expected a type that azure_types.json has"),
        ({"sku": {"name": "Gold"}}, "sku.name: expected one of ['Basic', 'Standard', 'Premium'], found 'Gold'"),
        ({"sku": {}}, "sku.name: expected it, since it is required"),
    ],
    ids=lambda each: str(each)[:30],
)
def test_a_resource_that_does_not_fit_is_named(change: dict[str, Any], complaint: str) -> None:
    (namespace,) = [each for each in MADE if each.type == "Microsoft.ServiceBus/namespaces"]
    changed = replace(namespace, body=namespace.body | change)
    problems = check_resource(changed, PUBLISHED)
    assert problems[0].startswith(f"Microsoft.ServiceBus/namespaces.{complaint}")
    unpublished = replace(namespace, version="2099-01-01")
    (problem,) = check_resource(unpublished, PUBLISHED)
    assert problem.startswith("microsoft.servicebus/namespaces@2099-01-01: expected a published type, found none")


def test_every_parameter_is_given_or_explained() -> None:
    main = TEMPLATES["main.bicep"]
    given = json.loads((INFRA / "main.parameters.json").read_text())["parameters"]
    assert set(given) == set(main.parameters)
    assert [name for name, description in main.parameters.items() if not description] == []
    assert [name for name in main.parameters if f"`{name}`" not in PAGE] == []


def test_the_files_of_the_checkout_are_those_of_a_new_project(tmp_path: Path) -> None:
    write_project(tmp_path / "mine", azure=True)
    for path in INFRA.iterdir():
        if path.name != "main.parameters.json":
            assert (tmp_path / "mine" / "infra" / path.name).read_text() == path.read_text()
    ours, theirs = ((folder / "azure.yaml").read_text() for folder in (ROOT, tmp_path / "mine"))
    assert ours == theirs.replace("name: mine", "name: coremachine")
    parameters = [json.loads((f / "infra" / "main.parameters.json").read_text()) for f in (ROOT, tmp_path / "mine")]
    for each in parameters:
        del each["parameters"]["jobsQueue"], each["parameters"]["taskQueues"]
    assert parameters[0] == parameters[1]


def test_the_queues_of_a_new_project_are_those_that_it_names(tmp_path: Path) -> None:
    write_project(tmp_path / "my-pipelines", azure=True)
    given = json.loads((tmp_path / "my-pipelines/infra/main.parameters.json").read_text())["parameters"]
    assert given["jobsQueue"]["value"] == "my-pipelines-jobs"
    assert given["taskQueues"]["value"] == {"tasks": "my-pipelines-tasks"}


def test_azd_finds_scripts_and_an_app_for_each_service() -> None:
    project = yaml.safe_load((ROOT / "azure.yaml").read_text())
    assert (ROOT / project["infra"]["path"] / f"{project['infra']['module']}.bicep").is_file()
    for hook in project["hooks"].values():
        assert (ROOT / hook["run"]).stat().st_mode & 0o100
        assert hook["shell"] == "sh"
    assert set(project["hooks"]) == {"preprovision", "predeploy"}
    assert list(project["services"]) == [TEMPLATES["resources.bicep"].variables["firstApp"]["service"]]


def test_a_worker_is_a_service_with_the_same_code() -> None:
    """What the file shows as a comment, without the marks."""
    text = re.sub(r"(?m)^  # (?!The|Each)", "  ", (ROOT / "azure.yaml").read_text())
    services = yaml.safe_load(text)["services"]
    assert list(services) == ["app", "heavy"]
    assert services["heavy"] == services["app"] == {"project": ".", "language": "python", "host": "function"}


def app_settings() -> dict[str, Any]:
    settings: dict[str, Any] = TEMPLATES["app.bicep"].resource("Microsoft.Web/sites/config").body["properties"]
    return settings


def test_every_app_setting_is_on_the_page_of_settings() -> None:
    """Which names who reads it. Those of the host were missing there."""
    page = settings_page.render()
    assert [name for name in app_settings() if f"`{name}`" not in page] == []


def test_names_of_a_deployment_by_hand_are_of_the_project(tmp_path: Path) -> None:
    """The queues that pyproject.toml has now; and a storage account for each suffix, however long the name is."""
    write_project(tmp_path / "a-project-with-a-long-name", azure=True)
    project = tmp_path / "a-project-with-a-long-name"
    file = project / "pyproject.toml"
    file.write_text(
        file.read_text().replace("[tool.coremachine.queues]", '[tool.coremachine.queues]\nheavy = "a-heavy"')
    )
    names = (project / "azure.sh").read_text().split("# Names: ")[1].split("\n\n")[0]
    script = f"az() {{ echo x; }}; curl() {{ echo 203.0.113.7; }}; # {names}\necho $STORAGE $QUEUES"
    command = ["bash", "-euc", script]
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "SUFFIX": "prod"}
    found = subprocess.run(command, cwd=project, env=environment, text=True, capture_output=True, check=True)
    storage, *queues = found.stdout.split()
    assert "prod" in storage
    assert len(storage) <= 24
    assert sorted(queues) == ["a-heavy", "a-project-with-a-long-name-jobs", "a-project-with-a-long-name-tasks"]


def test_the_settings_of_a_deployment_by_hand_are_read_too() -> None:
    """Those of `azure.sh`, whose steps the page shows."""
    script = (ROOT / "coremachine" / "scaffold" / "templates" / "azure.txt").read_text()
    (step,) = re.findall(r"appsettings set .*?--settings \\\n((?:  \".*\n)+)", script)
    given = dict(re.findall(r'"(\w+)=(.*)"', step))
    assert len(given) == step.count("\n")
    threads = given.pop("PYTHON_THREADPOOL_THREAD_COUNT")
    for queues, names in {"j t": "tasks=t", "j t h": "tasks=t,heavy=h"}.items():
        found = subprocess.run(["sh", "-c", f'QUEUES="{queues}"; echo "{threads}"'], capture_output=True, check=True)
        assert int(found.stdout) == threads_needed(read_shape({"COREMACHINE_TASK_QUEUES": names}), CONCURRENT_CALLS)
    assert given.pop("AZURE_CLIENT_ID") == given["COREMACHINE_DATABASE_CLIENT_ID"]
    del given["ServiceBusConnection__credential"]
    settings = load_settings({name: re.sub(r"\$\w+", "x", value) for name, value in given.items()})
    assert settings.database_auth == "entra"
    assert settings.service_bus_namespace == "x.servicebus.windows.net"
    assert given.keys() <= {name for field in Settings.model_fields.values() for name in variables_of(field)}


@pytest.mark.parametrize("mode", ["standalone", "platform", "worker"])
def test_the_app_starts_with_its_settings(mode: str) -> None:
    """The literal ones as they are, and for each expression what a deployment makes of it."""
    made = {
        "app.mode": mode,
        "jobsQueue": "j",
        "namespaceHost": "b.servicebus.windows.net",
        "identity.properties.clientId": "0c4f",
        "join(app.queues, ',')": "tasks",
        "'${retentionDays}'": "30",
        "join(map(items(taskQueues), queue => '${queue.key}=${queue.value}'), ',')": "tasks=t,heavy=h",
    }
    values = {name: value for name, value in app_settings().items() if OF_THE_HOST.fullmatch(name) is None}
    url = values.pop("COREMACHINE_DATABASE_URL").text.strip("'")
    values.pop("PYTHON_THREADPOOL_THREAD_COUNT")
    if mode != "worker":
        del values["COREMACHINE_WORKER_QUEUES"]
    text = {name: made[value.text] if isinstance(value, Expression) else value for name, value in values.items()}
    settings = load_settings(text | {"COREMACHINE_DATABASE_URL": re.sub(r"\$\{\w+\}", "x", url)})
    assert settings.database_auth == "entra"
    assert settings.served_queues == {"standalone": ("tasks", "heavy"), "platform": (), "worker": ("tasks",)}[mode]


@pytest.mark.parametrize(
    ("mode", "served"), [("standalone", ["tasks", "heavy"]), ("platform", []), ("worker", ["heavy"])]
)
def test_the_number_of_threads_is_what_the_app_needs(mode: str, served: list[str]) -> None:
    app, resources = TEMPLATES["app.bicep"].variables, TEMPLATES["resources.bicep"].variables
    names = {"logicalQueues": ["tasks", "heavy"], "readsTasks": mode == "standalone", "length": len}
    text = {name: resources[name].text for name in ("deadLetterFunctions", "workerApps")}
    names["deadLetterFunctions"] = eval(text["deadLetterFunctions"], dict(names))  # noqa: S307 - our own file
    first = resources["firstApp"]["queueFunctions"].text.replace(
        "(readsTasks ? length(logicalQueues) : 0)", "(length(logicalQueues) if readsTasks else 0)"
    )
    functions = len(served) if mode == "worker" else eval(first, dict(names))  # noqa: S307 - our own file
    assert "queueFunctions: length(worker.queues)" in text["workerApps"]
    environment = {
        "COREMACHINE_APP_MODE": mode,
        "COREMACHINE_TASK_QUEUES": "tasks=t,heavy=h",
        "COREMACHINE_WORKER_QUEUES": ",".join(served),
    }
    assert (app["concurrentCalls"], app["reserveThreads"]) == (CONCURRENT_CALLS, RESERVE_THREADS)
    wanted = threads_needed(read_shape(environment), CONCURRENT_CALLS)
    assert functions * app["concurrentCalls"] + app["reserveThreads"] == wanted
    formula = "'${app.queueFunctions * concurrentCalls + reserveThreads}'"
    assert app_settings()["PYTHON_THREADPOOL_THREAD_COUNT"].text == formula


def test_the_queues_are_those_of_the_local_stack() -> None:
    """Also of the page for a deployment by hand. How long a message lives differs: the emulator allows an hour."""
    queue = TEMPLATES["service_bus.bicep"].resource("Microsoft.ServiceBus/namespaces/queues").body["properties"]
    config = json.loads((ROOT / "coremachine" / "local" / "broker" / "Config.json").read_text())
    for local in config["UserConfig"]["Namespaces"][0]["Queues"]:
        for name, value in local["Properties"].items():
            if name != "DefaultMessageTimeToLive":
                assert queue[name[0].lower() + name[1:]] == value
    by_hand = (ROOT / "docs" / "howto" / "deploy.md").read_text()
    assert f"--lock-duration {queue['lockDuration']} --max-delivery-count {queue['maxDeliveryCount']} " in by_hand


def test_nothing_is_reached_with_a_key_or_a_password() -> None:
    properties = {
        ("service_bus.bicep", "Microsoft.ServiceBus/namespaces"): {"disableLocalAuth": True},
        ("storage.bicep", "Microsoft.Storage/storageAccounts"): {
            "allowSharedKeyAccess": False,
            "allowBlobPublicAccess": False,
        },
        ("monitoring.bicep", "Microsoft.Insights/components"): {"DisableLocalAuth": True},
    }
    for (file, type_), expected in properties.items():
        assert expected.items() <= TEMPLATES[file].resource(type_).body["properties"].items()
    server = TEMPLATES["database.bicep"].resource("Microsoft.DBforPostgreSQL/flexibleServers").body["properties"]
    assert server["authConfig"]["passwordAuth"] == "Disabled"
    text = "".join(path.read_text() for path in INFRA.glob("*.bicep"))
    assert re.findall(r"(?i)listKeys|@secure|loginPassword|SharedAccessKey|AccountKey", text) == []


def test_a_private_network_closes_every_public_endpoint() -> None:
    for file in ("service_bus.bicep", "storage.bicep", "database.bicep"):
        template = TEMPLATES[file]
        assert "publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'" in template.path.read_text()
        assert [module.path for module in template.modules] == ["endpoint.bicep"]
    assert "sku: privateNetwork ? 'Premium' : chosen.serviceBus" in TEMPLATES["resources.bicep"].path.read_text()


def test_a_size_has_connections_for_the_instances_of_three_apps() -> None:
    """One that has more instances than the database has connections is slow, then broken."""
    sizes = TEMPLATES["sizes.bicep"].variables["sizes"]
    allowed = re.findall(r"@allowed\(\[(.*?)\]\)\n@description\('How large", TEMPLATES["main.bicep"].path.read_text())
    assert allowed == [", ".join(f"'{name}'" for name in sizes)]
    pool = Settings.model_fields["pool_size"].default
    for name, size in sizes.items():
        assert 3 * size["maximumInstances"] * pool <= CONNECTIONS[size["database"]["name"]]
        row = [name, size["database"]["name"], str(size["database"]["storage"]), size["serviceBus"]]
        assert "| " + " | ".join([*row, str(size["maximumInstances"]), str(size["instanceMemory"])]) in PAGE
