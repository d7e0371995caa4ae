"""Losses of distillation against plain loops, and which head learns from which."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gossamer.errors import SettingsError
from gossamer.predictions.head import OutputHead
from gossamer.settings import Settings
from gossamer.tasks.distillation import losses
from gossamer.tasks.distillation.heads import class_order, head_terms


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def softmax(values: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def rows(values: Tensor) -> Any:
    return values.double().tolist()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl_is_the_divergence_of_softened_classes(temperature: float) -> None:
    student, teacher = draw(3, 5), draw(3, 5, seed=1)
    expected = [
        temperature**2 * divergence(softmax(t, temperature), softmax(s, temperature))
        for s, t in zip(rows(student), rows(teacher), strict=True)
    ]
    torch.testing.assert_close(losses.kl(student, teacher, temperature), torch.tensor(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_binary_kl_is_the_sum_over_labels(temperature: float) -> None:
    student, teacher = draw(3, 4), draw(3, 4, seed=1)
    expected = []
    for s, t in zip(rows(student), rows(teacher), strict=True):
        total = 0.0
        for a, b in zip(t, s, strict=True):
            p, q = (1 / (1 + math.exp(-value / temperature)) for value in (a, b))
            total += divergence([p, 1 - p], [q, 1 - q])
        expected.append(temperature**2 * total)
    torch.testing.assert_close(
        losses.binary_kl(student, teacher, temperature), torch.tensor(expected), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("beta", [0.0, 1.0, 8.0])
def test_dkd_weighs_the_target_and_the_others_apart(beta: float) -> None:
    student, teacher, targets = draw(4, 5), draw(4, 5, seed=1), torch.tensor([0, 4, 2, 2])
    expected = []
    for s, t, target in zip(rows(student), rows(teacher), targets.tolist(), strict=True):
        p, q = softmax(t, 4.0), softmax(s, 4.0)
        binary = divergence([p[target], 1 - p[target]], [q[target], 1 - q[target]])
        rest_p, rest_q = (softmax(v[:target] + v[target + 1 :], 4.0) for v in (t, s))
        expected.append(16 * (0.5 * binary + beta * divergence(rest_p, rest_q)))
    actual = losses.dkd(student, teacher, targets, 4.0, beta, alpha=0.5)
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-4, atol=1e-6)


def test_dkd_is_kl_where_the_others_weigh_as_much_as_the_teacher_gives_them() -> None:
    """Equation 5 of the paper: KL = TCKD + (1 - p_t) NCKD."""
    student, teacher, targets = draw(1, 6), draw(1, 6, seed=1), torch.tensor([3])
    rest = 1 - float(teacher.softmax(1)[0, 3])
    torch.testing.assert_close(losses.dkd(student, teacher, targets, 1.0, rest), losses.kl(student, teacher, 1.0))


@pytest.mark.parametrize("classes", [1, 2])
def test_dkd_of_one_or_two_classes_is_finite(classes: int) -> None:
    student = draw(3, classes).requires_grad_()
    value = losses.dkd(student, draw(3, classes, seed=1), torch.zeros(3, dtype=torch.int64), 4.0, 2.0)
    value.sum().backward()
    assert torch.isfinite(value).all() and student.grad is not None and torch.isfinite(student.grad).all()
    assert classes > 1 or not value.any()


def test_a_certain_teacher_gives_finite_gradients() -> None:
    student = (1e3 * draw(2, 4)).requires_grad_()
    teacher = torch.tensor([[1e4, 0.0, 0.0, 0.0], [0.0, -1e4, 1e4, 0.0]])
    for value in (
        losses.kl(student, teacher, 1.0),
        losses.dkd(student, teacher, torch.tensor([0, 1]), 1.0, 2.0),
        losses.binary_kl(student, teacher, 1.0),
    ):
        (gradient,) = torch.autograd.grad(value.sum(), student)
        assert torch.isfinite(value).all() and torch.isfinite(gradient).all()


def test_channel_wise_compares_each_channel_over_its_places() -> None:
    student, teacher = draw(2, 3, 2, 4), draw(2, 3, 2, 4, seed=1)
    expected = [
        sum(
            16
            / 3
            * divergence(softmax(rows(teacher[n, c].flatten()), 4.0), softmax(rows(student[n, c].flatten()), 4.0))
            for c in range(3)
        )
        for n in range(2)
    ]
    torch.testing.assert_close(losses.channel_wise(student, teacher, 4.0), torch.tensor(expected), rtol=1e-4, atol=1e-6)


def test_pixel_kl_is_the_mean_over_places() -> None:
    student, teacher = draw(2, 3, 2, 4), draw(2, 3, 2, 4, seed=1)
    expected = [
        sum(
            divergence(softmax(rows(teacher[n, :, y, x])), softmax(rows(student[n, :, y, x])))
            for y, x in itertools.product(range(2), range(4))
        )
        / 8
        for n in range(2)
    ]
    torch.testing.assert_close(losses.pixel_kl(student, teacher, 1.0), torch.tensor(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("background", [True, False])
def test_boxes_weigh_anchors_by_what_the_teacher_finds(background: bool) -> None:
    ours = {"deltas": draw(2, 5, 4), "logits": draw(2, 5, 3)}
    theirs = {"deltas": 3 * draw(2, 5, 4, seed=1), "logits": draw(2, 5, 3, seed=2)}
    expected = []
    for n in range(2):
        total = weights = 0.0
        for a in range(5):
            t, s = rows(theirs["logits"][n, a]), rows(ours["logits"][n, a])
            if background:
                weight, classes = max(softmax(t)[1:]), divergence(softmax(t), softmax(s))
            else:
                p, q = ([1 / (1 + math.exp(-value)) for value in each] for each in (t, s))
                weight = max(p)
                classes = sum(divergence([b, 1 - b], [c, 1 - c]) for b, c in zip(p, q, strict=True))
            apart = (abs(x - y) for x, y in zip(rows(theirs["deltas"][n, a]), rows(ours["deltas"][n, a]), strict=True))
            places = sum(e * e / 2 if e < 1 else e - 0.5 for e in apart)
            total, weights = total + weight * (classes + places), weights + weight
        expected.append(total / max(1.0, weights))
    actual = losses.boxes(ours, theirs, 1.0, background=background)
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-4, atol=1e-6)


def huber(error: float) -> float:
    return error * error / 2 if abs(error) < 1 else abs(error) - 0.5


def test_relations_compare_distances_of_pairs_and_angles_of_triplets() -> None:
    student, teacher = draw(5, 3), draw(5, 7, seed=1)

    def unit(values: list[float]) -> list[float]:
        length = math.hypot(*values)
        return [value / length for value in values]

    def relation(points: Tensor) -> tuple[list[list[float]], Any]:
        units = [unit(point) for point in rows(points)]
        far = [[math.dist(a, b) for b in units] for a in units]
        mean = sum(map(sum, far)) / 20

        def cosine(i: int, j: int, k: int) -> float:
            if i in (j, k):
                return 0.0
            one, two = (unit([x - y for x, y in zip(units[other], units[i], strict=True)]) for other in (j, k))
            return sum(x * y for x, y in zip(one, two, strict=True))

        return [[value / mean for value in row] for row in far], cosine

    (far_s, cosine_s), (far_t, cosine_t) = relation(student), relation(teacher)
    expected = []
    for i in range(5):
        pairs = sum(huber(far_s[i][j] - far_t[i][j]) for j in range(5)) / 5
        angles = sum(huber(cosine_s(i, j, k) - cosine_t(i, j, k)) for j in range(5) for k in range(5)) / 25
        expected.append(pairs + 2 * angles)
    torch.testing.assert_close(losses.relations(student, teacher), torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_relations_of_equal_few_and_many_images_are_finite() -> None:
    for student in (torch.ones(4, 3), draw(1, 3), draw(2, 3), draw(150, 3)):
        learner = student.clone().requires_grad_()
        value = losses.relations(learner, draw(len(student), 5, seed=1))
        value.sum().backward()
        assert value.shape == (len(student),) and torch.isfinite(value).all()
        assert learner.grad is not None and torch.isfinite(learner.grad).all()


def test_a_student_that_answers_as_its_teacher_costs_nothing_and_the_teacher_gets_no_gradient() -> None:
    logits = draw(4, 5).requires_grad_()
    maps = draw(2, 3, 4, 4).requires_grad_()
    labels = torch.tensor([0, 1, 2, 3])
    answers = {"deltas": draw(2, 3, 4), "logits": draw(2, 3, 5).requires_grad_()}
    for value in (
        losses.kl(logits, logits, 4.0),
        losses.dkd(logits, logits, labels, 4.0, 2.0),
        losses.binary_kl(logits, logits, 4.0),
        losses.channel_wise(maps, maps, 4.0),
        losses.pixel_kl(maps, maps, 4.0),
        losses.boxes(answers, answers, 1.0, background=True),
        losses.relations(logits, 3 * logits),
    ):
        torch.testing.assert_close(value, torch.zeros_like(value), atol=2e-5, rtol=0)
    teacher = draw(4, 5, seed=1).requires_grad_()
    losses.dkd(logits, teacher, labels, 4.0, 2.0).sum().backward()
    assert teacher.grad is None and logits.grad is not None


# heads


def classifier(*names: str, name: str = "", **options: Any) -> OutputHead:
    return OutputHead("classify", names, name, options)


def test_classes_are_matched_by_name() -> None:
    assert class_order(classifier("a", "b", "c"), classifier("c", "a", "b"), "t") == [1, 2, 0]
    terms, notes = head_terms([classifier("a", "b")], [classifier("b", "a")], Settings(teacher="t", distil="kl"), "t")
    ours, theirs = {"logits": torch.tensor([[3.0, -1.0]])}, {"logits": torch.tensor([[-1.0, 3.0]])}
    assert float(terms[0](ours, theirs, torch.tensor([0]))) == pytest.approx(0) and not notes


@pytest.mark.parametrize(
    ("heads", "answers", "distil", "text"),
    [
        ([classifier("a", "b")], [classifier("a", "c")], "auto", "does not know b and knows c"),
        ([classifier("a", "b")], [classifier("a", "b", "c", "d")], "auto", "knows c, d, which the data lack"),
        ([classifier("a", "b")], [OutputHead("embed")], "auto", "a teacher for embed; allowed: a teacher for classify"),
        ([OutputHead("embed")], [OutputHead("embed")], "dkd", "distil dkd for embed"),
        ([OutputHead("embed")], [OutputHead("embed")], "kl", "distil kl for embed"),
        ([classifier("a", name="x")], [classifier("a", name="y")], "auto", "a teacher for x \\(classify\\)"),
    ],
)
def test_what_a_teacher_cannot_teach_is_refused(
    heads: list[OutputHead], answers: list[OutputHead], distil: Any, text: str
) -> None:
    with pytest.raises(SettingsError, match=text):
        head_terms(heads, answers, Settings(teacher="t", distil=distil), "t")


def test_heads_without_a_teacher_are_named_and_the_others_learn() -> None:
    heads = [classifier("a", "b", name="kind"), OutputHead("regress", ("mm",), "size", {"mean": [0.0], "std": [1.0]})]
    terms, notes = head_terms(heads, [classifier("b", "a")], Settings(teacher="t"), "t")
    assert [term.student.name for term in terms] == ["kind"]
    assert notes == ["the teacher has no head for size (regress): it learns from its labels alone"]


def test_an_image_without_a_label_learns_all_classes_alike() -> None:
    (term,), _ = head_terms(
        [classifier("a", "b", "c", name="k")], [classifier("a", "b", "c")], Settings(teacher="t"), "t"
    )
    ours, theirs = {"k.logits": draw(2, 3)}, {"logits": draw(2, 3, seed=1)}
    value = term(ours, theirs, [{"k": 1}, {"k": None}])
    plain = losses.kl(ours["k.logits"], theirs["logits"], 4.0)
    decoupled = losses.dkd(ours["k.logits"], theirs["logits"], torch.tensor([1, 0]), 4.0, 2.0)
    torch.testing.assert_close(value, torch.stack([decoupled[0], plain[1]]))


def test_numbers_are_compared_in_the_units_of_the_student() -> None:
    ours = OutputHead("regress", ("w", "h"), "", {"mean": [10.0, 0.0], "std": [2.0, 1.0]})
    theirs = OutputHead("regress", ("h", "w"), "", {"mean": [1.0, 4.0], "std": [1.0, 8.0]})
    (term,), _ = head_terms([ours], [theirs], Settings(task="regress", teacher="t"), "t")
    # the teacher says h = 2 and w = 12, which are 1 and 2 deviations of the student
    value = term({"values": torch.tensor([[1.0, 2.0]])}, {"values": torch.tensor([[1.0, 1.0]])}, None)
    assert float(value) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "values", [{"distil": "kl"}, {"distil_weight": 0.5}, {"distil_temperature": 2.0}, {"distil_beta": 1.0}]
)
def test_settings_of_a_teacher_without_one_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="without teacher"):
        Settings(**values)
    assert Settings(**values, teacher="t")


def test_beta_belongs_to_dkd() -> None:
    with pytest.raises(SettingsError, match="distil_beta with kl"):
        Settings(teacher="t", distil="kl", distil_beta=1.0)
