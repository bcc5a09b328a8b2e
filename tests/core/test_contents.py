"""What a reader meets in content of another form is one error of this package; others pass unchanged."""

from pathlib import Path

import pytest

from prosocial.core.contents import WRONG_FORM, read_as
from prosocial.core.errors import ArtefactError, InputError


@pytest.mark.parametrize("error", [*WRONG_FORM, OverflowError, RecursionError, UnicodeError])
def test_a_wrong_form_names_the_file_and_the_kind(error: type[Exception]) -> None:
    line = r"gate_config\.json should hold the config of a gate: .*rank"
    with pytest.raises(ArtefactError, match=line), read_as("the config of a gate", Path("gate_config.json")):
        raise error("rank")


@pytest.mark.parametrize("error", [InputError("mine"), MemoryError("full"), KeyboardInterrupt()])
def test_what_is_no_matter_of_form_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, read_as("a gate", "x"):
        raise error

    assert caught.value is error
