"""What each command prints with --json: the types of its documents, and their JSON Schema."""

from .schema import DOCUMENTS, schema_of

__all__ = ["DOCUMENTS", "schema_of"]
