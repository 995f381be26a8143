"""The table of a service, read from the signatures of its functions."""

from types import ModuleType

import pytest

from contracts.commands.datasets import CreateDataset, RemoveDataset, RenameDataset
from contracts.errors import SetupError
from contracts.wire.service.handlers import handlers_in
from contracts.wire.service.requests import require_all_handlers


async def create(context: None, command: CreateDataset) -> None: ...


async def change(context: None, command: RenameDataset | RemoveDataset) -> None: ...


async def change_again(context: None, command: RemoveDataset) -> None: ...


async def _helper(context: None, command: RenameDataset) -> None: ...


async def other(context: None, command: RenameDataset, more: int) -> None: ...


def module_of(**functions: object) -> ModuleType:
    module = ModuleType(__name__)
    vars(module).update(functions)
    return module


def test_a_function_handles_each_type_that_its_parameter_names() -> None:
    module = module_of(create=create, change=change, _helper=_helper, other=other)
    expected = {CreateDataset: create, RenameDataset: change, RemoveDataset: change}
    assert handlers_in(module, parameter="command") == expected
    assert handlers_in(module, parameter="query") == {}


def test_two_functions_for_one_type_are_refused_by_name() -> None:
    module = module_of(change=change, change_again=change_again)
    with pytest.raises(SetupError, match="change_again and change both handle RemoveDataset"):
        handlers_in(module, parameter="command")


def test_a_service_needs_handlers_only_for_what_it_owns() -> None:
    require_all_handlers("gateway", {}, {})
    with pytest.raises(SetupError, match=r"^the catalog has no handler for CreateDataset, "):
        require_all_handlers("catalog", {}, {})
