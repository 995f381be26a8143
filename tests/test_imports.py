"""How deep the imports of a package go: whoever reads a file should not have to follow many others."""

import grimp
import pytest


@pytest.mark.parametrize(("package", "limit"), [("contracts", 7), ("catalog", 9)])
def test_the_longest_chain_of_imports_is_short(package: str, limit: int) -> None:
    chain = longest_chain(package)
    assert len(chain) <= limit, f"{len(chain)} modules import each other in a row: {' > '.join(chain)}"


def longest_chain(package: str) -> list[str]:
    """The modules of a package that import each other one after the other, typing imports included."""
    graph = grimp.build_graph(package, cache_dir=None)
    found: dict[str, list[str]] = {}

    def chain_from(module: str) -> list[str]:
        if module not in found:
            imported = graph.find_modules_directly_imported_by(module)
            found[module] = [module, *max((chain_from(other) for other in sorted(imported)), key=len, default=[])]
        return found[module]

    return max((chain_from(module) for module in sorted(graph.modules)), key=len)
