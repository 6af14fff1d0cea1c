"""Progress as it stands on the screen."""

from __future__ import annotations

import pytest

from vsrife.cli.console import Console


@pytest.mark.parametrize("name", ["[/b] a [red].mkv", "[/].mp4", "a [link=file:b]c.mkv", "\\[x].mkv", ":smile:.mkv"])
def test_names_are_shown_as_they_are(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rich takes words in brackets for colours, and one that closes nothing for an error."""
    monkeypatch.setenv("COLUMNS", "200")
    with Console().progress(name, None) as advance:
        advance(0, 2, cuts=0)
        advance(2, 2, cuts=1)
    said = capsys.readouterr().err
    assert said.startswith(f"{name} ")
    assert "2/2" in said
    assert "1 scene cut" in said
