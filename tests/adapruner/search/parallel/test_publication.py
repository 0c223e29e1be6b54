"""A worker finds the search's inputs, or says in one line why it can't be one."""

from __future__ import annotations

import shutil
from pathlib import Path

import optuna
import pytest

from adapruner.config import PlanConfig
from adapruner.errors import UserError
from adapruner.search.inputs import SearchInputs
from adapruner.search.parallel.publication import Publication, publish
from adapruner.search.parallel.worker import work

PASSWORD = "s3cret-word"


@pytest.fixture
def copied(inputs: SearchInputs, tmp_path: Path) -> SearchInputs:
    """The inputs in folders of a lead, such as those of an artifact store."""
    store = tmp_path / "lead" / "store"
    folders = {name: path for name, path in vars(inputs).items() if path is not None}
    for name, path in folders.items():
        shutil.copytree(path, store / name / "data")
    return SearchInputs(**{name: store / name / "data" for name in folders})


@pytest.fixture
def published(copied: SearchInputs, config: PlanConfig) -> Publication:
    url = f"postgresql://me:{PASSWORD}@host/studies"
    search = config.search.model_copy(update={"storage": url})
    study = optuna.create_study()
    publish(study, copied, config.model_copy(update={"search": search}))
    assert PASSWORD not in str(study.user_attrs)
    publication = Publication.of(study)
    assert publication is not None
    return publication


def test_inputs_are_found_at_the_leads_paths_and_where_they_are_mounted(
    published: Publication, copied: SearchInputs, tmp_path: Path
) -> None:
    assert published.locate(None) == copied
    mounted = (tmp_path / "lead").rename(tmp_path / "mounted")
    with pytest.raises(UserError, match=r"checkpoint is not at .* --inputs"):
        published.locate(None)
    store = published.locate(mounted)
    assert store.pool == mounted / "store" / "pool" / "data"
    for name, path in vars(store).items():
        if path is not None:
            path.rename(tmp_path / name)
    assert published.locate(tmp_path).pool == tmp_path / "pool"


def test_an_input_with_another_content_is_refused(
    published: Publication, copied: SearchInputs
) -> None:
    published.check_process()
    with (copied.pool / "pool.json").open("a") as file:
        file.write("\n")
    with pytest.raises(UserError, match="another content than the search's pool") as error:
        published.locate(None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"versions": {"torch": "1.0"}}, r"runs torch 1\.0, this worker 2.*install the same"),
        ({"versions": {"code": "0"}}, "runs code 0, this worker"),
        ({"precision": "cuda in bfloat16"}, "computes on cuda in bfloat16, this worker would on"),
    ],
)
def test_a_worker_that_would_compute_something_else_is_refused(
    change: dict[str, object], message: str, published: Publication
) -> None:
    with pytest.raises(UserError, match=message):
        published.model_copy(update=change).check_process()


def test_a_worker_waits_for_a_search_only_so_long(tmp_path: Path) -> None:
    file = tmp_path / "studies.db"
    with pytest.raises(UserError, match=r"no database '.*studies.db' after 0 s; see --storage"):
        work(f"sqlite:///{file}", None, None, 0)
    assert not file.exists()
    study = optuna.create_study(study_name="s", storage=f"sqlite:///{file}")
    with pytest.raises(UserError, match=r"no search with search\.parallel has led the study"):
        work(f"sqlite:///{file}", study.study_name, None, 0)
