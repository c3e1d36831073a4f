"""scikit-learn estimators: `SparseMLPClassifier` and `SparseMLPRegressor`, MLPs with sparse weights.

>>> from nnsparse.estimators import SparseMLPClassifier
>>> SparseMLPClassifier(hidden_layer_sizes=(300, 100), sparsity=0.95)
SparseMLPClassifier(hidden_layer_sizes=(300, 100), sparsity=0.95)

This is the one package of nnsparse that needs scikit-learn; `import nnsparse` does not import it.
"""

try:
    from nnsparse.estimators.classifier import SparseMLPClassifier
    from nnsparse.estimators.regressor import SparseMLPRegressor
except ImportError as error:
    if (error.name or "").split(".")[0] != "sklearn":
        raise
    raise ImportError(
        "nnsparse.estimators expects scikit-learn 1.6 or later; got "
        f"{error}. Install it: pip install 'nnsparse[sklearn]'",
        name="sklearn",
    ) from error

__all__ = ["SparseMLPClassifier", "SparseMLPRegressor"]
