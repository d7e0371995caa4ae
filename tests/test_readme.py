"""Every command of the README runs, in the order it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gossamer.cli.table import COMMANDS as TABLE
from gossamer.host import machine
from tests.conftest import once, write_boxes, write_image_folder, write_masks
from tests.runs import gossamer

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(lines: list[str]) -> list[str]:
    """The commands of the README's lines, without the comments behind them."""
    return [line.split("  #")[0].strip() for line in lines]


# indented lines, and of the fences of text the lines that are commands
INDENTED = commands([line for line in README.splitlines() if line.startswith("    ")])
FENCED = commands(
    [
        line
        for fence in re.findall(r"```(?:text|sh|bash|console)\n(.*?)```", README, re.DOTALL)
        for line in fence.splitlines()
        if line.startswith("gossamer ")
    ]
)
COMMANDS = INDENTED + FENCED


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the README supposes: photos/, boxes, masks and identities, two images, and folders of images."""
    home = tmp_path_factory.mktemp("home")
    write_image_folder(home / "photos", each=8)
    write_boxes(home / "signs", each=4)
    write_masks(home / "street", each=4)
    write_image_folder(home / "people", classes=2, each=4)
    write_image_folder(home / "gallery", classes=2, each=2, splits=("",))
    images = sorted((home / "photos" / "val" / "class0").iterdir())
    from PIL import Image

    for name in ("a.jpg", "b.jpg"):
        Image.open(images[0]).save(home / name)
    (home / "dir").mkdir()
    shutil.copy(images[1], home / "dir")
    return home


def test_the_readme_names_every_command() -> None:
    listed = {shlex.split(line)[1] for line in COMMANDS if line.startswith("gossamer ")}
    assert listed >= {"train", "eval", "export", "verify", "predict", "bench", "report", "doctor"}
    assert listed >= {"probe", "inspect", "compare", "swap", "index", "search", "convert-boxes", "list"}


# What takes ten seconds, stands in two documents, reads at most photos/ and leaves nothing there: it runs once a session.
SHARED = ("gossamer doctor", "gossamer probe photos/ --net mobilenet_v2 --classifiers linear")


@pytest.fixture
def shared(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Run a command of SHARED in a folder with photos/, if no document before has."""

    def run(folder: Path, line: str) -> None:
        (folder / "photos").symlink_to(home / "photos")
        run_as_written(line, folder)
        assert [path.name for path in folder.iterdir()] == ["photos"]

    return lambda line: once(tmp_path_factory, f"command {SHARED.index(line)}", lambda folder: run(folder, line))


ABSENT = {
    "executorch": "executorch",
    "coreml": "coremltools",
}  # extras that development does without, with their packages


def run_as_written(line: str, home: Path, code: int = 0, small: bool = True) -> None:
    """One epoch for any number of them, small images, no minutes of pruning, a moment of measuring: whether a command runs, not
    how well. small: False leaves the input sizes as they are by default."""
    words = shlex.split(re.sub(r"--epochs \d+", "--epochs 1", line))[1:]
    if words[0] == "train" and not {"--epochs", "--resume"} & set(words):
        words += ["--epochs", "1"]
    if small and words[0] == "train" and not {"--input", "--config", "--resume"} & set(words):
        words += ["--input", "96"]
    if words[0] in ("prune", "decompose") and "--minutes" in words:
        words[words.index("--minutes") + 1] = "0.02"
    if words[0] == "shrink":  # limits that an int8 file of a few images keeps
        for flag, value in (("--minutes", "4"), ("--max-ms", "1000"), ("--max-drop", "100")):
            if flag in words:
                words[words.index(flag) + 1] = value
        words += [] if "--epochs" in words else ["--epochs", "1"]  # else it trains until its minutes are over
    if words[0] == "pick":  # one small network, whatever this machine is
        words[words.index("--latency") + 1] = "9s"
        words += [
            "--nets",
            "mobilenetv1_025",
            *("--epochs 1 --candidates 1 --precision fp32".split() if "--out" in words else []),
        ]
    if words[0] == "bench" and not {"--seconds", "--profile"} & set(words):
        words += ["--seconds", "0.1"]
    if words[0] == "compare" and "--plot" in words:  # those without a picture are measured
        words += ["--no-measure"]
    for extra, package in ABSENT.items():
        if f" --to {extra} " in line and machine.versions([package])[package] is None:
            assert f"gossamer[{extra}]" in gossamer(*words, cwd=home, code=2).stderr
            return
    gossamer(*words, cwd=home, code=code)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_every_gossamer_command_of_the_readme_runs(home: Path, shared: Callable[[str], Path]) -> None:
    """In the order in which they stand there: those for the engine work on what those before left."""
    for line in INDENTED:
        if line in SHARED:
            shared(line)
        elif line.startswith("gossamer "):
            run_as_written(line, home)
    assert (home / "runs" / "flowers" / "report.html").exists()
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code
    done = subprocess.run([sys.executable, "-c", code[1]], cwd=home, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "Classification(" in done.stdout
    write_files_of_others(home)
    assert len(FENCED) >= 6
    for line in FENCED:
        run_as_written(line, home)


def write_files_of_others(home: Path) -> None:
    """What the section on the engine supposes beside flowers.onnx: a quantiser's output, and a file of free height and width."""
    import torch
    from onnxruntime.quantization import QuantFormat, quantize_static

    import gossamer
    from gossamer.errors import ModelFileError
    from gossamer.networks import create_model
    from tests.test_deployment import Pictures

    images = sorted((home / "photos" / "val" / "class1").iterdir())
    calibration = Pictures(home / "flowers.onnx", images)
    quantize_static(
        home / "flowers.onnx", home / "flowers-qdq.onnx", calibration, quant_format=QuantFormat.QDQ, per_channel=True
    )
    with pytest.raises(ModelFileError, match="not as it was written"):  # else the command would need no --metadata
        gossamer.load(home / "flowers-qdq.onnx")
    height, width = torch.export.Dim("height", min=32), torch.export.Dim("width", min=32)
    network = create_model("squeezenet1_1", num_classes=3).eval()
    example = (torch.zeros(1, 3, 64, 96),)
    with warnings.catch_warnings():  # torch's exporter warns of what it deprecates and uses itself
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            example,
            home / "other.onnx",
            dynamo=True,
            dynamic_shapes=({2: height, 3: width},),
            external_data=False,
            verbose=False,
        )


