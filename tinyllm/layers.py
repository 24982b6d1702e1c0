"""The six layers of a transformer, each as a forward and a backward function.

    out, cache = f_forward(x, w)           # cache: what the backward pass needs
    dx, dw = f_backward(dout, cache)       # one gradient per differentiable argument, in order

Without an autograd library the derivative of every layer has to be written by hand. The docstring of
each backward function derives the gradients, and the tests compare them with finite differences.

There is no state and no class. dout has the shape of out, dx the shape of x. A gradient is a new array, or
overwrites an array that the caller passes. It is never added to the gradient of an earlier step, so gradients
need not be set to 0 between steps. All functions work in float32 (for training) or float64 (for checks), and
never mix the two: scalars come from `math`, because an np.float64 scalar would turn a float32 array into
float64.

Shapes:  B batch   T time   N = B * T rows   C width   V vocabulary
         H query heads   K key/value heads   G = H // K   D head dimension   F hidden width of the MLP
"""

import math

import numpy as np

# ---- embedding: one row of a table per id


def embedding_forward(ids, w):
    """ids (N,) integers, w (V, C) -> out (N, C)."""
    return w[ids], (ids, w)


def embedding_backward(dout, cache):
    """out = onehot(ids) w  ->  dw = onehot(ids)^T dout: the gradients of all occurrences of a token add up.

    Sorting by id puts rows with the same id side by side, so one pass sums them. np.add.at gives the same
    result without sorting, but is many times slower.
    """
    ids, w = cache
    order = np.argsort(ids, kind="stable")
    present, starts = np.unique(ids[order], return_index=True)
    dw = np.zeros_like(w)
    dw[present] = np.add.reduceat(dout[order], starts, axis=0)
    return dw


# ---- linear: out = x w^T


def linear_forward(x, w):
    """x (N, C), w (out, in=C) as PyTorch stores it -> (N, out)."""
    return x @ w.T, (x, w)


def linear_backward(dout, cache, dw=None):
    """out = x w^T  ->  dx = dout w,  dw = dout^T x, written into the array `dw` if one is given."""
    x, w = cache
    return dout @ w, np.matmul(dout.T, x, out=dw)


# ---- RMSNorm: scale every row to length sqrt(C), then apply a gain per channel


def rmsnorm_forward(x, g, eps=1e-5):
    """x (N, C), g (C,) -> out = g * n,  n = x * r,  r = 1 / sqrt(mean(x^2) + eps).   Zhang, Sennrich 2019."""
    r = 1 / np.sqrt(np.vecdot(x, x)[:, None] * (1 / x.shape[1]) + eps)  # (N, 1)
    n = x * r
    return n * g, (n, r, g)


def rmsnorm_backward(dout, cache):
    """With dn = g * dout, row by row:

    dg = sum over rows of dout * n
    dx = r * (dn - n * mean(dn * n)): the direct path, minus its component along n, because scaling x
         does not change n (exactly true for eps = 0). The second term comes from dr/dx = -r^3 x / C.
    """
    n, r, g = cache
    dg = np.einsum("nc,nc->c", dout, n)
    dx = dout * g
    along = np.vecdot(dx, n)[:, None] * (1 / n.shape[1])  # (N, 1)
    dx -= n * along
    dx *= r
    return dx, dg


# ---- rotary positions: rotate each pair of channels by an angle that grows with the position


def rotations_at(T, D, theta, dtype):
    """Rotations as complex numbers e^(i t theta^(-2j/D)), shape (T, 1, D/2).   Su et al. 2021.

    The dot product of a rotated query at position t and a rotated key at position s depends on the positions
    only through t - s.
    """
    angle = np.arange(T)[:, None] * theta ** (-np.arange(0, D, 2) / D)
    return np.exp(1j * angle)[:, None, :].astype(np.result_type(dtype, np.complex64))


def rope_forward(x, rotations):
    """x (B, T, H, D) times rotations (T, 1, D/2): channels 2j and 2j+1 form one complex number."""
    return (x.view(rotations.dtype) * rotations).view(x.dtype), rotations


def rope_backward(dout, rotations):
    """The transpose of a rotation is its inverse, the opposite rotation: dx = dout * conj(rotations)."""
    return rope_forward(dout, rotations.conj())[0]


# ---- attention: every position takes a weighted mean of the values at the positions it sees


def causal_mask(T, dtype):
    """(T keys, T queries): 0 where the query may see the key, -inf where the key comes later."""
    return np.tril(np.full((T, T), -np.inf, dtype), -1)


