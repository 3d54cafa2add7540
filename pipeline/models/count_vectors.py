"""Word vectors from counts: association of words and contexts, and its truncated factorisation.

V words, D dimensions.
"""

import numpy as np
from jaxtyping import Float
from scipy import sparse
from sklearn.utils.extmath import randomized_svd


def positive_pmi(counts: sparse.csr_matrix, *, smoothing: float, shift: float) -> sparse.csr_matrix:
    """Positive pointwise mutual information: max(0, log(p(w, c) / (p(w) p(c))) - shift) in every non-zero cell.

    p(c) is the context's share of the counts after raising them to `smoothing` (Levy et al. 2015, section 3.2; 1 is
    none); a shift of log(k) stands for k negative samples.
    """
    cells = counts.tocoo()
    of_words = np.asarray(counts.sum(axis=1)).ravel()
    of_contexts = np.asarray(counts.sum(axis=0)).ravel() ** smoothing
    context_share = of_contexts / of_contexts.sum()
    pmi = np.log(cells.data / (of_words[cells.row] * context_share[cells.col])) - shift
    positive = pmi > 0
    return sparse.csr_matrix((pmi[positive], (cells.row[positive], cells.col[positive])), counts.shape)


def log_counts(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """log(1 + count) in every cell."""
    return counts.log1p().tocsr()


def svd_vectors(matrix: sparse.csr_matrix, *, d_model: int, power: float, seed: int) -> Float[np.ndarray, "V D"]:
    """U S^power of the largest `d_model` singular values (Levy et al. 2015, section 3.3; power 1 is the plain SVD).

    By random projection with power iterations (Halko et al. 2011), the same for the same seed. Raises ValueError when
    there are fewer words than dimensions.
    """
    if matrix.shape[0] < d_model:
        raise ValueError(f"d_model: {d_model} dimensions need as many words, found {matrix.shape[0]}")
    left, singular, _ = randomized_svd(matrix.astype(np.float32), d_model, n_iter=4, random_state=seed)
    return np.asarray(left * singular**power, dtype=np.float32)
