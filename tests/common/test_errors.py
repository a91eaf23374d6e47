"""The tree of exceptions."""

from __future__ import annotations

import inspect
import re

from gatecrew.common import errors
from gatecrew.common.errors import ClientIdError, GatecrewError, PartialAnswer
from gatecrew.common.exits import Exit


def classes() -> dict[str, type[GatecrewError]]:
    return dict(inspect.getmembers(errors, inspect.isclass))


def test_the_tree_in_the_docstring_is_the_one_in_the_code() -> None:
    assert errors.__doc__
    drawn = re.findall(r"^( *)\* :exc:`(\w+)`", errors.__doc__, re.MULTILINE)
    path: list[str] = []
    parents = {}
    for indent, name in drawn:
        del path[len(indent) // 4 :]
        parents[name] = path[-1] if path else "Exception"
        path.append(name)

    assert parents == {name: found.__bases__[0].__name__ for name, found in classes().items()}


def test_all_are_caught_as_one() -> None:
    assert all(issubclass(found, GatecrewError) for found in classes().values())


def test_only_a_wrong_configuration_is_a_wrong_use() -> None:
    usage = {
        name for name, found in classes().items() if found is not PartialAnswer and Exit.of(found("x")) is Exit.USAGE
    }

    assert usage == {"ConfigError"}


def test_a_partial_answer_says_who_is_missing() -> None:
    error = PartialAnswer({"client": 1}, ["gateway-1", "gateway-2"])

    assert isinstance(error, TimeoutError)
    assert (error.answer, error.missing) == ({"client": 1}, ["gateway-1", "gateway-2"])
    assert str(error) == "no answer from gateway-1, gateway-2 before the deadline"


def test_a_wrong_client_id_is_a_wrong_value() -> None:
    assert issubclass(ClientIdError, ValueError)
