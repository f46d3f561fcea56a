"""devices.toml: what it may say, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from phonenas import devices
from phonenas.devices import registry
from phonenas.devices.settings import LOCAL, DeviceSettings, read_settings
from phonenas.space.errors import InvalidArgument, PhonenasError, UnknownName


def write(folder: Path, text: str) -> Path:
    path = folder / "devices.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_full_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [pixel6]
        transport = "adb"
        address = "1A2B3C"
        runtime = "benchmark_model"
        binary = "bin/benchmark_model"
        provider = "GPU"
        precision = "float16"
        threads = 4
        cores = [4, 5, 6, 7]
        wait_below_c = 38
        fixed_performance = false

        [pi]
        transport = "ssh"
        address = "pi@raspberrypi"
        port = 2222
        cores = "little"
        """,
    )
    found = read_settings(path)
    assert list(found) == ["local", "pixel6", "pi"]
    assert found["pixel6"] == DeviceSettings(
        "pixel6", "adb", "1A2B3C", "benchmark_model", 4, (4, 5, 6, 7), "float16", "GPU",
        str(tmp_path / "bin" / "benchmark_model"), wait_below_c=38, fixed_performance=False,
    )  # fmt: skip
    assert (found["pi"].port, found["pi"].cores) == (2222, "little")


def test_without_a_file_there_is_this_computer(tmp_path: Path) -> None:
    assert read_settings(tmp_path / "devices.toml") == {"local": LOCAL}


def test_a_file_that_was_named_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHONENAS_DEVICES", str(tmp_path / "none.toml"))
    with pytest.raises(InvalidArgument, match="no such file"):
        read_settings()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('transport = "bluetooth"', "one of adb, local, simulated, ssh"),
        ('transport = "adb"', "none is taken by itself"),
        ('transport = "ssh"\naddress = "-oProxyCommand=evil"', "without spaces"),
        ('transport = "adb"\naddress = "a\\u0007b"', "without spaces or control codes"),
        ('transport = "adb"\naddress = "a b"', "without spaces"),
        ("threads = 0", "1 or more"),
        ("threads = true", "of type int"),
        ('threads = "4"', "of type int"),
        ('cores = "huge"', "one of big, little, all"),
        ("cores = []", "one of big, little, all"),
        ("cores = [1, 1]", "one of big, little, all"),
        ("cores = [1, -2]", "one of big, little, all"),
        ('cores = ["1"]', "no core number"),
        ("cores = [1]\nthreads = 2", "at least 2 of them"),
        ('precision = "int8"', "one of float32, float16"),
        ("port = 70000", "from 1 to 65535"),
        ("wait_below_c = 4000", "a temperature"),
        ('adress = "x"', "Did you mean 'address'"),
        ('runtime = "tvm"', "no runtime 'tvm'"),
        ('precision = "float16"', "measures float32"),
        ('runtime = "benchmark_model"', "needs  binary"),
        ('runtime = "benchmark_model"\nbinary = "x"\nprovider = "TPU"', "not 'TPU'"),
        ('runtime = "benchmark_model"\nbinary = "x"\nprovider = "CPU"\nprecision = "float16"',
         "CPU has no float16"),
        ('runtime = "onnxruntime_perf_test"\nbinary = "x"\nprovider = "GPU"', "not 'GPU'"),
        ('transport = "simulated"\naddress = "x"', "its seed, a number"),
    ],
)  # fmt: skip
def test_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, words: str
) -> None:
    path = write(tmp_path, f"[phone]\n{table}\n")
    monkeypatch.setenv("PHONENAS_DEVICES", str(path))
    with pytest.raises(PhonenasError, match=words) as caught:
        devices.connect("phone")
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[local]\nthreads = 2", "taken by this computer"),
        ("pixel = 3", "is no table"),
        ("[a\n", "cannot be read"),
        ('["a\\nb"]\nthreads = 1', "no name for a device"),
        ('["../x"]\nthreads = 1', "no name for a device"),
        ('["-x"]\nthreads = 1', "no name for a device"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        read_settings(write(tmp_path, text))


def test_unknown_devices_get_the_nearest_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, '[pixel6]\ntransport = "adb"\naddress = "x"\n')
    monkeypatch.setenv("PHONENAS_DEVICES", str(path))
    with pytest.raises(UnknownName, match="Did you mean 'pixel6'"):
        devices.connect("pixel")


def test_every_runtime_goes_with_every_transport(tmp_path: Path) -> None:
    for transport in ("adb", "ssh", "local"):
        for runtime in registry_names():
            settings = DeviceSettings(
                "x", transport, "somewhere", runtime, binary=str(tmp_path / "binary")
            )
            device = registry.assemble(settings)
            assert device.name == "x"


def registry_names() -> list[str]:
    from phonenas.devices import runtimes

    return runtimes.names()
