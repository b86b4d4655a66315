import pytest

from racepool.protocol import extras
from racepool.protocol.errors import PoolError

CLONE = '{"url": "file:///home/me/my%20clone", "dir_info": {"editable": true}}'
WHEEL = '{"url": "file:///tmp/racepool-0.1.0-py3-none-any.whl", "archive_info": {}}'
REPOSITORY = '{"url": "file:///srv/racepool.git", "vcs_info": {"vcs": "git", "commit_id": "56d608c"}}'


class Installed:
    """A distribution, as far as is asked for."""

    def __init__(self, direct_url: str | None) -> None:
        self._direct_url = direct_url

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self._direct_url


@pytest.mark.parametrize(
    ("direct_url", "command"),
    [
        (CLONE, "pip install -e '/home/me/my clone[plot]'"),
        (WHEEL, "pip install 'racepool[plot] @ file:///tmp/racepool-0.1.0-py3-none-any.whl'"),
        (REPOSITORY, "pip install 'racepool[plot] @ git+file:///srv/racepool.git'"),
        (None, "pip install 'racepool[plot]'"),
    ],
)
def test_remedy_gets_the_extra_from_where_racepool_came_from(
    monkeypatch: pytest.MonkeyPatch, direct_url: str | None, command: str
) -> None:
    monkeypatch.setattr(extras, "distribution", lambda _: Installed(direct_url))

    assert extras.remedy("plot") == command


def test_without_an_installation_the_remedy_is_for_a_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "DISTRIBUTION", "racepool-that-nobody-installed")

    assert extras.remedy("plot") == "pip install -e '.[plot]'"


def test_missing_modules_are_named_in_one_line_with_the_remedy() -> None:
    with pytest.raises(PoolError) as raised:
        extras.require("json", "no_such_module", "nor_this", extra="plot", purpose="--plot")

    assert str(raised.value) == f"--plot needs no_such_module, nor_this: {extras.remedy('plot')}"
