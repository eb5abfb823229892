"""Runs command lines in this process and looks at what they leave."""

import hashlib
import importlib
import json
import re
import sys

from experiments.command_line import exit_status

SHORT = ("--train.steps", "1", "--train.batch-size", "4", "--train.max-length", "19")
NOISE = re.compile(r"^(WARNING|E\d{4} |Failed to find host bounds|=== Source|learning/)")
"""What the TPU runtime prints on some machines."""


class Commands:
    """Command lines over one folder, whose content they must not change.

    Attributes:
        folder: Where the input of a case lies, and the outputs would.
        model: Tiny model in Hugging Face format.
    """

    def __init__(self, folder, monkeypatch, capfd, model, records):
        self.folder, self.model = folder, model
        self._monkeypatch, self._capfd, self._records = monkeypatch, capfd, records
        monkeypatch.chdir(folder)
        self.write("train.jsonl", records)

    def write(self, name, content):
        """Write bytes, text or JSON lines, or make a folder (None), under ``folder``."""
        path = self.folder / name
        if content is None:
            path.mkdir()
        elif isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_text(content)
        else:
            path.write_text("".join(json.dumps(item) + "\n" for item in content))
        return path

    def finetune(self, *arguments, config="sft", model=None):
        name = self.model if model is None else model
        given = ("--model.name", name, "--data.train", "train.jsonl")
        return self("finetune", config, *given, *SHORT, "--out", self.folder / "runs", *arguments)

    def __call__(self, command, *arguments):
        """Return the sentence of a command that fails as one that was given bad input."""
        before = contents(self.folder)
        status, said = self.run(command, *arguments)
        assert status == 2, (status, said)
        assert contents(self.folder) == before
        return one_sentence(said)

    def run(self, command, *arguments):
        """Return exit status and stderr of a command."""
        module = importlib.import_module(f"experiments.{command}")
        self._monkeypatch.setattr(sys, "argv", [command, *map(str, arguments)])
        self._capfd.readouterr()
        try:
            status = exit_status(module.main)
        except SystemExit as stop:
            status = stop.code
        return status, self._capfd.readouterr().err


def contents(folder):
    """Paths in a folder with checksums of their bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha1(path.read_bytes()).hexdigest()
        if path.is_file()
        else ""
        for path in sorted(folder.rglob("*"))
    }


def one_sentence(said):
    """Return the only thing that was said: a line, or the box that argument parsing draws."""
    assert "Traceback" not in said, said
    lines = [line for line in said.splitlines() if line.strip() and not NOISE.match(line)]
    if lines and lines[0].startswith("╭"):
        assert lines[-1].startswith("╰"), said
        assert sum(line.startswith("╭") for line in lines) == 1, said
        return " ".join(line.strip("│ ") for line in lines[1:-1])
    (line,) = lines
    assert re.match(r"error: \S", line), line
    assert len(line) < 900, line
    return line