def test_the_extras_and_make_targets_of_the_readme_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"gossamer\[([a-z,]+)\]", README)
    assert named
    assert {extra for names in named for extra in names.split(",")} <= set(extras)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in COMMANDS:
        if line.startswith("make "):
            assert line.split()[1] in targets
        else:
            assert line.split()[0] in ("gossamer", "pip"), f"no test runs {line!r}"


@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_demo_keeps_its_promise(tmp_path: Path) -> None:
    """`make demo` runs this script."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py"], cwd=tmp_path, capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "the held-out digits are right" in done.stdout
    root = tmp_path / "runs" / "demo-1"
    assert (root / "run" / "report.html").exists() and (root / "latency.svg").exists()
    evidence = np.asarray(Image.open(root / "gradcam.png").convert("RGB")).astype(int)
    heat = evidence[evidence.shape[0] // 2 + 4 :]
    assert (heat.max(axis=2) - heat.min(axis=2)).max() > 100  # a colour, where there is evidence
    assert len(re.findall(r"^  gossamer \w+", done.stdout, re.MULTILINE)) == 3


def commands_of(page: str) -> list[tuple[str, int]]:
    """(command, exit code) of a page of docs/: indented lines, and those of the fences of sh; fences of text are what is
    printed. The code is 2 where the next line is an error of gossamer."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    plain = re.sub(r"```(\w*)\n(.*?)```", lambda fence: fence[2] if fence[1] == "sh" else "", text, flags=re.DOTALL)
    lines = commands([line.strip() for line in plain.splitlines()])
    after = [*lines[1:], ""]
    pairs = [(line, 2 if follows.startswith("gossamer: ") else 0) for line, follows in zip(lines, after)]
    return [(line, code) for line, code in pairs if line.startswith("gossamer ")]


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", ["commands.md", "data.md", "tasks.md"])
def test_every_command_of_the_pages_runs(page: str, home: Path, tmp_path: Path, shared: Callable[[str], Path]) -> None:
    """Each page in a folder of its own. docs/blocks.md has a test of its own, docs/networks.md no command."""
    for path in home.iterdir():
        if path.name != "runs":
            (tmp_path / path.name).symlink_to(path)
    shutil.copytree(home / "signs", tmp_path / "voc")
    rows = [
        f"{path.relative_to(home)},{path.parent.name},{number / 2},{path.parent.name}|image"
        for number, path in enumerate(sorted((home / "photos").rglob("*.png")))
    ]
    (tmp_path / "sweep.yaml").write_text(
        "settings: {data: photos/, input: 32, epochs: 1, batch: 8, workers: 0}\ngrid: {net: [lenet5], lr: [0.01, 0.1]}\n"
    )
    (tmp_path / "labels.csv").write_text("\n".join(["path,colour,width,tags", *rows]) + "\n")
    assert commands_of(page)
    for line, code in commands_of(page):
        if line in SHARED:
            shared(line)
        else:
            run_as_written(line, tmp_path, code, small=page != "data.md")


def test_the_page_of_commands_has_a_section_for_every_command() -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    titles = {word for line in re.findall(r"^## (.*)$", text, re.MULTILINE) for word in line.split(" and ")}
    assert set(TABLE) <= titles
    run = {shlex.split(line)[1] for line, _ in commands_of("commands.md")}
    assert run == set(TABLE), "each is shown at work"


def test_links_of_the_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    assert {document.name for document in documents} >= {"README.md", "FORMAT.md", "CONTRIBUTING.md", "CHANGELOG.md"}
    for document in documents:
        for target in re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8")):
            assert target.startswith("http") or (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_comparison_counts_the_networks_that_are_listed() -> None:
    listed = re.findall(r"^\| `", (ROOT / "docs" / "networks.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"| {len(listed)} networks of the papers" in (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")


def test_the_first_installation_is_from_the_clone() -> None:
    """The package is on no index: a first `pip install gossamer` finds nothing, so the first line installs the clone."""
    first = next(line for line in COMMANDS if line.startswith("pip "))
    assert first.split()[:3] == ["pip", "install", "-e"]
