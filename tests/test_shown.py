"""How results look in a Python session: short, without the contents of arrays."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gossamer
from gossamer.batch.status import BatchStatus
from gossamer.errors import MissingPackageError, SettingsError, UnknownNameError
from gossamer.host.shown import Brief, Report, short_repr
from gossamer.modelfile.metadata import ModelMetadata
from gossamer.predictions.classes import Classification, LabelScores
from gossamer.predictions.gallery import Gallery
from gossamer.predictions.postprocess import Embedding, Several
from gossamer.predictions.spatial import Detections, Segmentation
from gossamer.run import Run
from gossamer.settings import Settings
from tests.test_score_texts import boxes, classes, embeddings, labels, numbers

VECTOR = np.arange(1000, dtype=np.float32)
CLASSES = tuple(f"class{i}" for i in range(1000))
LARGE: list[Any] = [
    Classification("a.jpg", CLASSES, tuple(VECTOR.tolist())),
    LabelScores("a.jpg", CLASSES, tuple(VECTOR.tolist()), dict.fromkeys(CLASSES, 0.5)),
    Detections("a.jpg", np.zeros((100, 4), np.float32), CLASSES[:100], (0.5,) * 100, (480, 640)),
    Segmentation("a.jpg", np.zeros((2000, 3000), np.uint8), CLASSES),
    Embedding("a.jpg", VECTOR),
    Several("a.jpg", {name: Embedding("a.jpg", VECTOR) for name in CLASSES}),
    Gallery.build(np.ones((1000, 8), np.float32), list(CLASSES), list(CLASSES), "0" * 64),
]


@pytest.mark.parametrize("value", LARGE, ids=lambda value: type(value).__name__)
def test_results_have_a_short_repr_of_one_line(value: Any) -> None:
    text = repr(value)
    assert text.startswith(f"{type(value).__name__}(") and len(text) < 1500 and "\n" not in text
    assert str(value) == text
    assert "0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0" not in text


def test_arrays_are_their_type_and_shape() -> None:
    assert repr(Embedding("a.jpg", VECTOR)) == "Embedding(source='a.jpg', vector=<float32 (1000,)>, error='')"
    assert short_repr({"a": [1.23456789, (1,)], "b": Path("x")}) == "{'a': [1.23457, (1,)], 'b': 'x'}"
    assert short_repr(list(range(10))) == "[0, 1, 2, 3, 4, 5, ... 10 items]"
    assert short_repr("x" * 500).endswith("... (502 characters)") and short_repr([[[[[1]]]]]) == "[[[[... 1 item]]]]"
    assert short_repr([]) == "[]" and short_repr(None) == "None" and short_repr(frozenset([1])) == "{1}"


@pytest.mark.parametrize(
    "scores_of", [classes, boxes, embeddings, labels, numbers], ids=lambda scores_of: scores_of.__name__
)
def test_scores_print_as_eval_prints_them(scores_of: Any) -> None:
    scores = scores_of(True)
    assert str(scores) == scores.text() and len(repr(scores)) < 1500 and "\n" not in repr(scores)


def test_no_result_has_a_repr_of_its_own() -> None:
    """That of a dataclass shows whole arrays."""
    waiting, classes_of = [Brief], list[type]()
    while waiting:
        one = waiting.pop()
        classes_of.append(one)
        waiting += one.__subclasses__()
    assert {BatchStatus, Report} <= set(classes_of)
    assert [one.__name__ for one in classes_of if "__repr__" in vars(one)] == ["Brief"]


def test_models_runs_and_settings_say_what_they_are(tmp_path: Path) -> None:
    assert repr(Run(tmp_path, Settings())) == f"Run({str(tmp_path)!r})"
    assert repr(Settings(data="photos", epochs=3)) == "Settings(data='photos', task='classify', epochs=3.0)"
    settings = Settings(task="detect", lr=0.5)
    assert eval(repr(settings), {"Settings": Settings}) == settings
    assert all(not field.repr or field.name for field in dataclasses.fields(ModelMetadata))


# errors of the Python interface


def test_a_mistyped_setting_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"no setting is called 'epocs'.*did you mean epochs\?"):
        Settings(epocs=3)  # type: ignore[call-arg]
    with pytest.raises(UnknownNameError, match="did you mean batch"):
        Settings().replace(bach=3)
    with pytest.raises(AttributeError, match=r"'lod'; did you mean load\?"):
        gossamer.lod  # noqa: B018


def test_train_takes_settings_alone() -> None:
    with pytest.raises(SettingsError, match=r"train with str; allowed: gossamer\.Settings"):
        gossamer.train("photos/")  # type: ignore[arg-type]


def test_a_missing_package_is_named_with_its_extra() -> None:
    code = (
        "import sys\nsys.modules['torch'] = None\nimport gossamer\n"
        "try:\n    gossamer.train\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MissingPackageError gossamer.train needs the package torch")
    assert 'pip install "gossamer[train]"' in done.stdout and issubclass(MissingPackageError, ImportError)