def attention_forward(q, k, v, causal=False, block=64):
    """softmax(k q^T / sqrt(D)) over the keys, times v.  Vaswani et al. 2017, Ainslie et al. 2023.

    q (B, T, H, D), k and v (B, T, K, D), H a multiple of K: query head h reads key/value head h // G.
    causal: no query sees a key after its own position. Returns out (B, T, H, D) and the cache.

    The plain version, for one head and all positions at once:
        s = q @ k.T / sqrt(D), -inf where the key is in the future;  p = softmax(s);  out = p @ v
    The code below computes the same result faster. The matrix of scores has one row per key: the softmax then
    reduces over rows, which NumPy does at full vector width. Scores are computed for `block` queries at a
    time: a block stays in the processor's cache, and with a causal mask the keys after the block are never
    touched. At T = 300, blocks of 64 take 0.6 times as long as a single block of all queries.
    """
    (B, T, H, D), K = q.shape, k.shape[2]
    q = (q * (1 / math.sqrt(D))).reshape(B, T, K, H // K, D).transpose(0, 2, 3, 1, 4)  # (B, K, G, T, D)
    k = k.transpose(0, 2, 1, 3)[:, :, None]  # (B, K, 1, T, D)
    v = v.transpose(0, 2, 1, 3)[:, :, None]
    out, parts = np.empty((B, T, H, D), q.dtype), []
    heads = out.reshape(B, T, K, H // K, D).transpose(0, 2, 3, 1, 4)
    for start in range(0, T, block):
        stop = min(start + block, T)
        seen = stop if causal else T
        p = k[..., :seen, :] @ q[..., start:stop, :].swapaxes(-1, -2)  # (B, K, G, seen, block)
        if causal:
            p[..., start:, :] += causal_mask(stop - start, p.dtype)
        p -= p.max(axis=-2, keepdims=True)
        np.exp(p, out=p)
        p /= p.sum(axis=-2, keepdims=True)
        np.matmul(p.swapaxes(-1, -2), v[..., :seen, :], out=heads[..., start:stop, :])
        parts.append((start, stop, seen, p))
    return out, (q, k, v, parts, out)


def attention_backward(dout, cache):
    """The derivative of each step of the forward pass, from the last to the first. p has the shape
    (keys, queries), and q is already divided by sqrt(D).

    out = p^T v                         ->  dp = v dout^T          dv = p dout
    p = softmax(s) down each column     ->  ds = p * (dp - sum over keys of p * dp)
                                            and that sum is dout . out, one number per query
    s = k q^T                           ->  dk = ds q              dq = ds^T k / sqrt(D)

    The mask needs no line of its own: p is 0 at masked positions, so ds is 0 there too. Queries of several
    blocks and of G heads see the same key and value, so the gradients dk and dv are sums over these queries.
    """
    q, k, v, parts, out = cache
    B, K, G, T, D = q.shape
    heads = dout.reshape(B, T, K, G, D).transpose(0, 2, 3, 1, 4)  # (B, K, G, T, D)
    inner = np.vecdot(dout, out).reshape(B, T, K, G).transpose(0, 2, 3, 1)  # (B, K, G, T)
    dq, dk, dv = np.empty((B, T, K * G, D), q.dtype), *np.zeros((2, B, T, K, D), q.dtype)
    dq_heads = dq.reshape(B, T, K, G, D).transpose(0, 2, 3, 1, 4)
    for start, stop, seen, p in parts:
        dout_block = heads[..., start:stop, :]
        dv[:, :seen] += (p @ dout_block).sum(axis=2).swapaxes(1, 2)
        ds = v[..., :seen, :] @ dout_block.swapaxes(-1, -2)  # (B, K, G, seen, block)
        ds -= inner[..., None, start:stop]
        ds *= p
        dk[:, :seen] += (ds @ q[..., start:stop, :]).sum(axis=2).swapaxes(1, 2)
        np.matmul(ds.swapaxes(-1, -2), k[..., :seen, :], out=dq_heads[..., start:stop, :])
    dq *= 1 / math.sqrt(D)
    return dq, dk, dv


# ---- SwiGLU: a gate decides how much of each hidden channel passes


def swiglu_forward(x):
    """x (N, 2F) = gate | up  ->  silu(gate) * up, (N, F), where silu(a) = a * sigmoid(a).   Shazeer 2020."""
    F = x.shape[1] // 2
    gate, up = x[:, :F], x[:, F:]
    s = 0.5 * np.tanh(0.5 * gate) + 0.5  # sigmoid(a) = (1 + tanh(a/2)) / 2: tanh never overflows
    silu = gate * s
    return silu * up, (up, s, silu)


def swiglu_backward(dout, cache):
    """dup = dout * silu(gate),  dgate = dout * up * silu'(gate),  and with s = sigmoid(a):

    silu'(a) = s + a s (1 - s) = s + silu(a) (1 - s)
    """
    up, s, silu = cache
    dgate = (s + silu * (1 - s)) * up * dout
    return np.concatenate([dgate, dout * silu], axis=1)
