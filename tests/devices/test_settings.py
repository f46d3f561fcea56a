"""devices.toml: what it may say, and what is refused with which words."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from phonenas import devices
from phonenas.devices import registry
from phonenas.devices.settings import DeviceSettings, read_settings
from phonenas.space.errors import InvalidArgument, PhonenasError, UnknownName
from phonenas.testing import FakeDevice


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
        "pixel6",
        "adb",
        "1A2B3C",
        "benchmark_model",
        4,
        (4, 5, 6, 7),
        "float16",
        "GPU",
        str(tmp_path / "bin" / "benchmark_model"),
        wait_below_c=38,
        fixed_performance=False,
    )
    assert (found["pi"].port, found["pi"].cores) == (2222, "little")


def test_without_a_file_there_is_this_computer(tmp_path: Path) -> None:
    assert read_settings(tmp_path / "devices.toml") == {"local": DeviceSettings("local", "local")}


def test_a_file_that_was_named_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHONENAS_DEVICES", str(tmp_path / "none.toml"))
    with pytest.raises(InvalidArgument, match="no such file"):
        read_settings()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('transport = "bluetooth"', "one of adb, local, simulated, ssh, or MODULE:NAME"),
        ('transport = "adb"', "none is chosen for you"),
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
        ('cores = ["1"]', "must list core numbers"),
        ("cores = [1]\nthreads = 2", "at least 2 of them"),
        ('precision = "fp16"', "one of float32, float16, int8, int8-dynamic, float16-weights"),
        ("port = 70000", "from 1 to 65535"),
        ("wait_below_c = 4000", "a temperature"),
        ('adress = "x"', "Did you mean 'address'"),
        ('runtime = "tvm"', "no runtime is called 'tvm'"),
        ('precision = "float16"', "CPUExecutionProvider runs float32, int8, .*, not float16"),
        ('runtime = "litert"\nprecision = "float16"', "XNNPACK runs .*-weights, not float16"),
        ('runtime = "benchmark_model"', "needs  binary"),
        ('runtime = "benchmark_model"\nbinary = "x"\nprovider = "TPU"', "not 'TPU'"),
        (
            'runtime = "benchmark_model"\nbinary = "x"\nprovider = "CPU"\nprecision = "float16"',
            "CPU runs float32, int8, float16-weights, not float16",
        ),
        ('runtime = "onnxruntime_perf_test"\nbinary = "x"\nprovider = "GPU"', "not 'GPU'"),
        ('transport = "simulated"\naddress = "x"', "its seed, a number"),
    ],
)
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


@pytest.mark.fault(
    "A table of devices.toml describes no device.",
    "`stands for this computer`; `is not a table`; `cannot be a name: it …`; `it must be "
    "one of`; `it must be of type`; `has no setting …. Did you mean`; the device is "
    "listed with that, the others work",
    "Correct the table.",
)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[local]\nthreads = 2", "stands for this computer"),
        ("pixel = 3", "is not a table"),
        ('["a\\nb"]\nthreads = 1', r"'a\\nb' cannot be a name: it holds a character that does not"),
        ('["../x"]\nthreads = 1', "'../x' cannot be a name: it holds a slash"),
        ('["-x"]\nthreads = 1', "'-x' cannot be a name: it begins with '-'"),
        ('["..x"]\nthreads = 1', "cannot be a name: it begins with '.'"),
        ('[" "]\nthreads = 1', "cannot be a name: it is empty"),
        ('[x]\ntransport = "telepathy"', "transport is 'telepathy'; it must be one of adb"),
        ("[x]\nthreads = true", "x.threads is True; it must be of type int"),
        ("[x]\nthreds = 1", "has no setting 'threds'. Did you mean 'threads'"),
    ],
)
def test_a_bad_table_costs_its_own_device_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    good = '\n[good]\ntransport = "simulated"\n'
    path = write(tmp_path, text + good)
    monkeypatch.setenv("PHONENAS_DEVICES", str(path))
    (name,) = (n for n in tomllib.loads(path.read_text()) if n != "good")
    with pytest.raises(PhonenasError, match=words) as caught:
        devices.connect(name)
    assert caught.value.exit_code == 2
    assert devices.connect("good").name == "good"
    if name != "local":
        assert devices.connect("local").name == "local"
    states = {s.name: s for s in devices.listing()}
    assert states["good"].state != "not usable"
    row = states[repr(name)[1:-1]]
    assert row.state == "not usable" and re.search(words, row.detail)


MODULES = {
    "raises": "raise RuntimeError('no such lab')",
    "leaves": "raise SystemExit(3)",
    "unmade": "from phonenas.devices import Transport\n"
    "class Thing(Transport):\n    @classmethod\n    def from_settings(cls, s):\n        1 / 0\n",
    "stateless": "from phonenas.devices.simulated import SimulatedPhone\n"
    "class Thing(SimulatedPhone):\n    def state(self):\n        raise KeyError('x')\n",
}


@pytest.mark.fault(
    "A transport of another package raises an error when it is imported or made.",
    "`which cannot be imported: RuntimeError: no such lab`; `which cannot be imported: "
    "SystemExit: 3`; `cannot be made from its table: ZeroDivisionError`; the others work",
    "Correct the package.",
)
def test_another_package_that_fails_costs_its_own_device_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    text = '[good]\ntransport = "simulated"\n'
    for name, source in MODULES.items():
        (tmp_path / f"their_{name}.py").write_text(source, encoding="utf-8")
        text += f'[{name}]\ntransport = "their_{name}:Thing"\n'
    monkeypatch.setenv("PHONENAS_DEVICES", str(write(tmp_path, text)))
    states = {s.name: s for s in devices.listing()}
    assert set(states) == {"local", "good", *MODULES}
    words = {
        "raises": "their_raises:Thing.*RuntimeError: no such lab",
        "leaves": "their_leaves:Thing.*SystemExit: 3",
        "unmade": "cannot be made from its table: ZeroDivisionError",
        "stateless": "KeyError: 'x'",
    }
    for name in MODULES:
        assert states[name].state == "not usable"
        assert re.search(words[name], states[name].detail), states[name].detail
    assert states["good"].state != "not usable"
    for name in ("raises", "leaves", "unmade"):
        with pytest.raises(PhonenasError, match=words[name]) as caught:
            devices.connect(name)
        assert caught.value.exit_code == 2
    assert devices.connect("good").name == "good"


@pytest.mark.fault(
    "devices.toml is not TOML.",
    "`devices.toml cannot be read: …`",
    "Correct it at the place named.",
)
def test_a_file_that_is_no_toml_is_refused_whole(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be read"):
        read_settings(write(tmp_path, "[a\n"))


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


def test_a_device_of_another_package_has_the_precision_that_it_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its conditions say which, and it knows no setting of that name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices.toml").write_text(f'[old]\ntransport = "{__name__}:Eightfold"\n')
    assert registry.connect("old", precision="int8").conditions.precision == "int8"
    with pytest.raises(InvalidArgument, match="runs float32, not float16"):
        registry.connect("old", precision="float16")


class Eightfold(FakeDevice):
    precision = "int8"

    @property
    def precisions(self) -> tuple[str, ...]:
        return ("float32",)

    @classmethod
    def from_settings(cls, settings: DeviceSettings) -> Eightfold:
        return cls()
