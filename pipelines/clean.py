"""Removes from a home folder what killed processes left, and old results that nothing needs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from adapruner.errors import UserError
from adapruner.locks import Holder
from adapruner.report import format
from pipelines import home as homes
from pipelines import local_run, stack
from steps.cleaning.removal import Removal, freed_bytes


def clean(home: Path, older_than_s: float, dry_run: bool) -> None:
    """Lists what goes, and removes it unless `dry_run`.

    Leftovers of ended processes always go. What is older than `older_than_s` seconds goes only
    while no other process uses the home; none can start meanwhile. Raises UserError where there is
    no such home, and where the registry, which says what is needed, does not answer.
    """
    if not home.is_dir():
        raise UserError(f"there is no home folder '{home}': set --home to the folder of the stores")
    console = Console(soft_wrap=True, highlight=False)
    local_run.import_zenml(home)
    with homes.exclusive(home):
        users = homes.other_users(home)
        stack.ensure_stack(home)
        removals = _removals(older_than_s, is_used=bool(users))
        _print(console, home, removals, dry_run)
        if users:
            console.print(_kept_line(home, users), markup=False)
        if not dry_run:
            for removal in removals:
                removal.remove()


def _removals(older_than_s: float, is_used: bool) -> list[Removal]:
    from steps.cleaning import caches, leftovers, pipeline_runs, tracking_runs
    from steps.mlflow_support import tracking
    from steps.zenml_support.workspace import home

    found = leftovers.leftovers(pipeline_runs.output_folders(), older_than_s)
    if is_used:
        return found
    client, before = tracking.connect(), time.time() - older_than_s
    found += pipeline_runs.old_runs(before)
    if client.tracking_uri == tracking.local_uri(home()):  # others may use a server
        found += tracking_runs.old_tracking_runs(client, before)
    found += caches.old_studies(before) + caches.old_downloads(before) + caches.old_blobs(before)
    needed = tracking_runs.registered_folders(client)
    return [removal for removal in found if not _overlap(removal.paths, needed)]


def _overlap(paths: Iterable[Path], others: Iterable[Path]) -> bool:
    return any(a.is_relative_to(b) or b.is_relative_to(a) for a in paths for b in others)


def _print(console: Console, home: Path, removals: list[Removal], dry_run: bool) -> None:
    if not removals:
        console.print(f"Nothing to remove in {home}.", markup=False)
        return
    table = Table(Column("what", overflow="fold"), "unused for", "size")
    for removal in removals:
        table.add_row(removal.what, _age(removal.when), format.size(freed_bytes(removal.paths)))
    console.print(table)
    total = format.size(freed_bytes(path for removal in removals for path in removal.paths))
    verb = "Would remove" if dry_run else "Removes"
    console.print(f"{verb} {len(removals)} entries, {total}.", markup=False)


def _age(when: float) -> str:
    seconds = max(0.0, time.time() - when)
    return f"{seconds / 86400:.0f} d" if seconds >= 2 * 86400 else format.duration(seconds)


def _kept_line(home: Path, users: list[Holder]) -> str:
    return f"Old results are kept: {home} is used by {', '.join(map(str, users))}."
