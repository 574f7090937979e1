"""Score and target matrices that are hard: ties, absent classes, unknowns, one image, one class."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays


@st.composite
def cases(draw):
    n, c = draw(st.integers(1, 30)), draw(st.integers(1, 5))
    # Few distinct values make ties common; the other branch makes them rare.
    coarse = st.integers(-2, 2).map(float)
    fine = st.floats(-50, 50, width=32)
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    scores = draw(arrays.arrays(dtype, (n, c), elements=draw(st.sampled_from([coarse, fine]))))
    targets = draw(arrays.arrays(np.int8, (n, c), elements=st.sampled_from([1, 0, 0, -1])))
    targets[draw(st.integers(0, n - 1)), draw(st.integers(0, c - 1))] = 1
    return scores, targets
