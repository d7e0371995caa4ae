"""The classifiers, all of scikit-learn, with its own settings but where a comment says why not.

A builder takes (images, features, seed): how many images the smallest fit will see, how many features an image has, and
what every random draw follows from. Where C is 1 / features, that is what gamma="scale" is to a kernel: the square of a
scaled image is about `features` long, so the penalty has the same weight for every network. C=1 overfits a thousand
features, and LinearSVC takes minutes for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from gossamer.errors import MissingPackageError, SettingsError, UnknownNameError

ClassifierFactory = Callable[[int, int, int], Any]
ClassifierKind = Literal["linear", "non-linear"]


RIDGE_FACTORS = (0.01, 0.1, 1.0, 10.0, 100.0)  # times the number of features, which is the weight of C = 1 / features


class Classifier(NamedTuple):
    """A classifier: whether its borders are linear in the features, and its builder."""

    kind: ClassifierKind
    build: ClassifierFactory


def _sklearn(module: str) -> Any:
    """A module of scikit-learn. Raises MissingPackageError."""
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise MissingPackageError("scikit-learn", "probe", "gossamer probe") from error


def _softmax(images: int, features: int, seed: int) -> Any:
    return _sklearn("linear_model").LogisticRegression(C=1 / features, max_iter=1000)


def _one_vs_rest(images: int, features: int, seed: int) -> Any:
    return _sklearn("multiclass").OneVsRestClassifier(_softmax(images, features, seed))


def _ridge(images: int, features: int, seed: int) -> Any:
    # linear regression on one-hot labels; the penalty is the one with the least error on images that are left out in turn
    return _sklearn("linear_model").RidgeClassifierCV(alphas=[features * factor for factor in RIDGE_FACTORS])


def _linear_svm(images: int, features: int, seed: int) -> Any:
    return _sklearn("svm").LinearSVC(C=1 / features, random_state=seed)


def _naive_bayes(images: int, features: int, seed: int) -> Any:
    return _sklearn("naive_bayes").GaussianNB()


def _perceptron(images: int, features: int, seed: int) -> Any:
    return _sklearn("linear_model").Perceptron(random_state=seed)


def _lda(images: int, features: int, seed: int) -> Any:
    # the covariance is shrunk (Ledoit and Wolf 2004): with more features than images it has no inverse
    return _sklearn("discriminant_analysis").LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")


def _tree(images: int, features: int, seed: int) -> Any:
    return _sklearn("tree").DecisionTreeClassifier(random_state=seed)


def _forest(images: int, features: int, seed: int) -> Any:
    return _sklearn("ensemble").RandomForestClassifier(random_state=seed)


def _boosting(images: int, features: int, seed: int) -> Any:
    # leaves of 20 images, its own choice, leave a small folder without a single split
    leaf = min(20, max(1, images // 20))
    trees = _sklearn("ensemble").HistGradientBoostingClassifier(min_samples_leaf=leaf, random_state=seed)
    # a split looks at every feature: of 1280 a fit on 1600 images took 93 s, of their 64 main components 5 s, and did better
    main = _sklearn("decomposition").PCA(min(64, features, images), random_state=seed)
    return _sklearn("pipeline").make_pipeline(main, trees)


def _mlp(images: int, features: int, seed: int) -> Any:
    return _sklearn("neural_network").MLPClassifier(max_iter=500, random_state=seed)


def _rbf_svm(images: int, features: int, seed: int) -> Any:
    return _sklearn("svm").SVC(random_state=seed)


def _knn(images: int, features: int, seed: int) -> Any:
    return _sklearn("neighbors").KNeighborsClassifier(n_neighbors=min(5, images))


CLASSIFIERS: dict[str, Classifier] = {
    "ridge": Classifier("linear", _ridge),
    "logistic": Classifier("linear", _softmax),
    "logistic-ovr": Classifier("linear", _one_vs_rest),
    "linear-svm": Classifier("linear", _linear_svm),
    "lda": Classifier("linear", _lda),
    "perceptron": Classifier("linear", _perceptron),
    # linear in the features only where the classes share their variances; scikit-learn gives each class its own
    "naive-bayes": Classifier("non-linear", _naive_bayes),
    "knn": Classifier("non-linear", _knn),
    "tree": Classifier("non-linear", _tree),
    "forest": Classifier("non-linear", _forest),
    "boosting": Classifier("non-linear", _boosting),
    "rbf-svm": Classifier("non-linear", _rbf_svm),
    "mlp": Classifier("non-linear", _mlp),
}
GROUPS = ("all", "linear", "non-linear")


def select_classifiers(wanted: str) -> tuple[str, ...]:
    """The names that `wanted` stands for, in the order of CLASSIFIERS: all, linear, non-linear, or names with commas.

    Raises UnknownNameError, SettingsError.
    """
    parts = [part.strip() for part in wanted.split(",") if part.strip()]
    if not parts:
        raise SettingsError("no classifier", ", ".join([*GROUPS, *CLASSIFIERS]), "name one, or leave it out for all")
    for part in parts:
        if part not in GROUPS and part not in CLASSIFIERS:
            raise UnknownNameError("classifier", part, (*GROUPS, *CLASSIFIERS))
    return tuple(name for name, entry in CLASSIFIERS.items() if name in parts or entry.kind in parts or "all" in parts)


def pipeline(name: str, images: int, features: int, seed: int) -> Any:
    """A fresh classifier behind a scaler to mean 0 and deviation 1, fitted together. Raises MissingPackageError."""
    scaler = _sklearn("preprocessing").StandardScaler()
    return _sklearn("pipeline").make_pipeline(scaler, CLASSIFIERS[name].build(images, features, seed))
