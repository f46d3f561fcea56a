"""NETWORK, as a user writes it: a zoo name, a block string, a run's candidate, a file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonenas.data.documents import parsed
from phonenas.search.run_folder import Loaded, load
from phonenas.space import Architecture, Classifier, zoo
from phonenas.space.detection.ssdlite import SSDLite
from phonenas.space.errors import (
    InvalidArgument,
    PhonenasError,
    PrecisionDiffers,
    UncoveredOperator,
    UnknownName,
    UnsupportedFormat,
)
from phonenas.space.file_inputs import NOT_GIVEN, Given, GivenArray, parsed_shape
from phonenas.space.graph import NetworkGraph
from phonenas.space.naming import counted
from phonenas.space.precision import FLOAT32, from_front

if TYPE_CHECKING:
    from phonenas.data.measurement import Conditions
    from phonenas.devices import Device
    from phonenas.latency_model import LatencyModel
    from phonenas.latency_model.graphs.onnx_cut import OnnxNetwork
    from phonenas.space import Kernel, SearchSpace
    from phonenas.space.kernels.lifted import LiftedKernel
    from phonenas.space.onnx_file import OnnxFile
    from phonenas.space.ort_file import OrtFile
    from phonenas.space.tflite_file import TfliteFile

    from .options import Output

__all__ = [
    "any_network",
    "checked_file",
    "cut_file",
    "cut_other",
    "file_precision",
    "find",
    "given_inputs",
    "is_file",
    "is_run",
    "kernels_in",
    "named",
    "network_file",
    "networks_to_start_from",
    "on_disk",
    "other",
    "refuse_other_precision",
]

_CANDIDATE = re.compile(r"(?P<run>.+):(?P<id>\d{1,6})")
_NETWORK_KEYS = ("block_args", "network")
_TRANSFER = "ssdlite:"
_MAX_BYTES = 1 << 20
_FILES = (".onnx", ".tflite", ".ort")
_MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", re.ASCII)
_SOME_MACS = 500_000_000  # of a network that cannot be cut: only for an estimate of the time


def find(text: str, width: float = 1.0, resolution: int | None = None) -> Architecture:
    """The network that a user named.

    Args:
        text: A zoo name (`mnasnet-a1`), a block string, a run's candidate (`runs/x:3`), or a
            .json file with `block_args` (as `phonenas show --json` writes it).
        width: Width multiplier in (0, 10].
        resolution: Side of the input in pixels, instead of the network's own.
    Raises:
        UnknownName: No such name, run, candidate or file.
        InvalidArchitecture, InvalidArgument: As `Architecture.parse`; or it is a detector, or a
            run of several candidates.
        UnsupportedFormat: A file that holds no network, or an ONNX file, which only phonenas show,
            predict and profile read.
    """
    text = text.strip()
    if is_file(text):
        raise UnsupportedFormat(
            f"{text}: only phonenas show, predict and profile read such files. Give a block "
            f"string, a zoo name ({', '.join(zoo.names())}), a run's candidate or a .json file."
        )
    if is_run(text):
        raise InvalidArgument(
            f"{text} is a run, and one of its candidates is needed, for example "
            f"{shlex.quote(f'{text}:0')}. List them:  phonenas show {shlex.quote(text)}"
        )
    candidate = None if text.startswith(_TRANSFER) else _CANDIDATE.fullmatch(text)
    if candidate:  # a block string holds no colon
        run = load(candidate["run"])
        number = int(candidate["id"])
        if number >= len(run.front):
            raise UnknownName(
                f"{candidate['run']} has {counted(len(run.front), 'candidate')}, 0 to "
                f"{len(run.front) - 1}; there is no {number}"
            )
        _refuse_in_other(text, run, number)
        return _adapted(run.front.candidates[number].architecture, width, resolution)
    read = _text_of(Path(text)) if text.endswith(".json") else None
    if zoo.find_graph(text if read is None else read) is not None:
        raise InvalidArgument(
            f"{text[:60]} is a network that is not of blocks, which phonenas show, predict, "
            "profile, export-network and train take; this command takes networks of blocks, as "
            f"{', '.join(zoo.names())}"
        )
    if text.startswith(_TRANSFER) or _is_detector(text if read is None else read):
        raise InvalidArgument(
            f"{text[:40]} is a detector, which phonenas show, predict, profile and export-network "
            "take; this command takes networks that classify"
        )
    if read is not None:
        return _adapted(Architecture.parse(read), width, resolution)
    return zoo.find(text, width, resolution)


def _refuse_in_other(text: str, run: Loaded, number: int) -> None:
    """Refuse a candidate of a run over precisions in another one than float32; tell its name."""
    precision, network = from_front(run.front.candidates[number].block_args)
    if precision == FLOAT32:
        return
    own = run.path / precision
    places = [c.id for c in load(own).front if c.block_args == network] if own.exists() else []
    name = shlex.quote(f"{own}:{places[0] if places else 'ID'}")
    raise InvalidArgument(
        f"{text} is in {precision}, which a network's name does not tell. Name it {name}, and give "
        f"--precision {precision} where the command takes that"
    )


def other(
    text: str, width: float = 1.0, resolution: int | None = None
) -> SSDLite | NetworkGraph | None:
    """The detector or the graph that a user named; None where the text names neither.

    Args:
        text: `ssdlite:` and a network as `find` takes it, which becomes the backbone at 320 px; a
            detector's text (`ssdlite classes91 res320 r1_k3_...`); a graph of the zoo
            (`resnet-50`, `mobilenet-v1 width0.5 res192`); or a .json file with such a text as its
            `block_args`.
        width: Width multiplier, of a detector in [0.01, 10], of its backbone and head.
        resolution: Side of the input in pixels, instead of the network's own.
    Raises:
        UnknownName, InvalidArchitecture, InvalidArgument, UnsupportedFormat: As `find`, `SSDLite`
            and `zoo.find_graph`.
    """
    text = text.strip()
    if text.startswith(_TRANSFER):
        backbone = text.removeprefix(_TRANSFER)
        if isinstance(other(backbone), SSDLite):
            raise InvalidArgument(f"{text}: {backbone[:40]} is a detector already")
        found = SSDLite(find(backbone))
    else:
        own = _text_of(Path(text)) if text.endswith(".json") else text
        if not _is_detector(own):
            return zoo.find_graph(own, width, resolution)
        found = SSDLite.parse(own)
    found = found.scaled(width)
    return found if resolution is None else found.with_resolution(resolution)


def classifier(text: str, width: float = 1.0, resolution: int | None = None) -> Classifier:
    """A network of blocks as `find` takes it, or a graph of the zoo.

    Raises:
        UnknownName, InvalidArchitecture, InvalidArgument, UnsupportedFormat: As `find`.
    """
    found = other(text, width, resolution)
    return found if isinstance(found, NetworkGraph) else find(text, width, resolution)


def named(text: str, width: float = 1.0, resolution: int | None = None) -> Any:
    """A network of any kind that a user named: of blocks, a detector or a graph; a file's path.

    Raises:
        As `find` and `other`.
    """
    if is_file(text):
        return Path(text.strip())
    found = other(text, width, resolution)
    return find(text, width, resolution) if found is None else found


def any_network(
    text: str, network: Any, model: LatencyModel, given: Given = NOT_GIVEN
) -> Classifier | OnnxNetwork:
    """What `named` gave, as a model takes it: files and detectors are cut into kernels.

    Args:
        text: What the user wrote.
        network: What `named` made of it.
        model: That is to predict it.
        given: What the user says of a file's inputs.
    Raises:
        As `checked_file`.
    """
    if isinstance(network, Path):
        part = model if model.kernels is None else model.kernels
        return replace(checked_file(str(network), part.conditions, given), name=str(network))
    if isinstance(network, SSDLite):
        known = text.strip() if other(text) == network else str(network)
        return replace(cut_other(network), name=known)
    found: Classifier = network
    return found


def checked_file(path: str, conditions: Conditions, given: Given = NOT_GIVEN) -> OnnxNetwork:
    """A file's kernels, for a model of these conditions.

    Args:
        path: Of the file.
        conditions: Of the model.
        given: What the user says of its inputs.

    Raises:
        PrecisionDiffers, UnsupportedFormat: As `same_precision` and `check_loads`.
        UnknownName, InvalidArgument, UncoveredOperator: As `cut`.
    """
    from phonenas.latency_model.graphs.onnx_check import check_loads, same_precision

    network = cut_file(path, given)
    same_precision(path, network.precision, conditions, network.odd)
    if (file := on_disk(path, given)[0]).suffix == ".onnx":
        check_loads(file, conditions.runtime)
    return network


def file_precision(network: Any, given: Given = NOT_GIVEN) -> str | None:
    """What a file computes in, as `named` gives it; None for what is in no file."""
    if not isinstance(network, Path) or _is_module(str(network)):
        return None
    try:
        return network_file(str(network), given).precision
    except PhonenasError:
        return None  # told when it is cut for its prediction


def is_run(text: str) -> bool:
    """Whether a text is the folder of a run."""
    try:
        return Path(text, "run.json").is_file()
    except OSError:  # a block string that is longer than any file's name
        return False


def is_file(text: str) -> bool:
    """Whether a text names a network's file by its ending, or a torch module, `module:Name`."""
    return text.strip().endswith(_FILES) or _is_module(text)


