"""The command serve: a page that shows runs and a store while they grow."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from phonenas.space.errors import InvalidArgument

from ..options import Output, command
from .state import RunState, StoreState, state_of

__all__ = ["serve"]

_MOST_RUNS = 50


@command
def serve(
    output: Output,
    db: str,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN...]", help="Folders of runs or of a study; they may come later."
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="On this computer alone; 0: any that is free.")
    ] = 0,
) -> None:
    """Show a search, a profile or a promotion in the browser while it works.

    The page is for this computer and for whoever has the printed address. It reads the files of
    the jobs, never writes them, and goes on when a job ends. Ctrl-C ends it.
    """
    from .server import LiveServer

    for path in runs or []:
        if path.is_file():
            raise InvalidArgument(f"{path} is a file; RUN is a folder, as --out of a search")
    jobs = _Jobs(runs or [], [] if runs and "db" not in output.given else [db])
    with LiveServer(jobs.read, port) as server:
        shown = "open it in a browser of this computer; Ctrl-C ends it"
        output.print({"url": server.url}, lambda: f"{server.url}\n{shown}")
        sys.stdout.flush()
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            output.note("The page has ended; the jobs have not.")
            raise typer.Exit(130) from None


class _Jobs:
    """The jobs of a page.

    Args:
        folders: Of runs; one that holds runs, as a study's, stands for them and for its store.
        stores: By path or URL.
    """

    def __init__(self, folders: list[Path], stores: list[str]) -> None:
        self.folders, self.stores = folders, stores
        self._known: dict[str, RunState | StoreState] = {}

    def read(self) -> dict[str, Any]:
        """The state of each job, as it is now."""
        found: dict[str, RunState | StoreState] = {}
        for folder in self.folders:
            inside = [] if (folder / "run.json").exists() else sorted(folder.glob("*/run.json"))
            for path in [p.parent for p in inside[:_MOST_RUNS]] or [folder]:
                found[str(path)] = self._known.get(str(path)) or RunState(path)
            own = folder / "phonenas.db"
            for db in [str(own)] if own.exists() else []:
                found[db] = self._known.get(db) or StoreState(db)
        for db in self.stores:
            found[db] = self._known.get(db) or StoreState(db)
        self._known = found
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return {"at": now, "jobs": [state_of(job) for job in found.values()]}
