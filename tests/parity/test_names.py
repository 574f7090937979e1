"""Names of the authors' tensors: prefixes go, and what belongs to no head is left out.

What heads compute under these names is compared by ``tests/tools/weights/test_parity.py``.
"""

import pytest
import torch

from mlbench_plugins.layers.decoder import decoder_from_authors
from mlbench_plugins.methods import add_gcn, csra, graph_branch, ml_gcn, msrn, query2label, ssgrl
from tests.parity.fixtures import weights

FIXTURES = {
    "addgcn_c6": add_gcn.from_authors,
    "csra_h4_c6": csra.from_authors,
    "gcnbranch_gcn_max_asl": graph_branch.from_authors,
    "mldecoder_c26_g10": decoder_from_authors,
    "mlgcn_c6": ml_gcn.from_authors,
    "msrn_c6": msrn.from_authors,
    "q2l_c6_e1d2": query2label.from_authors,
    "ssgrl_c5_d32": ssgrl.from_authors,
}
PREFIXES = {"csra_h4_c6": "classifier.", "mldecoder_c26_g10": "head."}
TRUNK = ("conv1", "layer1.0.conv1", "features.0", "resnet_101.layer1.0.conv1", "body.conv1.0")


@pytest.mark.parametrize("fixture", FIXTURES)
def test_prefixes_and_the_trunk_do_not_matter(fixture):
    convert, state = FIXTURES[fixture], weights(fixture)
    expected = convert(state)
    trunk = {f"{name}.weight": torch.zeros(1) for name in TRUNK} | {"backbone.1.pe": torch.ones(1)}
    for prefix in ("module.", PREFIXES.get(fixture, ""), "module." + PREFIXES.get(fixture, "")):
        found = convert({prefix + key: value for key, value in (state | trunk).items()})
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in found)


def test_heads_of_csra_stack_in_their_order():
    authors = weights("csra_h4_c6")
    state = csra.from_authors(dict(reversed(authors.items())))
    for i, value in enumerate(authors.values()):
        assert torch.equal(state["weight"][i], value[:, :, 0, 0])