def _is_module(text: str) -> bool:
    module = not text.startswith(_TRANSFER) and _MODULE.fullmatch(text.strip()) is not None
    return module or text.strip().endswith(".pt2")


def on_disk(text: str, given: Given = NOT_GIVEN) -> tuple[Path, Given]:
    """The file that a text names, and what of the inputs is left to set; a module is exported.

    Raises:
        As `exported`.
    """
    if not _is_module(text):
        return Path(text.strip()), given
    from phonenas.latency_model.graphs.torch_module import exported

    return exported(text.strip(), given)


def given_inputs(
    output: Output,
    names: Sequence[str],
    shapes: Sequence[str] | None,
    resolution: int | None,
    file: Path | None,
) -> Given:
    """What a user says of the inputs of the files among some networks.

    Raises:
        InvalidArgument: An option does not apply, is no shape, or the file is no .npz file.
    """
    from phonenas.data.arrays import arrays_digest, read_arrays

    files = [n.strip() for n in names if is_file(n)]
    if not files:
        output.refuse("shape input_", "applies to a network's file, and none is given")
        return Given()
    output.refuse("width", f"does not apply to {files[0]}: a file has its own")
    if len(files) > 1:
        output.refuse("input_", f"is of one file, and {len(files)} are given")
    named = tuple(map(parsed_shape, shapes or ()))
    if file is None:
        return Given(named, resolution)
    try:
        arrays = read_arrays(file)
    except FileNotFoundError as error:
        raise UnknownName(f"--input: there is no file {file}") from error
    except (OSError, ValueError) as error:
        raise UnsupportedFormat(
            f"--input {file} is not an .npz file as numpy.savez writes it: {error}"
        ) from error
    held = tuple((n, GivenArray(str(a.dtype), a.shape)) for n, a in arrays.items())
    return Given(named, resolution, file, held, arrays_digest(arrays))


