"""Which service answers which queries: all that are defined in these modules."""

from types import ModuleType
from typing import Any

from contracts.aggregates import ServiceName
from contracts.definitions import defined_in
from contracts.errors import SetupError
from contracts.queries import datasets, exports, jobs, log, losses, presets, tagging
from contracts.queries.base import Query, query_name_of

MODULES: dict[ServiceName, tuple[ModuleType, ...]] = {
    "catalog": (datasets, exports, jobs, log, losses, presets, tagging)
}
QUERIES: dict[ServiceName, tuple[type[Query[Any]], ...]] = {
    owner: tuple(sorted((one for module in modules for one in defined_in(module.__name__, Query)), key=query_name_of))
    for owner, modules in MODULES.items()
}


def owner_of(query: type[Query[Any]]) -> ServiceName:
    """The service that answers a query. SetupError: none does."""
    for owner, queries in QUERIES.items():
        if query in queries:
            return owner
    raise SetupError(f"no module of contracts/queries/owners.py has the query {query.__name__}")
