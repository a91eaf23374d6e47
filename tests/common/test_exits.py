from __future__ import annotations

import pytest
from gatecrew.common.errors import AppError, ConfigError, GatecrewError
from gatecrew.common.exits import Exit, ending


@pytest.mark.parametrize(("error", "code"), [(GatecrewError(), 1), (AppError(), 1), (ConfigError(), 2)])
def test_only_a_wrong_configuration_is_of_no_use_to_try_again(error: GatecrewError, code: int) -> None:
    assert Exit.of(error) == code


@pytest.mark.parametrize("code", [Exit.FAILED, Exit.USAGE])
def test_an_error_made_from_an_exit_code_has_that_code(code: Exit) -> None:
    error = code.error("why")

    assert (Exit.of(error), str(error)) == (code, "why")


@pytest.mark.parametrize(
    ("code", "text"),
    [(0, "ended with exit code 0"), (-9, "was killed by SIGKILL"), (-50, "was killed by signal 50")],
)
def test_an_exit_code_is_said_in_words(code: int, text: str) -> None:
    assert ending(code) == text