def _is_detector(text: str) -> bool:
    return re.match(r"ssdlite(?:[\s,·;]|$)", text) is not None


def _adapted(network: Architecture, width: float, resolution: int | None) -> Architecture:
    network = network.scaled(width)
    return network if resolution is None else network.with_resolution(resolution)


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UnsupportedFormat(f"{path} is over 1 MB, too large to describe one network")
        found = parsed(path.read_bytes())
    except FileNotFoundError as error:
        raise UnknownName(f"there is no file {path}") from error
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UnsupportedFormat(f"{path} is not JSON: {error}") from error
    for key in _NETWORK_KEYS:
        text = found.get(key) if isinstance(found, dict) else None
        if isinstance(text, str):
            return text.strip()
    raise UnsupportedFormat(f'{path} describes no network: it needs the key "block_args"')


def cut_file(path: str, given: Given = NOT_GIVEN) -> OnnxNetwork:
    """A file's kernels.

    Raises:
        As `cut` and `cut_tflite`.
    """
    file, given = on_disk(path, given)
    if file.suffix == ".tflite":
        from phonenas.latency_model.graphs.tflite_cut import cut_tflite

        return cut_tflite(file, given)
    if file.suffix == ".ort":
        words = f"phonenas profile --network {shlex.quote(path.strip())}"
        raise UnsupportedFormat(
            f"{path.strip()}: an ORT file is optimised already and is measured whole:  {words}"
        )
    from phonenas.latency_model.graphs.onnx_cut import cut

    return cut(file, given)


