"""Tables that others published, brought into the store with what is known of their making.

| format | file | rows |
|---|---|---|
| `proxylessnas` | YAML of ProxylessNAS, ms | stem, layers and head |
| `ofa` | YAML of Once-for-all, one file a resolution, ms | layers with ReLU and no squeeze |
| `singlepathnas` | JSON of Single-Path NAS, ms | the searched layers |
| `edge` | CSV of the mobile-ml-benchmark, µs | whole networks, one `column` of them |
| `csv` | anything else, as `plain` describes it, ms | operators and whole networks |

Each file is a table of its own: its fingerprint is the hash of its bytes, so that two tables are
never mixed and the same one is never taken twice. What a source does not tell is "unknown", and
0 for the threads. A row that names no operator of ours is skipped with its reason, never bent.
"""

from __future__ import annotations

from .holes import Holes, holes
from .intake import FORMATS, Imported, import_tables, read
from .table import Reading, Skip, Table

__all__ = [
    "FORMATS",
    "Holes",
    "Imported",
    "Reading",
    "Skip",
    "Table",
    "holes",
    "import_tables",
    "read",
]
