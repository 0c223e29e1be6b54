"""The local ZenML stack: SQLite stores and artifacts in one home folder, nothing outside it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapruner.databases import check_file

if TYPE_CHECKING:
    from zenml.client import Client
    from zenml.enums import StackComponentType

NAME = "adapruner"
ZENML_DATABASE = Path("zenml", "local_stores", "default_zen_store", "zenml.db")
ROOT = Path(__file__).resolve().parent.parent


def quiet_libraries() -> None:
    """Turns off progress bars and notices of other libraries. Call before they are imported."""
    os.environ |= {
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        # No host but those that the user configured is contacted.
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
    if not sys.stderr.isatty():
        os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def use_home(home: Path) -> None:
    """Sets this process, and ZenML in it, up for a home folder. Call before ZenML is imported.

    Settings of another ZenML (a server, an active stack) are dropped. Raises UserError for a
    database in the home that is locked or damaged.
    """
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    for file in (home / "mlflow.db", home / ZENML_DATABASE):
        check_file(file, "--home")
    foreign = [k for k in os.environ if k.startswith(("ZENML_STORE_", "ZENML_ACTIVE_"))]
    for key in foreign:
        del os.environ[key]
    use_server()
    os.environ |= {
        "ADAPRUNER_HOME": str(home),
        "ZENML_CONFIG_PATH": str(home / "zenml"),
        "ZENML_LOCAL_STORES_PATH": str(home / "zenml" / "local_stores"),
        # The log of a run goes to the terminal; storing each line as well costs seconds.
        "ZENML_DISABLE_STEP_LOGS_STORAGE": "true",
        "ZENML_DISABLE_PIPELINE_LOGS_STORAGE": "true",
    }


def use_server() -> None:
    """Sets this process up for the ZenML that the user is logged in to. Call before ZenML is
    imported."""
    os.environ |= {
        "ZENML_CUSTOM_SOURCE_ROOT": str(ROOT),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_AUTO_OPEN_DASHBOARD": "false",
        "ZENML_ENABLE_REPO_INIT_WARNINGS": "false",
        "ZENML_ENABLE_RICH_TRACEBACK": "false",
        "ZENML_LOGGING_COLORS_DISABLED": str(not sys.stdout.isatty()).lower(),
    }
    # Workers that import steps by name must find them from any directory.
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))


def ensure_stack(home: Path) -> None:
    """Activates the local stack of a home folder and registers what is missing."""
    from zenml.client import Client
    from zenml.enums import StackComponentType as Kind

    from steps.mlflow_support.tracking import local_uri

    home = home.absolute()
    client = Client()
    artifacts = {"path": str(home / "artifacts")}
    tracking = {"tracking_uri": local_uri(home)}
    components = {
        Kind.ORCHESTRATOR: _component(client, Kind.ORCHESTRATOR, "local", {}),
        Kind.ARTIFACT_STORE: _component(client, Kind.ARTIFACT_STORE, "local", artifacts),
        Kind.EXPERIMENT_TRACKER: _component(client, Kind.EXPERIMENT_TRACKER, "mlflow", tracking),
        Kind.MODEL_REGISTRY: _component(client, Kind.MODEL_REGISTRY, "mlflow", {}),
    }
    if not client.list_stacks(name=NAME).items:
        client.create_stack(NAME, components)
    if client.active_stack_model.name != NAME:
        client.activate_stack(NAME)


def _component(
    client: Client, kind: StackComponentType, flavor: str, configuration: dict[str, Any]
) -> str:
    """The name of the component; it is created if missing and updated if the home folder moved."""
    registered = client.list_stack_components(type=kind, name=NAME, hydrate=True).items
    if not registered:
        client.create_stack_component(NAME, flavor, kind, configuration=configuration)
    elif any(registered[0].configuration.get(key) != value for key, value in configuration.items()):
        client.update_stack_component(NAME, kind, configuration=configuration)
    return NAME
