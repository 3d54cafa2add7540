"""Word vectors from counts: association of words and contexts, and its truncated factorisation.

V words, D dimensions, P passages.
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


def topic_vectors(counts: sparse.csr_matrix, *, d_model: int, seed: int) -> Float[np.ndarray, "V D"]:
    """Latent semantic analysis (Deerwester et al. 1990): tokens of the same passages get similar vectors of length 1.

    `counts` is V x P. The association of token and passage is positive PMI, what all tokens share is taken away, and a
    token that stands nowhere gets a random direction.
    """
    occurs = np.asarray(counts.sum(axis=1)).ravel() > 0
    vectors = np.random.default_rng(seed).standard_normal((counts.shape[0], d_model)).astype(np.float32)
    found = svd_vectors(positive_pmi(counts[occurs], smoothing=1.0, shift=0.0), d_model=d_model, power=1.0, seed=seed)
    vectors[occurs] = found - found.mean(axis=0)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)