def network_file(path: str, given: Given = NOT_GIVEN) -> OnnxFile | OrtFile | TfliteFile:
    """A file to measure whole; it need not be one that can be cut.

    Raises:
        UnknownName, InvalidArgument, UnsupportedFormat: As `OnnxFile.at` and `TfliteFile.at`.
    """
    from phonenas.space.onnx_file import OnnxFile
    from phonenas.space.ort_file import OrtFile
    from phonenas.space.tflite_file import TfliteFile

    kinds: dict[str, Any] = {".tflite": TfliteFile, ".ort": OrtFile}
    place, left = on_disk(path, given)
    kind = kinds.get(place.suffix, OnnxFile)
    file: OnnxFile | OrtFile | TfliteFile = kind.at(place, _SOME_MACS, left)
    try:
        network = cut_file(path, given)
    except UncoveredOperator as error:
        return replace(file, notes=(*file.notes, f"its time depends on the data ({error})"))
    except PhonenasError:
        return file
    return replace(file, macs=network.macs, notes=network.notes)


def kernels_in(
    names: Sequence[str], resolution: int | None = None, given: Given = NOT_GIVEN
) -> list[Kernel | LiftedKernel]:
    """The distinct kernels of ONNX files, detectors and graphs."""
    from phonenas.latency_model.graphs.onnx_cut import to_measure

    found: dict[str, Kernel | LiftedKernel] = {}
    for name in names:
        named = None if is_file(name) else other(name, resolution=resolution)
        if named is None and name.strip().endswith(".tflite"):
            raise InvalidArgument(
                f"--kernels-of {name}: kernels are measured alone of ONNX files. Measure it whole:"
                f"  phonenas profile --network {shlex.quote(name)}"
            )
        network = cut_file(name, given) if named is None else cut_other(named)
        found.update((k.key, k) for k in to_measure(network))
    return list(found.values())


def cut_other(network: SSDLite | Classifier) -> OnnxNetwork:
    """A network as the kernels that a runtime launches."""
    from phonenas.latency_model.graphs.onnx_cut import cut

    if isinstance(network, SSDLite):
        from phonenas.space.detection.onnx import ssdlite_to_onnx

        return cut(ssdlite_to_onnx(network))
    from phonenas.space.lowering.onnx import to_onnx

    return cut(to_onnx(network))


def refuse_other_precision(
    phone: Device, precision: str | None, subjects: Sequence[Any], kernels: int | None
) -> None:
    """Refuse what has a precision of its own, where the user named another one.

    Raises:
        PrecisionDiffers: A file, or a kernel of one, computes in another.
        InvalidArgument: Kernels are to be drawn, which is possible in float32 alone.
    """
    from phonenas.data.measurement import taken_as

    on = phone.conditions
    if kernels is not None and on.precision != FLOAT32:
        raise InvalidArgument(
            f"--kernels draws kernels in float32, and {phone.name} is to measure in "
            f"{on.precision}. Measure those of a file in {on.precision}:  phonenas profile "
            f"--device {shlex.quote(phone.name)} --kernels-of FILE.onnx"
        )
    for subject in subjects if precision is not None else ():
        own = getattr(subject, "precision", on.precision)
        if own not in (on.precision, *taken_as(on.precision, on.runtime)):
            raise PrecisionDiffers(
                f"{subject.key} computes in {own}, and --precision {precision} was given: it "
                "is measured in its own precision. Leave --precision out"
            )


def networks_to_start_from(text: str, space: SearchSpace) -> list[Architecture]:
    """The networks that a search starts from: of a run's front, or of a table."""
    from phonenas.space.network_table import networks_in, read_frame

    path = Path(text)
    if is_run(text) or path.is_dir():
        return [candidate.architecture for candidate in load(path).front]
    return [*networks_in(read_frame(path), path, known=lambda: [space], space=space)]
