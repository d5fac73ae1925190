"""docs/cli.md is made from the commands themselves: ``python -m tests.e2e.test_cli_docs`` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from mmsearch.cli.app import app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
MARK = "<!-- From here on this page is made by `python -m tests.e2e.test_cli_docs`. -->\n"


def commands(command: Any, name: str = "mmsearch") -> Iterator[tuple[str, Any]]:
    """Each command with its whole name; groups before what is in them."""
    yield name, command
    for inner, found in getattr(command, "commands", {}).items():
        yield from commands(found, f"{name} {inner}")


def parameters(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if parameter.name not in {"help"}]


def described(parameter: Any) -> str:
    """One line of Markdown: flags, value, help, default."""
    is_option = parameter.param_type_name == "option"
    value = "" if getattr(parameter, "is_flag", False) else parameter.metavar
    words = [*parameter.opts, value] if is_option else [value]
    shown = ", ".join(f"`{word}`" for word in words if word).replace(
        "`, `" + value, f" {value}" if is_option else ""
    )
    told = isinstance(parameter.default, int | str) and not isinstance(parameter.default, bool)
    return f"- {shown}: {parameter.help}" + (f" Default: {parameter.default}." if told else "")


def reference() -> str:
    lines = [MARK]
    for name, command in commands(typer.main.get_command(app)):
        if name == "mmsearch":
            lines += ["## Commands\n"]
        else:
            lines += [f"### `{name}`\n", f"{command.help}\n"]
        lines += [*map(described, parameters(command)), ""]
    return "\n".join(lines).replace("\n\n\n", "\n\n")


def test_every_command_and_option_has_help() -> None:
    for name, command in commands(typer.main.get_command(app)):
        assert command.help, name
        for parameter in parameters(command):
            assert parameter.help, f"{name} {parameter.name}"
            assert parameter.help.endswith((".", "?")), f"{name} {parameter.name}"


def test_the_page_is_up_to_date() -> None:
    head, mark, made = PAGE.read_text(encoding="utf-8").partition(MARK)
    assert head
    assert mark + made == reference(), "run: python -m tests.e2e.test_cli_docs"


def test_the_page_tells_of_every_exit_code_setting_and_json_field() -> None:
    from dataclasses import fields

    from mmsearch.config import Settings, env_name
    from tests.e2e.test_cli_search import HIT_KEYS

    text = PAGE.read_text(encoding="utf-8")
    for setting in fields(Settings):
        assert f"`{env_name(setting.name)}`" in text
    for key in HIT_KEYS:
        assert f"`{key}`" in text
    for code in (0, 1, 2, 3, 4, 5, 130):
        assert f"| {code} |" in text


if __name__ == "__main__":
    PAGE.write_text(PAGE.read_text(encoding="utf-8").partition(MARK)[0] + reference(), encoding="utf-8")
