"""What phones, boards and their tools printed, kept as files, and what is read out of each.

`recorded/README.md` says of every file where it is from and whether it is as it was printed.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S

from phonenas.devices.runtimes.benchmark_text import parse_benchmark_model, parse_profile
from phonenas.devices.runtimes.perf_text import parse_perf_test, parse_perf_test_samples
from phonenas.devices.system.android_text import (
    mask,
    parse_battery,
    parse_devices,
    parse_getprop,
    parse_taskset,
    parse_thermalservice,
    plain,
)
from phonenas.devices.system.device_text import UnreadableOutput, shown
from phonenas.devices.system.snapshot import SNAPSHOT, Snapshot, parse_snapshot
from phonenas.devices.system.sysfs_text import (
    hottest_zone,
    parse_capacities,
    parse_cores,
    parse_cpufreq,
    parse_loadavg,
    parse_stat,
    parse_zones,
)
from phonenas.space.errors import DeviceError, InvalidArgument

FOLDER = Path(__file__).parents[1] / "recorded"
Parser = Callable[[str], Any]


def recorded(name: str) -> str:
    return (FOLDER / name).read_bytes().decode("utf-8", errors="replace")


def times(
    runs: int,
    mean: float,
    median: float | None,
    low: float | None,
    high: float | None,
    std: float | None,
    first: float | None,
    init: float | None,
    provider: str = "",
    fallback: str = "",
    flags: tuple[str, ...] = (),
) -> dict[str, Any]:
    """All that a report comes to; of the fallback, words that it holds."""
    return {
        "runs": runs,
        "mean_ms": mean,
        "median_ms": median,
        "min_ms": low,
        "max_ms": high,
        "std_ms": std,
        "first_ms": first,
        "init_ms": init,
        "provider": provider,
        "fallback": fallback,
        "ignored_flags": flags,
    }


BENCHMARK = {
    "tflite_2019_am57xx": times(50, 137.722, None, 137.079, 143.416, 0.896, 146.161, 4.452),
    "tflite_2019_no_nnapi_library": times(10, 133.69, None, 133.474, 134.269, 0.23, 184.82, 12.516),
    "tflite_2020_gpu_profiled": times(
        110, 8.68033, None, 7.863, 10.688, 0.591, 11.147, 1451.507, "GPU"
    ),
    "tflite_profiled_partly": times(
        20, 1.0, 1.0, 0.995, 1.01, 0.003, 1.3, 2.5, "XNNPACK", "Replacing 3 out of 5 node(s)"
    ),
    "tflite_2020_phone_gpu": times(
        50, 119.375, None, 113.737, 124.776, 1.948, 130.565, 870.557, "GPU"
    ),
    "tflite_2021_mi11_excerpt": times(50, 249.684, None, 247.067, 254.474, 1.442, 360.262, 16.242),
    "tflite_2021_imx8_nnapi": times(
        260, 3.75687, None, 3.7, 4.026, 0.035, 11403.859, 13.386, "NNAPI"
    ),
    "tflite_2021_imx8_says_nothing": times(
        50, 210.028, None, 209.739, 210.599, 0.221, 217.409, 2.517
    ),
    "tflite_2021_flag_ignored": times(
        50,
        74.4816,
        None,
        73.909,
        75.323,
        0.268,
        140.706,
        18.738,
        "XNNPACK",
        "GPU acceleration is unsupported on this platform",
        ("--allow_fp16",),
    ),
    "tflite_2021_pi4_short": times(14192, 0.069691, None, 0.068, 0.249, 0.005, 2.071, 1.304),
    "tflite_2022_logcat_nnapi_partly": times(
        75,
        12.1676,
        None,
        11.787,
        13.649,
        0.325,
        32.942,
        126.059,
        "NNAPI",
        "partially executed by the delegate w/ 44",
    ),
    "tflite_2022_logcat_nnapi_declined": times(
        81, 12.3012, None, 12.098, 12.97, 0.122, 13.02, 121.02, "CPU", "Though NNAPI delegate"
    ),
    "tflite_2025_termux_xnnpack": times(
        1000, 63.7432, 51.891, 49.088, 686.105, 60.716, 87.112, 119.515, "XNNPACK"
    ),
    "tflite_2025_termux_xnnpack_partly": times(
        24,
        42.3948,
        42.419,
        41.938,
        42.84,
        0.188,
        90.71,
        207.799,
        "XNNPACK",
        "Replacing 2136 out of 2168 node(s)",
    ),
    "tflite_2025_am62_plain_kernels": times(
        50, 1240.27, 1239.807, 1238.588, 1252.566, 2.565, 1357.602, 5.579, "CPU"
    ),
    "tflite_2025_am62_xnnpack_partly": times(
        50,
        899.641,
        899.281,
        898.007,
        906.121,
        1.549,
        905.463,
        614.333,
        "XNNPACK",
        "graph will be partially executed by the delegate w/ 1",
    ),
    "tflite_2025_rb1_gpu": times(
        50, 115.246, 115.35, 111.842, 119.614, 1.329, 125.113, 1361.236, "GPU"
    ),
    "tflite_2025_phone_gpu_then_nnapi": times(
        50,
        309.35,
        307.968,
        305.938,
        333.03,
        4.411,
        328.14,
        5664.363,
        "GPU",
        "Though NNAPI delegate is explicitly applied",
    ),
    "tflite_2026_logcat_app": times(
        25,
        145.528,
        141.253,
        140.071,
        195.121,
        13.583,
        235.158,
        92.318,
        "XNNPACK",
        "Replacing 539 out of 548",
    ),
    "tflite_gpu_rest_on_cpu": times(
        50,
        41.8038,
        41.742,
        41.12,
        43.377,
        0.402,
        61.012,
        903.1,
        "GPU+XNNPACK",
        "the remaining 114 operations will run on the CPU",
    ),
    "tflite_gpu_opengl_instead": times(
        62, 16.1409, None, 15.88, 17.02, 0.19, 21.0, 1210.5, "GPU", "Falling back to OpenGL"
    ),
    "tflite_all_same_one_run": times(3, 0.041, 0.041, 0.041, 0.041, 0, 0.041, 0.911, "XNNPACK"),
    "litert_2025_linux": times(1054, 0.947132, 0.942, 0.91, 1.102, 0.023, 2.125, 5.757, "XNNPACK"),
    "litert_2025_block_only": times(2166, 0.46, None, 0.35, 0.74, None, 4.44, 586.76),
    "litert_2026_phone_profiled": times(
        2112, 0.464545, 0.462, 0.442, 0.979, 0.013, 1.033, 4.478, "XNNPACK"
    ),
}
PERF = {
    "ort_2020_windows": times(1, 734.606, None, None, None, None, None, 1841.49),
    "ort_2020_board_acl": times(10, 144.871, None, None, None, None, None, 127.918),
    "ort_2022_pixel6": times(100, 19.918, 19.9047, 19.7812, 20.2704, None, None, 50.8382),
    "ort_2024_board_acl": times(8, 17.735, 16.7086, 15.9831, 23.2702, None, 20, 27.3071),
    "ort_2025_phone_sme2": times(5, 98.961997, 99.5086, 95.8204, 101.519, None, 196, 217.932),
    "ort_2025_board_spacemit": times(
        10, 7.270205, 7.27787, 7.20383, 7.30163, None, 109, 169.475, "SpaceMITExecutionProvider"
    ),
    "ort_below_one_ms": times(20, 0.219108, 0.214927, 0.098021, 0.402114, None, None, 2.12711),
    "ort_placed_on_one": times(
        5, 98.961997, 99.5086, 95.8204, 101.519, None, 196, 217.932, "CPUExecutionProvider"
    ),
    "ort_placed_on_two": times(
        2,
        12.0,
        12.1,
        11.9,
        12.1,
        None,
        13,
        61.0,
        "XnnpackExecutionProvider+CPUExecutionProvider",
        "Some nodes were not assigned to the preferred execution providers",
    ),
}
THERMAL = {  # status, throttling, hottest °C of what computes, sensors
    "thermal_pixel_2018": (0, 0, 32.300003, 13),
    "thermal_pixel_tensor": (0, 0, 27.000002, 11),
    "thermal_galaxy_s25": (1, 1, 33.1, 5),
    "thermal_samsung_aidl": (0, 0, 34.6, 5),
    "thermal_xiaomi_by_skin": (0, 3, 62.842, 6),
    "thermal_hal_1": (0, 0, 56.000004, 3),
    "thermal_hal_not_ready": (0, 0, None, 0),
    "thermal_cached_only": (2, 2, 41.5, 1),
}
BATTERY = {
    "battery_full": (100, "full", 27.4, True),
    "battery_discharging": (67, "discharging", 33.7, False),
    "battery_charging": (15, "charging", 34.0, True),
    "battery_with_history": (75, "not charging", None, True),
}
# Everything else that can be read: the parser, and what it gives.
OTHER: dict[str, tuple[Parser, Any]] = {
    "ort_samples_file": (parse_perf_test_samples, (12.1, 11.9, 11.95)),
    "taskset_new_mask": (parse_taskset, 0x80),
    "taskset_util_linux": (parse_taskset, 0xFFFF),
    "capacities_pixel6": (
        parse_capacities,
        {0: 160, 1: 160, 2: 160, 3: 160, 4: 498, 5: 498, 6: 1024, 7: 1024},
    ),
    "stat_8_cores": (parse_stat, {c: 13071 + 100 * c for c in range(8)}),
    "loadavg_busy": (parse_loadavg, (11.43, 10.96, 10.81)),
    "adb_devices_none": (parse_devices, ()),
    "cpufreq_pixel6": (
        lambda text: [
            (p.name, *p.cores, p.current_mhz, p.limit_mhz, p.greatest_mhz, p.governor)
            for p in parse_cpufreq(text)
        ],
        [
            ("policy0", 0, 1, 2, 3, 574.0, 1803.0, 1803.0, "sched_pixel"),
            ("policy4", 4, 5, 400.0, 2253.0, 2253.0, "sched_pixel"),
            ("policy6", 6, 7, 500.0, 1826.0, 2802.0, "sched_pixel"),
        ],
    ),
    "cpufreq_not_readable": (
        lambda text: [(p.current_mhz, p.greatest_mhz, p.governor) for p in parse_cpufreq(text)],
        [(None, None, ""), (None, 2400.0, "schedutil")],
    ),
    "zones_qualcomm": (lambda text: hottest_zone(parse_zones(text)), 41.8),
    "zones_mediatek": (lambda text: hottest_zone(parse_zones(text)), 47.1),
    "zones_tenths_and_degrees": (
        lambda text: {z.type_name: z.celsius for z in parse_zones(text)},
        {"cpu_thermal": 41.2, "gpu_thermal": 39.0, "battery": 30.5},
    ),
    "getprop_pixel8pro": (
        lambda text: (len(parse_getprop(text)), parse_getprop(text)["ro.soc.model"]),
        (13, "Tensor G3"),
    ),
    "getprop_emulator_14": (
        lambda text: parse_getprop(text)["persist.sys.boot.reason.history"].split("\n"),
        ["reboot,1732006385", "reboot,factory_reset,1731934106", "reboot,1731933991"],
    ),
    "adb_devices_short": (
        lambda text: [(d.serial, d.state) for d in parse_devices(text)],
        [("emulator-5554", "device"), ("unauth-1", "unauthorized")],
    ),
    "adb_devices_no_permissions": (
        lambda text: [(d.serial, d.state, d.transport_id) for d in parse_devices(text)],
        [("abceb966", "no permissions", 1)],
    ),
    "adb_devices_wireless": (
        lambda text: [(d.serial, d.state, d.model) for d in parse_devices(text)],
        [
            ("192.168.1.42:37123", "device", "SM A366B"),
            ("adb-R5CX123ABC-AbCdEf._adb-tls-connect._tcp", "device", "SM A366B"),
            ("adb-R5CX123ABC-AbCdEf (2)._adb-tls-connect._tcp", "offline", ""),
        ],
    ),
    "adb_devices_states": (
        lambda text: [d.state for d in parse_devices(text)],
        [
            "device",
            "offline",
            "unauthorized",
            "authorizing",
            "no permissions",
            "recovery",
            "sideload",
            "bootloader",
            "rescue",
            "connecting",
            "host",
            "unknown",
            "detached",
            "device",
            "frobnicating",
        ],
    ),
}
SNAPSHOTS = (
    *("snapshot_pixel6", "snapshot_pi4", "snapshot_by_clock", "snapshot_bare", "snapshot_mac"),
)
# What is refused: the parser, and words of the error.
REFUSED: dict[str, tuple[Parser, tuple[str, ...]]] = {
    "tflite_2021_mi11_nnapi_fails": (
        parse_benchmark_model,
        ("ANEURALNETWORKS_OP_FAILED", "Benchmarking failed."),
    ),
    "tflite_2025_termux_fails": (parse_benchmark_model, ("batch_matmul.cc:353",)),
    "tflite_2025_termux_two_runs": (parse_benchmark_model, ("not two", "Init: 207799")),
    "litert_flag_not_parsed": (parse_benchmark_model, ("Failed to parse flag 'dry_run'",)),
    "bad_tflite_cut_off": (parse_benchmark_model, ("cut off", "count=9 first=87112")),
    "bad_tflite_decimal_comma": (parse_benchmark_model, ("avg=63743,2",)),
    "bad_tflite_zero_time": (parse_benchmark_model, ("above 0", "min=0 ")),
    "bad_tflite_unordered": (parse_benchmark_model, ("greatest", "max=50000")),
    "bad_tflite_other_mean": (parse_benchmark_model, ("mean", "Inference (avg): 58147.4")),
    "bad_tflite_inference_failed": (parse_benchmark_model, ("Benchmarking failed.",)),
    "bad_tflite_crashed_at_end": (parse_benchmark_model, ("Segmentation fault",)),
    "bad_tflite_no_runs": (parse_benchmark_model, ("at least one timed run", "count=0")),
    "bad_not_executable": (parse_benchmark_model, ("64-bit ELF", "another processor")),
    "bad_not_there": (parse_benchmark_model, ("inaccessible or not found", "push it again")),
    "bad_not_allowed": (parse_perf_test, ("Permission denied", "/data/local/tmp")),
    "bad_cannot_link": (parse_perf_test, ("libc++_shared.so", "beside it")),
    "bad_killed": (parse_benchmark_model, ("'Killed'", "ends by itself")),
    "bad_other_program": (
        parse_benchmark_model,
        ("this line does not belong to one", "resnet18_cifar"),
    ),
    "bad_garbage": (parse_benchmark_model, (r"\x00\x01\x02count=",)),
    "bad_empty": (parse_benchmark_model, ("nothing",)),
    "bad_ort_samples_twice": (parse_perf_test_samples, ("run 2", "12,0'")),
    "bad_ort_run_failed": (parse_perf_test, ("no test input data", "Run failed")),
    "bad_ort_no_test_case": (parse_perf_test, ("TestCase.cc:705",)),
    "bad_ort_not_in_build": (parse_perf_test, ("Xnnpack is not supported in this build",)),
    "bad_ort_decimal_comma": (parse_perf_test, ("98,961997 ms", "decimal point")),
    "bad_ort_no_unit": (parse_perf_test, ("P50 Latency: 0.0995086'", "unit s")),
    "bad_ort_translated": (
        parse_perf_test,
        ("this line does not belong to one", "Sitzung angelegt"),
    ),
    "bad_ort_cut_off": (parse_perf_test, ("cut off", "Max Latency")),
    "bad_ort_interleaved": (parse_perf_test, ("mean of 5 runs", "339.381120 ms")),
    "bad_thermal_no_service": (parse_thermalservice, ("Can't find service",)),
    "bad_thermal_decimal_comma": (parse_thermalservice, ("mValue=33,1",)),
    "bad_battery_no_service": (parse_battery, ("Can't find service",)),
    "bad_getprop_cut_off": (parse_getprop, ("persist.sys.boot.reason.history",)),
    "bad_taskset_no_process": (parse_taskset, ("No such process",)),
    "bad_adb_no_server": (parse_devices, ("Connection refused", "adb start-server")),
    "bad_zones": (parse_zones, ("35,2",)),
    "bad_cpufreq": (parse_cpufreq, ("policy0 0-3|574000|1803000'",)),
    "bad_capacities": (parse_capacities, ("1 many",)),
    "bad_snapshot_cut_off": (parse_snapshot, ("cut off",)),
    "bad_snapshot_twice": (parse_snapshot, ("nothing after '== end'",)),
}


def test_every_recorded_text_is_in_a_table_once_and_in_the_readme() -> None:
    tables = [BENCHMARK, PERF, THERMAL, BATTERY, OTHER, dict.fromkeys(SNAPSHOTS), REFUSED]
    named = [name for table in tables for name in table]
    assert sorted(named) == sorted(p.stem for p in FOLDER.glob("*.txt"))
    rows = re.findall(r"^\| `(\w+)\.txt` \|", recorded("README.md"), re.M)
    assert sorted(rows) == sorted(named)
    assert len(named) >= 35


@pytest.mark.parametrize("name", [*BENCHMARK, *PERF])
def test_a_report_comes_to_these_milliseconds(name: str) -> None:
    parse = parse_benchmark_model if name in BENCHMARK else parse_perf_test
    expected = {**BENCHMARK, **PERF}[name]
    found = vars(parse(recorded(f"{name}.txt")))
    for memory in ("peak_bytes", "model_bytes"):  # they have a test of their own
        del found[memory]
    words, told = expected["fallback"], found["fallback"]
    assert (words in told) if words else not told
    # To the last digit printed: the decimal point alone is moved.
    assert found | {"fallback": words} == expected


# A node of TFLite's own has its number in the file; one of a delegate the delegate's words.
PROFILES = {
    "tflite_2020_gpu_profiled": [("77 TfLiteGpuDelegateV2", "TfLiteGpuDelegateV2", "GPU", 8.671)],
    "litert_2026_phone_profiled": [
        ("LiteRT::Run[buffer registration]/0", "LiteRT::Run[buffer registration]", "CPU", 0.014),
        ("Fully Connected (NC, PF32) GEMM:1", "Fully Connected (NC, PF32) GEMM", "delegate", 0.382),
    ],
    "tflite_profiled_partly": [
        ("Convolution (NHWC, F32) IGEMM:0", "Convolution (NHWC, F32) IGEMM", "XNNPACK", 0.39),
        ("Convolution (NHWC, F32) DWConv:1", "Convolution (NHWC, F32) DWConv", "XNNPACK", 0.2),
        ("Fully Connected (NC, F32) GEMM:2", "Fully Connected (NC, F32) GEMM", "XNNPACK", 0.25),
        ("2 CUSTOM", "CUSTOM", "CPU", 0.1),
        ("4 SOFTMAX", "SOFTMAX", "CPU", 0.04),  # called twice a run
    ],
}


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_has_these_nodes(name: str) -> None:
    found = parse_profile(recorded(f"{name}.txt"))
    assert [n[:3] for n in found] == [n[:3] for n in PROFILES[name]]
    assert [n.ms for n in found] == pytest.approx([n[3] for n in PROFILES[name]])


def test_a_profile_that_cannot_be_read_is_refused() -> None:
    whole = recorded("tflite_profiled_partly.txt")
    with pytest.raises(DeviceError, match="a profile of the runs"):
        parse_profile(recorded("tflite_2025_termux_xnnpack.txt"))
    # That of the loading is none of the runs.
    with pytest.raises(DeviceError, match="a profile of the runs"):
        parse_profile(
            whole[: whole.index("Operator-wise")] + "Operator-wise Profiling Info for "
            "Regular Benchmark Runs:"
        )
    for old, new, told in [
        ("0.100\t", "0,100\t", "a time in ms"),
        ("0.100\t", "-0.1\t", "a finite time"),
        ("0.100\t", "1e308\t", "a finite time"),
        ("[avg ms]", "[avg us]", "avg ms"),
        ("     0.000\t        1\t[a, b]:2", "     0.000", "a row of 8 columns"),
    ]:
        at = whole.index("Operator-wise")
        assert old in whole[at:]
        with pytest.raises(DeviceError, match=re.escape(told)):
            parse_profile(whole[:at] + whole[at:].replace(old, new, 1))


def test_the_nodes_of_another_subgraph_are_in_the_node_that_runs_it() -> None:
    text = recorded("tflite_profiled_partly.txt")
    head, _, table = text.partition("Operator-wise Profiling Info for Regular Benchmark Runs:\n")
    mine = table.partition("============================== Top by")[0]
    other = f"Subgraph (index: 1) profile:\n{mine.replace('CUSTOM', 'ADD')}"
    both = f"{head}Operator-wise Profiling Info for Regular Benchmark Runs:\n{mine}\n{other}"
    assert [n.op for n in parse_profile(both)] == [
        *("TfLiteXNNPackDelegate", "CUSTOM", "TfLiteXNNPackDelegate", "SOFTMAX")
    ]


@pytest.mark.parametrize(
    ("name", "peak_bytes", "model_bytes"),
    [
        ("tflite_2021_imx8_nnapi", None, 16_089_140),
        ("tflite_2025_termux_xnnpack", None, 58_191_879),
        ("tflite_2026_logcat_app", None, 76_976_174),
        ("litert_2025_linux", None, 7_413_432),
        ("ort_2022_pixel6", 109_531_136, None),
        ("ort_2025_board_spacemit", 91_336_704, None),
        ("tflite_2020_phone_gpu", None, None),
    ],
)
def test_a_report_tells_its_memory(
    name: str, peak_bytes: int | None, model_bytes: int | None
) -> None:
    parse = parse_perf_test if name in PERF else parse_benchmark_model
    text = recorded(f"{name}.txt")
    printed = parse(text)
    assert (printed.peak_bytes, printed.model_bytes) == (peak_bytes, model_bytes)
    monitored = "INFO: Overall peak memory footprint (MB) via periodic monitoring: 41.5"
    if name.startswith("tflite_2025"):
        assert parse(f"{text}\n{monitored}\n").peak_bytes == 43_515_904


@pytest.mark.parametrize("name", THERMAL)
def test_android_tells_its_heat(name: str) -> None:
    status, throttling, hottest, sensors = THERMAL[name]
    found = parse_thermalservice(recorded(f"{name}.txt"))
    assert (found.status, found.throttling, found.hottest_c) == (status, throttling, hottest)
    assert len(found.temperatures) == sensors
    assert all(t.celsius not in (0.0, -99.9) for t in found.temperatures)


@pytest.mark.parametrize("name", BATTERY)
def test_android_tells_its_battery(name: str) -> None:
    found = parse_battery(recorded(f"{name}.txt"))
    assert tuple(vars(found).values()) == BATTERY[name]


@pytest.mark.parametrize("name", OTHER)
def test_other_tools_tell_their_values(name: str) -> None:
    parse, expected = OTHER[name]
    assert parse(recorded(f"{name}.txt")) == expected


@pytest.mark.parametrize("name", REFUSED)
def test_a_text_that_is_no_report_is_refused_in_words(name: str) -> None:
    parse, words = REFUSED[name]
    with pytest.raises(UnreadableOutput) as caught:
        parse(recorded(f"{name}.txt"))
    message = str(caught.value)
    assert isinstance(caught.value, DeviceError)
    for word in words:
        assert word in message
    assert message.isprintable()
    assert re.match(r"[\w/ ]+: expected .+, found .+\. .+", message)


@pytest.mark.parametrize("name", [*BENCHMARK, *PERF])
def test_the_other_programs_report_is_no_report(name: str) -> None:
    parse = parse_perf_test if name in BENCHMARK else parse_benchmark_model
    with pytest.raises(
        UnreadableOutput, match="this line does not belong to one|cut off|reports a failure"
    ):
        parse(recorded(f"{name}.txt"))


def test_lines_may_end_as_a_terminal_ends_them() -> None:
    for name in ("tflite_2025_termux_xnnpack", "litert_2025_linux"):
        text = recorded(f"{name}.txt")
        for end in ("\r\n", "\r\r\n"):
            assert parse_benchmark_model(text.replace("\n", end)) == parse_benchmark_model(text)


# -- words ----------------------------------------------------------------------------------------


def test_reported_words_are_made_plain() -> None:
    assert plain("Pixel 6") == "Pixel 6"
    assert plain("\x1b[1;31mred\x1b[0m \x1b]0;title\x07bell\x07") == "red bell\\x07"
    assert plain("a\nb\r\n\tc") == "a b c"
    assert plain("\u202egnp.exe\x00") == "\\u202egnp.exe\\x00"
    assert len(plain("x" * 10_000)) == 200
    assert len(shown("\x00" * 500)) <= 160


def test_masks_are_bare_hexadecimal() -> None:
    assert mask([4, 5, 6, 7]) == "f0"
    assert mask({0}) == "1"
    assert parse_taskset(f"pid 1's current affinity mask: {mask([0, 63])}") == 1 | 1 << 63
    for cores in ([], [-1], [1024]):
        with pytest.raises(InvalidArgument):
            mask(cores)


def test_lists_of_cores() -> None:
    assert parse_cores("0-3,6") == (0, 1, 2, 3, 6)
    assert parse_cores("0 1 2 3") == (0, 1, 2, 3)
    for text in ("", "0-", "a", "0-1024", "3-99999999"):
        with pytest.raises(UnreadableOutput):
            parse_cores(text)


def test_only_a_usable_device_needs_no_advice() -> None:
    for device in parse_devices(recorded("adb_devices_states.txt")):
        assert bool(device.advice) == (device.state != "device")
        assert not device.advice or device.advice.endswith(".")


# -- snapshots ------------------------------------------------------------------------------------


def snapshot(name: str, **replaced: str) -> Snapshot:
    """A recorded snapshot with words of it replaced, from each name to its value."""
    text = recorded(f"{name}.txt")
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    return parse_snapshot(text)


def test_a_phone_says_what_it_is_and_how_it_is() -> None:
    phone = snapshot("snapshot_pixel6")
    assert phone.android
    assert not phone.emulated
    assert phone.model == "Pixel 6 (oriole), Android 14"
    assert phone.machine == "aarch64"
    assert phone.can_pin
    assert phone.unread == ()
    assert phone.governor == "sched_pixel"
    assert phone.telemetry() == {
        "temperature_c": 27.000002,
        "thermal_status": 0,
        "clock_mhz": 500.0,
        "clock_limit_mhz": 1826.0,
        "load": 11.43,
        "online": 8,
        "battery_percent": 67.0,
        "battery_c": 33.7,
        "charging": False,
    }
    assert phone.summary == (
        "8 cores (2 of capacity 1024, 2 of capacity 498, 4 of capacity 160); "
        "governor sched_pixel; 27 °C; battery 67 %, discharging"
    )


def test_cores_are_chosen_by_capacity_then_by_rest_then_from_the_top() -> None:
    phone = snapshot("snapshot_pixel6")
    assert phone.strongest(1) == (7,)
    assert phone.strongest(3) == (5, 6, 7)
    assert phone.core_class((6, 7)) == "2 cores of capacity 1024"
    assert phone.core_class((7,)) == phone.core_class((6,)) == "1 of 2 cores of capacity 1024"
    assert phone.core_class((7, 3)) == (
        "1 of 2 cores of capacity 1024, 1 of 4 cores of capacity 160"
    )
    busy = snapshot("snapshot_pixel6", **{"cpu7 9700 20": "cpu7 9760 20"})
    assert busy.strongest(1, before=phone) == (6,)
    for threads in (0, 9):
        with pytest.raises(InvalidArgument):
            phone.strongest(threads)
    with pytest.raises(InvalidArgument):
        phone.core_class((8,))


def test_a_fingerprint_is_of_hardware_and_build_alone() -> None:
    phone = snapshot("snapshot_pixel6")
    assert re.fullmatch("[0-9a-f]{12}", phone.fingerprint)
    later = snapshot(
        "snapshot_pixel6",
        **{
            "1732006385": "1799999999",
            "[ro.boottime.init]: [1234567890]": "[ro.boottime.init]: [987]",
            "500000|1826000": "2802000|2802000",
            "level: 67": "level: 12",
            "11.43 10.96": "0.01 0.02",
            "Cpus_allowed_list:\t0-7": "Cpus_allowed_list:\t0-3",
            "== online\n0-7": "== online\n0-5",
        },
    )
    assert later.fingerprint == phone.fingerprint
    assert snapshot("snapshot_pixel6", oriole="raven").fingerprint != phone.fingerprint
    updated = snapshot("snapshot_pixel6", **{"AP1A.240305": "AP2A.240705"})
    assert updated.fingerprint != phone.fingerprint
    board = snapshot("snapshot_pi4")
    cooler = snapshot(
        "snapshot_pi4", **{"48199": "31000", "1000000000000000": "1", "0xd08": "0xd08"}
    )
    assert cooler.fingerprint == board.fingerprint


def test_a_linux_board_is_read_the_same_way() -> None:
    board = snapshot("snapshot_pi4")
    assert not board.android
    assert board.model == "Raspberry Pi 4 Model B Rev 1.1"
    assert board.capacities == {0: 1024, 1: 1024, 2: 1024, 3: 1024}
    assert board.core_class(board.strongest(2)) == "one class of 4 cores"
    assert board.temperature_c == 48.199
    assert board.battery is None
    assert board.summary == "4 cores; governor ondemand; 48 °C"


def test_without_capacities_clocks_tell_the_classes_and_garbled_parts_are_named() -> None:
    phone = snapshot("snapshot_by_clock")
    assert phone.capacities == {2: 659, 3: 659, 6: 1024}  # allowed and on
    assert phone.core_class((6,)) == "1 of 2 cores of capacity 1024"
    assert not phone.can_pin
    assert phone.thermal is None
    assert phone.temperature_c is None
    assert len(phone.unread) == 2
    assert "35,2" in phone.unread[1]


@pytest.mark.parametrize(
    ("line", "cores"),
    [
        ("Cpu_quota: 50000 100000", 0.5),  # cgroup 2
        ("Cpu_quota: 150000 100000", 1.5),
        ("Cpu_quota: max 100000", None),
        ("Cpu_quota: -1 100000", None),  # cgroup 1
    ],
)
def test_a_containers_quota_is_read(line: str, cores: float | None) -> None:
    text = recorded("snapshot_pi4.txt")
    before = parse_snapshot(text)
    board = parse_snapshot(text.replace("== taskset", f"{line}\n\n== taskset"))
    assert (board.quota, board.allowed, board.unread) == (cores, before.allowed, ())
    assert board.telemetry().get("cpu_quota") == cores
    assert ("CPU quota 50% of a core" in board.summary) == (cores == 0.5)
    assert before.quota is None


@pytest.mark.parametrize("hidden", ["== thermal", "== getprop", "== battery"])
def test_a_phone_whose_words_cannot_be_read_is_an_android_still(hidden: str) -> None:
    head, mark, rest = recorded("snapshot_pixel6.txt").partition(f"{hidden}\n")
    body, _, tail = rest.partition("\n== ")
    phone = parse_snapshot(f"{head}{mark}Dienst nicht verfügbar\n\n== {tail}")
    assert phone.android
    (about,) = phone.unread
    assert "is unknown: " in about and "Dienst nicht verf" in about
    assert phone.telemetry()["unread"] == [about]
    assert body


@pytest.mark.parametrize(
    ("before", "after", "emulated"),
    [
        ("[ro.board.platform]: [gs101]", "[ro.hardware]: [ranchu]", True),
        ("[ro.board.platform]: [gs101]", "[ro.boot.hardware]: [goldfish]", True),
        ("[ro.board.platform]: [gs101]", "[ro.boot.qemu]: [1]", True),
        ("[ro.board.platform]: [gs101]", "[ro.hardware]: [oriole]", False),
        # An emulator of another processor shows the computer's own /proc/cpuinfo.
        ("== cpuinfo\n", "== cpuinfo\nprocessor : 0\nvendor_id : GenuineIntel\n\n", True),
    ],
)
def test_an_emulator_is_recognised(before: str, after: str, emulated: bool) -> None:
    text = recorded("snapshot_pixel6.txt")
    assert before in text
    phone = parse_snapshot(text.replace(before, after, 1))
    assert phone.emulated == emulated
    assert ("do not count as measured" in phone.summary) == emulated


def test_a_device_may_tell_nothing_at_all() -> None:
    bare = snapshot("snapshot_bare")
    assert bare.model == "unknown"
    assert (bare.capacities, bare.telemetry(), bare.governor) == ({}, {}, "none")
    assert not bare.can_pin
    assert bare.summary == "0 cores"
    assert bare.core_class(()) == ""


def test_a_mac_says_what_it_is_and_what_is_not_known_there() -> None:
    mac = snapshot("snapshot_mac")
    assert (mac.system, mac.machine, mac.model) == ("darwin", "arm64", "Apple M1")
    assert not (mac.android or mac.can_pin or mac.emulated)
    assert mac.summary == "8 cores"
    (about,) = mac.unread
    assert about.startswith("macOS binds no program to a core") and about.isprintable()
    assert mac.telemetry() == {"unread": [about]}
    other = snapshot("snapshot_mac", M1="M3")
    assert other.fingerprint != mac.fingerprint
    fewer = snapshot("snapshot_mac", **{"hw.ncpu: 8": "hw.ncpu: 10"})
    assert fewer.fingerprint != mac.fingerprint


def test_this_computer_answers_the_script() -> None:
    done = subprocess.run(
        ["sh", "-c", SNAPSHOT], capture_output=True, text=True, timeout=PATIENCE_S, errors="replace"
    )
    assert done.returncode == 0
    assert done.stderr == ""
    here = parse_snapshot(done.stdout)
    assert here.unread == ()
    assert here.model
    assert here.capacities
    assert set(here.busy) >= set(here.capacities)
    assert here.core_class(here.strongest(1))
    assert here.summary
    again = parse_snapshot(
        subprocess.run(
            ["sh", "-c", SNAPSHOT],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            errors="replace",
        ).stdout
    )
    assert again.fingerprint == here.fingerprint
