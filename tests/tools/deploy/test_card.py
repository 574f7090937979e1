"""``mlbench card``: a folder that the hub's own library reads and that labels a picture."""

from huggingface_hub import ModelCard

import mlbench
from mlbench_tools.deploy.card import render


def test_the_folder_is_a_model_of_the_hub(cli, trained, pictures, tmp_path):
    cli("card", trained, "--out", tmp_path / "shoes").ok("hf upload YOUR-NAME/shoes")
    done = cli("card", trained, "--out", tmp_path / "red shoes")
    assert f"hf upload 'YOUR-NAME/red shoes' '{tmp_path}/red shoes'" in done.out
    cli("card", trained, "--out", "/dev/null/x").failed("cannot be written", "name another folder")
    card = ModelCard.load(tmp_path / "shoes" / "README.md")
    card.data.to_dict()
    table = mlbench.results(trained.parent.parent)
    assert card.data.eval_results[0].metric_value == round(table["mAP"][0], 2)
    assert card.data.license == "other" and card.data.pipeline_tag == "image-classification"
    for text in (table["command"][0], trained.name, "Apache-2.0, as the program that draws it"):
        assert text in card.text
    assert "squash to 32 x 32 pixels, bilinear" in card.text and "here 1 and 0" in card.text
    model = mlbench.load(tmp_path / "shoes", device="cpu")
    changed = {"calibration": [(1.5, -0.25)] * len(model.labels)}
    changed["preprocessing"] = model.info.preprocessing.model_copy(update={"resize": 40})
    text = render(model.info.model_copy(update=changed), None, "a.safetensors", "other")
    assert f"{model.labels[0]} (0.5; slope 1.5, offset -0.25)" in text
    assert "squash to 40 x 40 pixels" in text and "cut 32 x 32 from the centre" in text
    assert all(name in card.text for name in model.labels)
    changed = {"label_names": ("\x1b[31mred", "\u202ertl", "$a$ *b* <c>\td", *model.labels[3:])}
    text = render(model.info.model_copy(update=changed), None, "a.safetensors", "other")
    assert "\ufffd[31mred (0.5), \ufffdrtl (0.5), \\$a\\$ \\*b\\* &lt;c> d (0.5)" in text
    assert model([pictures / "0.jpg"])[0].scores
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("precious")
    cli("card", trained, "--out", tmp_path / "full").failed("not an empty folder")
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["mine"], "it is left alone"
