"""Commands of a project as a whole: run (a study), init, doctor, examples."""

from __future__ import annotations

from . import doctor, examples, init, run

__all__ = ["doctor", "examples", "init", "run"]
