"""Tables that others published, brought into the store with what is known about the measurements.

| format | file | rows |
|---|---|---|
| `proxylessnas` | YAML of ProxylessNAS, ms | stem, layers and head |
| `ofa` | YAML of Once-for-all, one file a resolution, ms | stem, layers and head |
| `singlepathnas` | JSON of Single-Path NAS, ms | the searched layers |
| `edge-networks` | CSV of the mobile-ml-benchmark, µs | whole networks under one `setting` |
| `edge` | the same | the same, by the name of a `column` |
| `csv` | anything else, as `plain` describes it, ms | operators and whole networks |

Each file is a table of its own: its fingerprint is the hash of its bytes, so that two tables are
never mixed and none is imported twice. What a source does not state is "unknown", and 0 for the
threads. A row that is not an operator of phonenas is skipped with its reason.
"""

from __future__ import annotations

from .importing import FORMATS, Imported, Importer, import_tables, read
from .table import Reading, Skip, Table
from .uncovered import Coverage, coverage

Holes, holes = Coverage, coverage  # their names in version 0.1

__all__ = [
    "FORMATS",
    "Coverage",
    "Holes",
    "Imported",
    "Importer",
    "Reading",
    "Skip",
    "Table",
    "coverage",
    "holes",
    "import_tables",
    "read",
]
