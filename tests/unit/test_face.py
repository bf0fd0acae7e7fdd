"""The package itself: the names that a type checker sees are those that are there."""

from __future__ import annotations

import ast
from pathlib import Path

import celery_argsize


def test_the_imports_for_type_checkers_are_the_table_of_names() -> None:
    tree = ast.parse(Path(celery_argsize.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    shown = {alias.name: node.module for node in imports for alias in node.names}
    assert shown == celery_argsize._MODULES
