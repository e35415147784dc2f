"""What is written twice is refused with its lines, wherever YAML or JSON is read; what a merge brings in is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gfm_pipeline.config import load_config, load_json, load_yaml
from gfm_pipeline.errors import ConfigError
from shard_builder.config import BuildConfig

ONE = "source: folder\ninput: a\noutput: b\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "key 'a' stands in line 1 and again in line 3"),
        ("a:\n  b: 1\n  c: {d: 1, d: 2}\n", "key 'd' stands in line 3 and again in line 3"),
        ("- a: 1\n  'a': 1\n", "key 'a' stands in line 1 and again in line 2"),
        ("yes: 1\ntrue: 2\n", "key True stands in line 1"),
        ("1: a\n1.0: b\n", "stands in line 1 and again in line 2"),
        ("x: &x {a: 1}\ny: &y {b: 2}\nz:\n  <<: *x\n  <<: *y\n", "write <<: [*one, *other] instead"),
        ("x: &x {a: 1, a: 2}\nz: {<<: *x}\n", "key 'a' stands in line 1"),
        ("[" * 100_000, "nested too deeply"),
        ("a: 2020-13-45\n", "month must be in 1..12"),
        ("a: {<<: 3}\n", "'<<' in line 1 brings in no mapping"),
        ("a: {[1]: 3}\n", "line 1 has [1] for a key"),
        ("a: &a {<<: *a}\n", "<<"),
    ],
)
def test_yaml_that_is_refused(text: str, words: str) -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        load_yaml(text)
    assert words in str(caught.value)


def test_merges_mean_what_yaml_says() -> None:
    text = "x: &x {a: 1, b: 1}\ny: &y {<<: *x, b: 2, c: 2}\nz: {<<: [*y, *x], c: 3}\nagain: *y\nw: {b: 5, <<: *y}\n"
    assert load_yaml(text) == {
        "x": {"a": 1, "b": 1},
        "y": {"a": 1, "b": 2, "c": 2},
        "z": {"a": 1, "b": 2, "c": 3},
        "again": {"a": 1, "b": 2, "c": 2},
        "w": {"a": 1, "b": 5, "c": 2},
    }
    first = load_yaml("p: &p {workers: 1}\nq: &q {workers: 2, edge: drop}\nr: {<<: [*p, *q]}\n")["r"]
    assert first == {"workers": 1, "edge": "drop"}


def test_merges_of_merges_do_not_explode() -> None:
    levels = "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 40))
    assert load_yaml(f"m0: &m0 {{a: 1}}\n{levels}")["m39"] == {"a": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' stands twice"),
        ('{"a": NaN}', "NaN is no JSON"),
        ('{"a": -Infinity}', "-Infinity is no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ("1" * 10_000, "digit"),
    ],
)
def test_json_that_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load_json(text)


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        (f"{ONE}workers: 1\nworkers: 2\n", [], "line 4 and again in line 5"),
        (ONE, ["options={a: 1, a: 2}"], "'a' stands in line 1"),
        (f"{ONE}options: {{1: a, '1': b}}\n", [], "'1' stands twice"),
    ],
)
def test_a_configuration_that_repeats_itself(text: str, overrides: list[str], words: str, tmp_path: Path) -> None:
    path = tmp_path / "build.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, BuildConfig, overrides)
    assert words in str(caught.value)
    (tmp_path / "above.yaml").write_text("base: build.yaml\n")
    with pytest.raises(ConfigError, match=r"twice|line"):
        load_config(tmp_path / "above.yaml", BuildConfig, overrides)


def test_not_a_number_stays_a_value(tmp_path: Path) -> None:
    path = tmp_path / "build.yaml"
    path.write_text(f"{ONE}options: {{nodata: .nan}}\n")
    assert load_config(path, BuildConfig).options["nodata"] != load_config(path, BuildConfig).options["nodata"]
