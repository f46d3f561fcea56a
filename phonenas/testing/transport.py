"""What every transport must do, and a transport without a device."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from phonenas.devices.transports.base import Answer, Transport, bounded
from phonenas.devices.transports.process import Process
from phonenas.space.errors import DeviceError, DeviceUnavailable

__all__ = ["FakeTransport", "TransportContract"]


class FakeTransport(Transport):
    """A device in a temporary folder of this computer, whose answers and faults a test chooses.

    Commands run here, unless `answers` has one under the command's first word; files are copied.

    Args:
        name: Of the device.
        answers: What a program prints, by its name, in place of running it.
        lost_after: Commands after which the device is gone; None for never. A device that is
            opened again answers again.
    """

    kind = "fake"

    def __init__(
        self,
        name: str = "fake",
        answers: Mapping[str, Answer] | None = None,
        lost_after: int | None = None,
    ) -> None:
        self.name, self.folder = name, ""
        self.answers, self.lost_after = dict(answers or {}), lost_after
        self.commands: list[list[str]] = []

    @property
    def address(self) -> str:
        return "a temporary folder"

    def open(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="phonenas-")
        self.commands.clear()

    def close(self) -> None:
        folder, self.folder = self.folder, ""
        if folder:
            shutil.rmtree(folder, ignore_errors=True)

    def run(self, command: Sequence[str], *, limit_s: float) -> Answer:
        self._reached(command)
        return self.answers.get(command[0]) or bounded(self.name, command, limit_s=limit_s)

    def spawn(self, command: Sequence[str]) -> Process:
        self._reached(command)
        return Process(self.name, command, keep_open=self.keep_open)

    def push(self, files: Sequence[Path], *, limit_s: float) -> list[str]:
        self._reached(["push", *map(str, files)])
        return [shutil.copy(file, self.folder) for file in files]

    def state(self) -> tuple[str, str]:
        return "ready", ""

    def _reached(self, command: Sequence[str]) -> None:
        self.commands.append(list(command))
        if not self.folder or (
            self.lost_after is not None and len(self.commands) > self.lost_after
        ):
            raise DeviceUnavailable(f"{self.name} was lost")


class TransportContract:
    """A transport runs commands as they are, brings files, talks with programs, and cleans up."""

    @pytest.fixture
    def transport(self) -> Transport:
        """The transport under test, not yet open, to a device with a POSIX shell."""
        raise NotImplementedError

    @pytest.fixture
    def opened(self, transport: Transport) -> Iterator[Transport]:
        """The transport, open for the length of a test."""
        transport.open()
        yield transport
        transport.close()

    def test_a_command_gives_its_code_output_and_errors(self, opened: Transport) -> None:
        answer = opened.run(["sh", "-c", "echo out; echo err >&2; exit 3"], limit_s=30)
        assert answer.code == 3
        assert answer.output.split() == ["out"]
        assert "err" in answer.errors
        with pytest.raises(DeviceError, match="trying failed with code 4"):
            opened.check(["sh", "-c", "exit 4"], "trying")

    @pytest.mark.parametrize("word", ["a b", "$HOME", "`id`", "a;b", "*", "it's", '"', "é", ""])
    def test_arguments_arrive_unchanged(self, opened: Transport, word: str) -> None:
        answer = opened.run(["sh", "-c", 'echo "<$1>"', "sh", word], limit_s=30)
        assert answer.output.strip() == f"<{word}>"

    def test_files_arrive_whole_and_in_order(self, opened: Transport, tmp_path: Path) -> None:
        files = [tmp_path / "one.txt", tmp_path / "two words.txt"]
        for number, file in enumerate(files):
            file.write_text(f"content {number}\n")
        paths = opened.push(files, limit_s=30)
        contents = [opened.run(["cat", path], limit_s=30).output.strip() for path in paths]
        assert contents == ["content 0", "content 1"]

    def test_a_program_answers_line_by_line(self, opened: Transport) -> None:
        process = opened.spawn(["sh", "-c", 'while read -r l; do echo "{\\"n\\": 7}"; done'])
        try:
            for _ in range(2):
                process.ask({"question": 1})
                assert process.answer(30.0) == {"n": 7}
        finally:
            process.close()

    def test_a_command_that_hangs_raises_device_unavailable(self, opened: Transport) -> None:
        with pytest.raises(DeviceUnavailable):
            opened.run(["sleep", "60"], limit_s=0.5)

    def test_its_folder_exists_while_open_and_is_removed_afterwards(
        self, transport: Transport
    ) -> None:
        transport.open()
        folder = transport.folder
        assert transport.run(["sh", "-c", 'test -d "$1"', "sh", folder], limit_s=30).code == 0
        transport.close()
        transport.close()
        transport.open()
        try:
            assert transport.folder != folder
            assert transport.run(["sh", "-c", 'test -d "$1"', "sh", folder], limit_s=30).code != 0
        finally:
            transport.close()

    def test_state_is_known_before_it_is_open(self, transport: Transport) -> None:
        word, advice = transport.state()
        assert word == "ready"
        assert isinstance(advice, str)
        assert transport.kind
        assert transport.address
