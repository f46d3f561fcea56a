"""Commands of a project as a whole: run (a study), init, doctor."""

from __future__ import annotations

from . import doctor, init, run

__all__ = ["doctor", "init", "run"]
