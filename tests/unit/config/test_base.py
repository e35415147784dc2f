"""Configurations that extend others."""

from pathlib import Path

import pytest

from gfm_pipeline.config import load_config
from gfm_pipeline.config.base import read_tree
from gfm_pipeline.errors import ConfigError
from gfm_pipeline.train.config import TrainConfig

CONFIGS = Path(__file__).parents[3] / "configs" / "pretrain"


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def test_mappings_merge_values_replace_and_null_removes(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path, one="a: {x: 1, y: [1, 2], z: {p: 1}}\nb: 5\n", two="base: one.yaml\na: {x: 3}\n")
    write(tmp_path / "deep", three="base: ../two.yaml\na: {y: [4], z: null, w: {q: 2}}\nb: {c: 1}\n")
    tree, files = read_tree(tmp_path / "deep" / "three.yaml")
    assert tree == {"a": {"x": 3, "y": [4], "w": {"q": 2}}, "b": {"c": 1}}
    assert [file.name for file in files] == ["three.yaml", "two.yaml", "one.yaml"]


def test_what_cannot_be_extended_is_named(tmp_path: Path) -> None:
    write(tmp_path, a="base: b.yaml\n", b="base: a.yaml\n", c="base: [a]\n", d="base: gone.yaml\n", e="base: f.yaml\n")
    write(tmp_path, f="seed: [", g="base: h.yaml\n", h="- list\n")
    for name, words in [
        ("a", r"circle: .*a\.yaml -> .*b\.yaml -> .*a\.yaml"),
        ("c", r"c\.yaml: 'base' is \['a'\]"),
        ("d", r"gone\.yaml \(the base of .*d\.yaml\)"),
        ("e", r"f\.yaml is not valid YAML"),
        ("g", r"h\.yaml holds a list"),
    ]:
        with pytest.raises(ConfigError, match=words):
            load_config(tmp_path / f"{name}.yaml", TrainConfig)


def test_an_error_names_all_files_that_took_part(tmp_path: Path) -> None:
    write(tmp_path, mine=f"base: {CONFIGS / 'quickstart.yaml'}\nmodel: {{moe: {{num_expert: 3}}}}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml on .*quickstart\.yaml: unknown key .*num_experts"):
        load_config(tmp_path / "mine.yaml", TrainConfig)


def test_ablations_change_what_their_names_say() -> None:
    def load(name: str) -> TrainConfig:
        return load_config(CONFIGS / f"{name}.yaml", TrainConfig)

    base = load("msgfm_base")
    assert load("xgeo_base").model.embed.kind == "linear"
    assert load("ablations/dense").model.moe.num_experts == 1
    assert load("ablations/cross_100").objectives["cross_sensor_mim"]["cross_share"] == 1
    assert list(load("ablations/without_rgb").data.streams) == ["sen12ms", "mdas"]
    assert load("ablations/only_s1").data.streams["sen12ms"].sensors == ("s1",)
    blocks = load("ablations/expert_blocks_swin_moe").model.moe.blocks
    assert blocks == {**base.model.moe.blocks, 4: (1,)}
    everything = [load(f"ablations/{path.stem}") for path in (CONFIGS / "ablations").glob("*.yaml")]
    assert len({config.run_dir for config in everything}) == len(everything)
    assert all(config.schedule == base.schedule for config in everything)
    literal = base.optim.model_copy(update={"step_per_stream": True})
    others = {config.run_dir.rpartition("/")[2] for config in everything if config.optim != base.optim}
    assert others == {"step_per_stream"}
    assert load("ablations/step_per_stream").optim == literal
