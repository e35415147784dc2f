"""Named parts. What varies (source, executor, objective ...) is one file and one name.

A registry owns a package, whose modules register their parts when they are imported, so adding a part means adding a
file, and no existing file changes. The module of a part's own name is looked into first, the others when that does not
have it. Other distributions add parts through an entry-point group of the same name.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import threading
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from gfm_pipeline.errors import ConfigError, nearest

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class Registry(Generic[T]):
    """Map names to parts of one kind, loading the modules of `package` on first use."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._parts: dict[str, T] = {}
        self._loaded = False
        self._loading = threading.RLock()

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files a part under `name`; a second part of the name is a defect.

        Names stand in configurations, metrics and parameters of models: letters, digits, - and _.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{self.kind} {name!r}: expected a name of letters, digits, - and _, a letter first")

        def add(part: T) -> T:
            if name in self._parts:
                raise ValueError(f"{self.kind} '{name}' is registered twice: {self._parts[name]!r} and {part!r}")
            self._parts[name] = part
            return part

        return add

    def get(self, name: str) -> T:
        """Return the part filed under `name`; raise ConfigError with the nearest name otherwise."""
        for only in (name, None):
            if name not in self._parts:
                self._load(only)
        if name not in self._parts:
            raise ConfigError(f"no {self.kind} is called '{name}'. {nearest(name, self._parts)}")
        return self._parts[name]

    def names(self) -> list[str]:
        """Return every known name, sorted."""
        self._load()
        return sorted(self._parts)

    def _load(self, only: str | None = None) -> None:
        """Import the modules of the package, or that of one name if there is one."""
        with self._loading:  # another thread must not find half of the parts
            if self._loaded:
                return
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                if only in (None, module.name):
                    importlib.import_module(f"{self.package}.{module.name}")
            if only is not None:
                return
            for entry in entry_points(group=self.package):
                entry.load()
            self._loaded = True
